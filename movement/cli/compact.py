"""`movement compact`: joins small files, beside the running stream; --dry-run shows what it would do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from movement.cli.console import out, progress_bar, resources, write_result
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from jobs.maintenance.compact import CompactResult, PartitionDebt
    from jobs.settings.settings import Settings

SHOWN_PARTITIONS = 30


def compact(
    partition: Annotated[
        list[str] | None,
        typer.Option("--partition", metavar="FOLDER", help="Only city=…/start_date=…; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do, and change nothing.")] = False,
    grace: Annotated[
        float | None,
        typer.Option("--grace", min=0, metavar="SECONDS", help="How long replaced files stay (compact.grace_seconds)."),
    ] = None,
    target_bytes: Annotated[
        int | None,
        typer.Option("--target-bytes", metavar="BYTES", help="Size of the new files (compact.target_bytes)."),
    ] = None,
    min_files: Annotated[
        int | None,
        typer.Option("--min-files", metavar="N", help="Compact partitions with N small files (compact.min_files)."),
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Join small files of processed/ into few large ones, while the stream writes and queries read.

    Run it on a schedule, or when `movement status` reports partitions to compact. It writes a partition's new files
    to another folder, then points the catalog there: a query sees the old files or the new ones. The next run after
    the grace time deletes the old files. Safe to repeat and to kill. Gold tables: `movement gold --upkeep`.
    """
    from jobs.maintenance.compact import plan
    from jobs.settings.settings import load_settings

    given = {"grace_seconds": grace, "target_bytes": target_bytes, "min_files": min_files}
    options = [f"compact.{key}={value}" for key, value in given.items() if value is not None]
    settings = load_settings(config, [*(overrides or ()), *options])
    partition = [name.strip("/") for name in partition] if partition else None
    if dry_run:
        found = plan(settings, partition)
        _print_plan(found, settings)
        write_result(json_file, _planned(found, settings) | resources(settings))
        return
    result = _run(settings, partition)
    _print_result(result, settings)
    write_result(json_file, asdict(result) | {"dry_run": False} | resources(settings))


def _planned(found: list[PartitionDebt], settings: Settings) -> dict[str, Any]:
    """The result of a dry run: a run's keys, with estimates. The bytes afterwards are unknown and stay as before."""
    due = [debt for debt in found if debt.is_due(settings.compact.min_files)]
    return {
        "dry_run": True,
        "partitions": [debt.partition for debt in due],
        "files_before": sum(debt.files for debt in due),
        "files_after": sum(debt.files_after for debt in due),
        "bytes_before": sum(debt.bytes for debt in due),
        "bytes_after": sum(debt.bytes for debt in due),
        "removed": 0,
        "seconds": 0.0,
        "debt": [asdict(debt) | {"due": debt in due} for debt in found],
    }


def _run(settings: Settings, partitions: list[str] | None) -> CompactResult:
    from jobs.maintenance.compact import run

    with progress_bar("looking at the lake") as show:
        return run(settings, partitions, show)


def _print_plan(found: list[PartitionDebt], settings: Settings) -> None:
    from rich.table import Table

    due = [debt for debt in found if debt.is_due(settings.compact.min_files)]
    if not due:
        out.print(
            f"Nothing to do: none of {len(found):,} partitions has {settings.compact.min_files} small files or more."
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0), title="Would be compacted", title_justify="left")
    table.add_column("partition")
    for name in ("files", "small", "about, after", "bytes"):
        table.add_column(name, justify="right")
    worst_first = sorted(due, key=lambda debt: (-debt.small_files, debt.partition))
    for debt in worst_first[:SHOWN_PARTITIONS]:
        figures = (debt.files, debt.small_files, debt.files_after, debt.bytes)
        table.add_row(escape(debt.partition), *(f"{figure:,}" for figure in figures))
    out.print(table)
    if len(due) > SHOWN_PARTITIONS:
        out.print(f"… and {len(due) - SHOWN_PARTITIONS:,} more partitions")
    out.print(
        f"\n{len(due):,} of {len(found):,} partitions, {sum(debt.files for debt in due):,} files → about "
        f"{sum(debt.files_after for debt in due):,}. Nothing was changed."
    )


def _print_result(result: CompactResult, settings: Settings) -> None:
    for partition, why in sorted(result.left.items()):
        out.print(f"[yellow]not compacted:[/] {escape(partition)}: {escape(why)}", soft_wrap=True)
    if result.recovered:
        out.print(f"{len(result.recovered):,} partitions of an interrupted run are finished")
    if result.partitions:
        out.print(
            f"{len(result.partitions):,} partitions compacted: {result.files_before:,} files → "
            f"{result.files_after:,}, {result.bytes_before:,} bytes → {result.bytes_after:,} "
            f"({result.seconds:.1f} s)",
            soft_wrap=True,
        )
    elif not (result.removed or result.home or result.recovered or result.left):
        out.print(f"Nothing to do: no partition has {settings.compact.min_files} small files or more.")
    if result.home:
        out.print(f"{len(result.home):,} partitions are back in their default folder")
    if result.removed:
        out.print(f"{result.removed:,} replaced files deleted, {result.removed_bytes:,} bytes")
    elif result.partitions:
        out.print(f"The old files stay for {settings.compact.grace_seconds:,.0f} s; a later run deletes them.")
