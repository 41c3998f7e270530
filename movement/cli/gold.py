"""`movement gold`: the gold tables from what the stream has made final, with a line that shows how it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobs.common.errors import ConfigurationError
from movement.cli.console import Config, JsonFile, Overrides, err, out, write_result
from movement.cli.stream import log_path, log_to_file

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.gold.increments import Increment
    from jobs.gold.job import GoldResult
    from jobs.gold.maintenance import Kept
    from jobs.settings.settings import Settings


def gold(
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until Ctrl-C: look for new batches every gold.poll_seconds.")
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
            help="Instead: write Redshift's SQL for this lake there (external schema, CREATE TABLE, COPY).",
        ),
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Bring the gold tables up to date: corridors, corridor_history, city_summary and zones, as Delta and in Glue.

    Takes the batches that the stream has made final since the last time, each exactly once; killed anywhere, the
    next run goes on. Spark starts only when there are any. See docs/gold.md.
    """
    from jobs.settings.settings import load_settings

    if sum((follow, upkeep, redshift_ddl is not None)) > 1:
        raise ConfigurationError("--follow, --upkeep and --redshift-ddl: one at a time")
    settings = load_settings(config, overrides or ())
    if redshift_ddl is not None:
        _write_ddl(settings, redshift_ddl, json_file)
        return
    log = log_path(settings, "gold")
    err.print(f"{settings.lake}/processed → gold [dim](log: {escape(str(log))})[/]", soft_wrap=True)
    if upkeep:
        kept = run_upkeep(settings, log)
        show_upkeep(kept)
        write_result(json_file, _named(settings) | {"tables": [asdict(table) for table in kept]})
        return
    result = run_gold(settings, log, follow=follow)
    show_gold(result)
    write_result(json_file, gold_result(settings, result))


def _named(settings: Settings) -> dict[str, Any]:
    return {"stream": settings.stream.name, "lake": settings.lake, "database": settings.database}


def gold_result(settings: Settings, result: GoldResult) -> dict[str, Any]:
    """What `--json` holds: of each table its rows now, and how many are new."""
    return asdict(result) | _named(settings)


def run_gold(settings: Settings, log: Path, *, follow: bool = False) -> GoldResult:
    """Runs the job with a progress line, until Ctrl-C with `follow`."""
    stop = threading.Event()
    with log_to_file(log), _progress() as progress:
        line = progress.add_task("looking for new batches")
        from jobs.common.job_main import stop_on_signals
        from jobs.gold import job as gold_job

        def show(increment: Increment) -> None:
            text = f"{increment.query}: {len(increment.batches)} batches, {increment.rows:,} rows taken"
            progress.update(line, description=text)
            if follow and not err.is_terminal:
                err.print(text, soft_wrap=True)

        start = _starter(settings, log, stop, lambda text: progress.update(line, description=text))
        stop_on_signals(stop)
        if not follow:
            return gold_job.run(start, settings, stop=stop, on_increment=show)
        waiting = f"waiting for new batches, every {settings.gold.poll_seconds:g} s; Ctrl-C ends"
        return gold_job.follow(
            start,
            settings,
            stop,
            on_increment=show,
            on_run=lambda _: progress.update(line, description=waiting),
        )


def run_upkeep(settings: Settings, log: Path) -> list[Kept]:
    """Runs OPTIMIZE and VACUUM with a progress line."""
    with log_to_file(log), _progress() as progress:
        line = progress.add_task("starting Spark")
        from jobs.gold import job as gold_job

        start = _starter(settings, log, threading.Event(), lambda text: progress.update(line, description=text))
        spark = start()
        progress.update(line, description="OPTIMIZE and VACUUM")
        return gold_job.upkeep(spark, settings)


def _progress() -> Progress:
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True)


def _starter(
    settings: Settings, log: Path, stop: threading.Event, say: Callable[[str], object]
) -> Callable[[], SparkSession]:
    """Starts Spark when it is first asked for."""

    def start() -> SparkSession:
        from jobs.common.job_main import stop_on_signals
        from jobs.common.spark_session import spark_session
        from movement.cli.java import require_java

        say("starting Spark")
        require_java()
        spark = spark_session(settings, "movement-gold", str(log))
        stop_on_signals(stop)  # after Spark, which puts a handler of its own in place
        say("writing the tables")
        return spark

    return start


def show_gold(result: GoldResult) -> None:
    """The run as a table."""
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
    corridors = result.tables.get("corridors", {"new": 0})["new"]
    out.print(
        f"{result.rows:,} rows of {batches} batches taken: {corridors:,} new corridors, the other "
        f"{result.rows - corridors:,} rows merged ({result.seconds:.1f} s)",
        soft_wrap=True,
    )


def show_upkeep(kept: list[Kept]) -> None:
    """Files before and after."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("gold table")
    for name in ("files before", "after"):
        table.add_column(name, justify="right")
    for entry in kept:
        table.add_row(entry.table, f"{entry.files_before:,}", f"{entry.files_after:,}")
    out.print(table if kept else "There are no gold tables yet: run `movement gold` first")


def _write_ddl(settings: Settings, folder: Path, json_file: Path | None) -> None:
    from jobs.gold.redshift import scripts

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, sql in scripts(settings).items():
        (folder / name).write_text(sql, encoding="utf-8")
        written.append(str(folder / name))
        out.print(f"{folder / name}", soft_wrap=True)
    write_result(json_file, _named(settings) | {"files": written})
