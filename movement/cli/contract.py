"""`movement contract upgrade`: rewrites a contract of version 1 as version 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from movement.cli.console import command_name, out, write_result
from movement.cli.options import JsonFile

app = typer.Typer(no_args_is_help=True, help="The table's contract: the YAML file that describes the columns.")


@app.command()
def upgrade(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The contract's YAML file, which is rewritten in place.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the new file; change nothing.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Rewrite a contract of version 1 as version 2, with its comments.

    Version 2 names each column once, as a key, and has nested values, decimals and more (docs/contract.md). A contract
    of version 1 goes on working without it. The new file describes the same table: lake and checkpoint stay as they
    are. Safe to repeat.
    """
    from jobs.schema.contract_upgrade import upgraded

    text = file.read_text(encoding="utf-8")
    new = upgraded(text, file)
    if dry_run:
        typer.echo(new, nl=False)
    elif new != text:
        file.write_text(new, encoding="utf-8")
        out.print(f"{file}: rewritten as version 2; the table stays the same", soft_wrap=True)
    else:
        out.print(f"{file}: is version 2 already; see `{command_name()} contract --help`", soft_wrap=True)
    write_result(json_file, {"file": str(file), "changed": new != text})
