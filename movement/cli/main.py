"""The command line: one function a command, each with --help, --config, --set and --json.

Commands import what they run inside the function, so that `movement --help` answers at once. Exit code 0 is
success, 1 a failed run or check, 2 bad usage or configuration.
"""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from jobs.common.errors import ConfigurationError, MovementError
from movement.cli import batch as batch_commands
from movement.cli import compact as compact_commands
from movement.cli import demo
from movement.cli import deploy as deploy_commands
from movement.cli import gold as gold_commands
from movement.cli import local as local_commands
from movement.cli import package as package_commands
from movement.cli import produce as produce_commands
from movement.cli import replay as replay_commands
from movement.cli import report as report_commands
from movement.cli import serve as serve_commands
from movement.cli import status as status_commands
from movement.cli import stream as stream_commands
from movement.cli.console import err

app = typer.Typer(
    name="movement",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a Kinesis stream to a queryable lake on S3: nothing lost, nothing doubled.",
)
app.command()(demo.demo)
app.command()(produce_commands.sample)
app.command()(produce_commands.produce)
app.command()(stream_commands.stream)
app.command()(batch_commands.batch)
app.command()(batch_commands.parity)
app.command()(gold_commands.gold)
app.command()(compact_commands.compact)
app.command()(replay_commands.replay)
app.command()(status_commands.status)
app.command()(report_commands.report)
app.command()(serve_commands.serve)
app.add_typer(local_commands.app, name="local")
app.command()(package_commands.package)
app.add_typer(deploy_commands.app, name="deploy")


def main() -> None:
    """Console script: runs a command, and turns our errors into one message and an exit code."""
    try:
        app()
    except MovementError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
