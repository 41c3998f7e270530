"""The command `movement`: registers the commands, and turns errors into a message and an exit code.

Commands import what they run inside their function, so that `movement --help` answers at once. Exit code 0 is
success, 1 a failed run or check, 2 wrong usage or configuration.
"""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from jobs.common.errors import ConfigurationError, MovementError
from movement.cli import catalog, contract, deploy, local
from movement.cli.batch import batch
from movement.cli.compact import compact
from movement.cli.console import err
from movement.cli.cost import cost
from movement.cli.demo import demo
from movement.cli.doctor import doctor
from movement.cli.gold import gold
from movement.cli.package import package
from movement.cli.parity import parity
from movement.cli.produce import produce
from movement.cli.replay import replay
from movement.cli.report import report
from movement.cli.sample import sample
from movement.cli.serve import serve
from movement.cli.status import status
from movement.cli.stream import stream

app = typer.Typer(
    name="movement",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a Kinesis stream to a queryable lake on S3: nothing lost, nothing doubled.",
)
for function in (demo, sample, produce, stream, batch, parity, gold, compact, replay, status, report, serve):
    app.command()(function)
app.add_typer(catalog.app, name="catalog")
app.add_typer(local.app, name="local")
app.add_typer(contract.app, name="contract")
app.command()(package)
app.command()(doctor)
app.command()(cost)
app.add_typer(deploy.app, name="deploy")


def main() -> None:
    """The console script."""
    try:
        app()
    except (MovementError, OSError) as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        for line in getattr(error, "__notes__", ()):
            err.print(escape(line), soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
