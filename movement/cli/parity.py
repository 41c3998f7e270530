"""`movement parity`: compares the stream's rows with the batch path's, and shows where they differ."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from movement.cli.console import err, out, resources, spinner, write_result
from movement.cli.log_file import log_path, log_to_file
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from jobs.parity.job import ParityResult
    from jobs.settings.settings import Settings

# Limits of what is printed: partitions, and characters of one value.
SHOWN_PARTITIONS = 20
SHOWN_CHARACTERS = 60


def parity(
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only records that arrived at or after TIME (ISO).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Only records that arrived before TIME (ISO).")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Compare processed/ with processed_batch/, row for row; the exit code is 1 if they differ.

    Proof that the stream and the batch path wrote the same rows. Run it after both are up to date; for a check every
    hour give --since and --until, with an --until that both paths have passed.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    log = log_path(settings, "parity")
    err.print(f"processed = processed_batch in {settings.lake}? [dim](log: {escape(str(log))})[/]", soft_wrap=True)
    result = run_parity(settings, log, since, until)
    _print_result(result)
    # `stream` is the number of the stream's rows here, so the stream's name has a key of its own.
    write_result(json_file, resources(settings) | asdict(result) | {"stream_name": settings.stream.name})
    if not result.equal:
        raise typer.Exit(1)


def run_parity(settings: Settings, log: Path, since: str | None = None, until: str | None = None) -> ParityResult:
    """Runs the check with a progress line, and keeps its result in the lake."""
    from movement.cli.java import require_java

    require_java()
    with log_to_file(log), spinner("starting Spark") as line:
        from jobs.common.spark_session import spark_session
        from jobs.common.times import time_option
        from jobs.parity.job import run, store_result

        bounds = [
            time_option(text, option) if text else None for option, text in (("--since", since), ("--until", until))
        ]
        spark = spark_session("movement-parity", settings.spark.master, settings.spark.conf, str(log))
        line.update("comparing")
        result = run(spark, settings, *bounds)
        store_result(settings, result)
        return result


def _print_result(result: ParityResult) -> None:
    """Prints a table, the partitions that differ first, then rows that one side lacks, then the verdict."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("partition")
    for name in ("stream", "batch", "only stream", "only batch"):
        table.add_column(name, justify="right")
    worst_first = sorted(
        result.partitions, key=lambda part: (-part["only_stream"] - part["only_batch"], part["partition"])
    )
    for part in worst_first[:SHOWN_PARTITIONS]:
        colour = "red" if part["only_stream"] or part["only_batch"] else "default"
        figures = [f"{part[key]:,}" for key in ("stream", "batch", "only_stream", "only_batch")]
        table.add_row(escape(part["partition"]), *figures, style=colour)
    out.print(table)
    if len(worst_first) > SHOWN_PARTITIONS:
        out.print(f"… and {len(worst_first) - SHOWN_PARTITIONS:,} more partitions")
    for sample in result.samples:
        values = {name: _shortened(value) for name, value in sample["row"].items() if value is not None}
        fields = ", ".join(f"{name}={value}" for name, value in values.items())
        out.print(f"\n[red]only {sample['side']}[/], {sample['count']}×: {escape(fields)}", soft_wrap=True)
    verdict = (
        f"[green]Equal:[/] {result.stream:,} rows, in {len(result.partitions)} partitions"
        if result.equal
        else f"[red]Not equal:[/] {result.only_stream:,} rows on the stream's side alone, "
        f"{result.only_batch:,} on the batch side alone"
    )
    out.print(f"\n{verdict} ({result.seconds:.1f} s)", soft_wrap=True)


def _shortened(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
