"""`movement gold`: builds the gold tables, with a progress line and a table of the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from jobs.common.errors import ConfigurationError
from movement.cli.console import Spinner, err, out, resources, spinner, write_result
from movement.cli.log_file import log_path, log_to_file
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.gold.increments import Increment
    from jobs.gold.job import GoldResult
    from jobs.gold.maintenance import MaintenanceResult
    from jobs.settings.settings import Settings


def gold(
    follow: Annotated[
        bool, typer.Option("--follow", help="Run until Ctrl-C: look for new batches every gold.poll_seconds.")
    ] = False,
    upkeep: Annotated[
        bool,
        typer.Option("--upkeep", help="Instead: OPTIMIZE (few, sorted files) and VACUUM (gold.retention_hours)."),
    ] = False,
    redshift_ddl: Annotated[
        Path | None,
        typer.Option(
            "--redshift-ddl",
            metavar="DIR",
            help="Instead: write Redshift's SQL for this lake to DIR (external schema, CREATE TABLE, COPY).",
        ),
    ] = None,
    rebuild: Annotated[
        list[str] | None,
        typer.Option(
            "--rebuild",
            metavar="TABLE",
            help="First delete this gold table; it is then computed again from every batch. Repeat for several.",
        ),
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Update the gold tables, Delta tables in Glue: those that the section `gold:` of the contract names.

    Kinds: latest (a row a key: upserts), history (every row), aggregate (count, sum, avg, min, max, percentile of
    groups), zones. The travel times have corridors, corridor_history, city_summary and zones.

    Run it on a schedule, or with --follow. It adds the batches that the stream has committed since the last run,
    each exactly once, and can be killed at any time. It starts Spark only if there are new batches. See docs/gold.md.
    """
    from jobs.settings.settings import load_settings

    if sum((follow, upkeep, redshift_ddl is not None)) > 1:
        raise ConfigurationError("--follow, --upkeep and --redshift-ddl: give one at a time")
    if rebuild and (upkeep or redshift_ddl is not None):
        raise ConfigurationError("--rebuild: give it alone or with --follow")
    settings = load_settings(config, overrides or ())
    if redshift_ddl is not None:
        _write_ddl(settings, redshift_ddl, json_file)
        return
    log = log_path(settings, "gold")
    err.print(f"{settings.lake}/processed → gold [dim](log: {escape(str(log))})[/]", soft_wrap=True)
    if upkeep:
        maintained = _run_upkeep(settings, log)
        _print_upkeep(maintained)
        write_result(json_file, resources(settings) | {"tables": [asdict(table) for table in maintained]})
        return
    result = run_gold(settings, log, follow=follow, rebuild=rebuild or ())
    print_gold(result)
    write_result(json_file, asdict(result) | resources(settings))


def run_gold(settings: Settings, log: Path, *, follow: bool = False, rebuild: Sequence[str] = ()) -> GoldResult:
    """Runs the job with a progress line; with `follow` until Ctrl-C. `rebuild`: tables to delete first."""
    stop = threading.Event()
    with log_to_file(log), spinner("looking for new batches") as line:
        from jobs.gold import job as gold_job
        from jobs.settings.job_main import stop_on_signals

        def show(increment: Increment) -> None:
            text = f"{increment.query}: {len(increment.batches)} batches, {increment.rows:,} rows taken"
            (line.log if follow else line.update)(text)

        start = _spark_starter(settings, log, line)
        stop_on_signals(stop)
        if rebuild:
            gold_job.delete_tables(settings, rebuild)
        if not follow:
            return gold_job.run(start, settings, stop=stop, on_increment=show)
        waiting = f"waiting for new batches, every {settings.gold.poll_seconds:g} s; Ctrl-C ends"
        return gold_job.follow(start, settings, stop, on_increment=show, on_run=lambda _: line.update(waiting))


def _run_upkeep(settings: Settings, log: Path) -> list[MaintenanceResult]:
    with log_to_file(log), spinner("starting Spark") as line:
        from jobs.gold import job as gold_job

        spark = _spark_starter(settings, log, line)()
        line.update("OPTIMIZE and VACUUM")
        return gold_job.maintain(spark, settings)


def _spark_starter(settings: Settings, log: Path, line: Spinner) -> Callable[[], SparkSession]:
    """A function that starts Spark, for a job that may not need it."""

    def start() -> SparkSession:
        from jobs.common.spark_session import spark_session
        from movement.cli.java import require_java

        line.update("starting Spark")
        require_java()
        spark = spark_session("movement-gold", settings.spark.master, settings.spark.conf, str(log))
        line.update("writing the tables")
        return spark

    return start


def print_gold(result: GoldResult) -> None:
    """Prints each table's rows, and how many of them are new."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("gold table")
    table.add_column("rows", justify="right")
    table.add_column("new", justify="right")
    for name, figures in sorted(result.tables.items()):
        table.add_row(name, f"{figures['rows']:,}", f"{figures['new']:,}")
    if result.tables:
        out.print(table)
    batches = sum(result.batches.values())
    if not batches:
        said = "Up to date: no new batches" if result.tables else "Nothing to do: the stream has written no batch yet"
        out.print(f"{said} ({result.seconds:.1f} s)")
        return
    out.print(f"{result.rows:,} rows of {batches} batches taken ({result.seconds:.1f} s)", soft_wrap=True)


def _print_upkeep(maintained: list[MaintenanceResult]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("gold table")
    for name in ("files before", "after"):
        table.add_column(name, justify="right")
    for entry in maintained:
        table.add_row(entry.table, f"{entry.files_before:,}", f"{entry.files_after:,}")
    out.print(table if maintained else "There are no gold tables yet: run `movement gold` first")


def _write_ddl(settings: Settings, folder: Path, json_file: Path | None) -> None:
    from jobs.gold.redshift import scripts

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, sql in scripts(settings).items():
        (folder / name).write_text(sql, encoding="utf-8")
        written.append(str(folder / name))
        out.print(f"{folder / name}", soft_wrap=True)
    write_result(json_file, resources(settings) | {"files": written})
