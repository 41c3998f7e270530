"""`movement catalog check` and `movement catalog repair`: does the Glue Data Catalog point to where the files are?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from movement.cli.console import command_name, out, progress_bar, resources, write_result
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from jobs.catalog.check import RepairResult, TableDifferences

app = typer.Typer(
    no_args_is_help=True, help="Compare the Glue Data Catalog with the lake's files, and correct the catalog."
)
SHOWN = 10


@app.command()
def check(config: Config = None, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """Say where the catalog and the lake's files differ; exit code 1 if they do.

    For a monitor, and when a query shows too few rows. It finds missing tables, partitions that the catalog lacks or
    points elsewhere, and partitions without files. It changes nothing. `movement catalog repair` corrects what it
    finds.
    """
    from jobs.catalog.check import as_json, catalog_check
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    with progress_bar("comparing catalog and lake") as show:
        found = catalog_check(settings, show).differences()
    for each in found:
        out.print(f"{each.table}: {summary(each)}", soft_wrap=True)
        _print_partitions(each)
    differ = any(each.count for each in found)
    write_result(json_file, {"ok": not differ, "tables": as_json(found)} | resources(settings))
    if differ:
        out.print(f"\n`{command_name()} catalog repair` corrects the catalog; it deletes no file", soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def repair(
    remove_empty: Annotated[
        bool,
        typer.Option(
            "--remove-empty", help="Remove partitions without files too. Stop the jobs that write to the lake first."
        ),
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Make the catalog name every partition where its files are; creates the database and tables if need be.

    After a table or database was dropped, after partitions were dropped or re-created by MSCK or a crawler, or for a
    lake that was copied. Deletes no file. Safe to repeat, and safe beside running jobs and compaction, except with
    --remove-empty: a running job does not register again, for up to ten minutes, what is removed.
    """
    from jobs.catalog.check import as_json, catalog_check
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    with progress_bar("comparing catalog and lake") as show:
        result = catalog_check(settings, show).repair(remove_empty=remove_empty)
    _print_result(result, remove_empty)
    done = {"ok": not result.left, "repaired": as_json(result.found), "left": result.left}
    write_result(json_file, done | resources(settings))
    if result.left:
        raise typer.Exit(1)


def summary(found: TableDifferences) -> str:
    """One line about a table, with markup."""
    parts = ["[red]the table is missing[/]"] if found.missing else []
    for count, text in (
        (len(found.unregistered), "not registered: queries do not see their rows"),
        (len(found.elsewhere), "registered elsewhere than their files are"),
        (len(found.empty), "registered without files"),
    ):
        if count:
            parts.append(f"[yellow]{count:,} partitions {text}[/]")
    return "; ".join(parts) or f"[green]{found.partitions:,} partitions, each where its files are[/]"


def _print_partitions(found: TableDifferences) -> None:
    lines = [
        *(f"not registered: {name}" for name in found.unregistered),
        *(f"elsewhere: {name}: the catalog names {location}" for name, location in found.elsewhere.items()),
        *(f"without files: {name}" for name in found.empty),
    ]
    for line in lines[:SHOWN]:
        out.print(f"  {escape(line)}", soft_wrap=True)
    if len(lines) > SHOWN:
        out.print(f"  … and {len(lines) - SHOWN:,} more")


def _print_result(result: RepairResult, remove_empty: bool) -> None:
    for each in result.found:
        done: list[Any] = ["table created"] if each.missing else []
        left = [name for name in result.left if name.startswith(f"{each.table}/")]
        for names, text in (
            (each.unregistered, "registered"),
            (each.elsewhere, "pointed to their files"),
            (each.empty, f"without files {'removed' if remove_empty else 'left: --remove-empty removes them'}"),
        ):
            count = sum(f"{each.table}/{name}" not in left for name in names)
            if count:
                done.append(f"{count:,} partitions {text}")
        out.print(f"{each.table}: {'; '.join(done) or 'nothing to do'}", soft_wrap=True)
    for name, why in sorted(result.left.items()):
        out.print(f"[yellow]not repaired:[/] {escape(name)}: {escape(why)}", soft_wrap=True)
