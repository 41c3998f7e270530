"""`movement stream`: the streaming job on this machine, with a progress line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from movement.cli.console import Spinner, err, out, resources, spinner, write_result
from movement.cli.log_file import log_path, log_to_file
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.lake.ledger import LedgerEntry
    from jobs.settings.settings import Settings
    from jobs.stream.job import StreamResult
    from jobs.stream.resume import StartFrom


def stream(
    until_drained: Annotated[
        bool, typer.Option("--until-drained", help="End once all that is on the stream now has been written.")
    ] = False,
    start_from: Annotated[
        Literal["ledger", "checkpoint", "stream"] | None,
        typer.Option(
            "--start-from",
            help="Only if the job asks for it: what to trust if checkpoint and lake disagree. ledger: go on after the "
            "last record in the lake. checkpoint: go on where the checkpoint ends. stream: read the stream again.",
        ),
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Run the streaming job on this machine: from the stream to raw JSON, Parquet, quarantine and Glue partitions.

    For development and small streams; on a cluster use `movement deploy`, or spark-submit jobs/stream_job.py
    --config FILE. Runs until Ctrl-C or SIGTERM and finishes the current batch first. The next start continues from
    the checkpoint.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    log = log_path(settings, "stream")
    err.print(f"stream {settings.stream.name} → {settings.lake} [dim](log: {escape(str(log))})[/]", soft_wrap=True)
    result, stopped = run_stream(settings, log, until_drained=until_drained, start_from=start_from)
    out.print(_summary(result, stopped), soft_wrap=True)
    write_result(json_file, asdict(result) | resources(settings) | {"checkpoint": settings.checkpoint})


def run_stream(
    settings: Settings, log: Path, *, until_drained: bool, start_from: StartFrom | None = None
) -> tuple[StreamResult, bool]:
    """Runs the job with a progress line; returns its result, and whether a signal ended it."""
    from movement.cli.java import require_java

    stop = threading.Event()
    with log_to_file(log), spinner("checking stream and lake") as line:
        from jobs.common.spark_session import spark_session
        from jobs.settings.job_main import stop_on_signals
        from jobs.stream.job import run

        def start_spark() -> SparkSession:
            line.update("starting Spark")
            require_java()
            spark = spark_session("movement-stream", settings.spark.master, settings.spark.conf, str(log))
            line.update("finishing" if stop.is_set() else "reading the stream")
            return spark

        stop_on_signals(stop)
        threading.Thread(target=_announce_stop, args=(stop, line), daemon=True).start()
        result = run(
            start_spark,
            settings,
            until_drained=until_drained,
            start_from=start_from,
            stop=stop,
            on_batch=_batch_logger(line),
        )
    return result, stop.is_set()


def _summary(result: StreamResult, stopped: bool) -> str:
    rejected = f", {result.quarantined:,} in quarantine" if result.quarantined else ""
    return (
        f"{'Stopped' if stopped else 'Drained'}: {result.read:,} records in {result.batches} batches → "
        f"{result.processed:,} rows{rejected}, {len(result.partitions)} partitions, {result.seconds:.1f} s"
    )


def _announce_stop(stop: threading.Event, line: Spinner) -> None:
    stop.wait()
    line.update("stopping: waits for Spark's start or the current batch; Ctrl-C again ends at once")


def _batch_logger(line: Spinner) -> Callable[[LedgerEntry], None]:
    """Shows each batch with the total so far."""
    total, started = 0, time.monotonic()

    def show(entry: LedgerEntry) -> None:
        nonlocal total
        total += entry.report.read
        rate = total / max(time.monotonic() - started, 0.001)
        text = f"batch {entry.batch} · {total:,} records · {rate:,.0f}/s"
        if entry.report.quarantined:
            text += f" · {entry.report.quarantined:,} rejected in this batch"
        line.log(text)

    return show
