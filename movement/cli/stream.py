"""`movement stream`: the streaming job on this machine, with a line that shows how it goes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from movement.cli.console import Config, JsonFile, Overrides, err, out, write_result

if TYPE_CHECKING:
    from jobs.lake.ledger import LedgerEntry
    from jobs.settings.settings import Settings
    from jobs.stream.job import StreamResult


def stream(
    until_drained: Annotated[
        bool, typer.Option("--until-drained", help="End once all that is on the stream now has been written.")
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Run the streaming job on this machine: stream → raw, Parquet, quarantine and Glue partitions.

    Runs until Ctrl-C (or SIGTERM) and ends after the batch in hand; started again, it goes on where it was.
    On a cluster: spark-submit jobs/stream_job.py --config FILE.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    log = log_path(settings, "stream")
    err.print(f"stream {settings.stream.name} → {settings.lake} [dim](log: {escape(str(log))})[/]", soft_wrap=True)
    result, stopped = run_stream(settings, log, until_drained=until_drained)
    out.print(summary(result, stopped), soft_wrap=True)
    write_result(json_file, stream_result(settings, result))


def log_path(settings: Settings, name: str) -> Path:
    """Where a command's run keeps what Spark has to say."""
    return Path(settings.local.state_dir).expanduser().absolute() / f"{name}.log"


def stream_result(settings: Settings, result: StreamResult) -> dict[str, object]:
    """What `--json` of the streaming commands holds."""
    return asdict(result) | {
        "stream": settings.stream.name,
        "lake": settings.lake,
        "database": settings.database,
        "checkpoint": settings.checkpoint,
    }


def summary(result: StreamResult, stopped: bool) -> str:
    """The run in one line."""
    rejected = f", {result.quarantined:,} in quarantine" if result.quarantined else ""
    return (
        f"{'Stopped' if stopped else 'Drained'}: {result.read:,} records in {result.batches} batches → "
        f"{result.processed:,} rows{rejected}, {len(result.partitions)} partitions, {result.seconds:.1f} s"
    )


def run_stream(settings: Settings, log: Path, *, until_drained: bool) -> tuple[StreamResult, bool]:
    """Runs the job with a progress line; what it did, and whether a signal ended it."""
    from movement.cli.java import require_java

    require_java()
    stop = threading.Event()
    with (
        log_to_file(log),
        Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
        ) as progress,
    ):
        line = progress.add_task("starting Spark")
        from jobs.common.job_main import stop_on_signals
        from jobs.common.spark_session import spark_session
        from jobs.stream.job import run

        spark = spark_session(settings, "movement-stream", str(log))
        stop_on_signals(stop)  # after Spark, which puts a handler of its own in place
        progress.update(line, description="reading the stream")
        show = _shower(lambda text: progress.update(line, description=text))
        watch = threading.Thread(target=_announce, args=(stop, progress, line), daemon=True)
        watch.start()
        result = run(spark, settings, until_drained=until_drained, stop=stop, on_batch=show)
    return result, stop.is_set()


def _announce(stop: threading.Event, progress: Progress, line: object) -> None:
    stop.wait()
    progress.update(line, description="stopping after the batch in hand")  # type: ignore[arg-type]


def _shower(update: Callable[[str], None]) -> Callable[[LedgerEntry], None]:
    """Shows each batch: on the progress line of a terminal, as a line of its own elsewhere."""
    total, begun = 0, time.monotonic()

    def show(entry: LedgerEntry) -> None:
        nonlocal total
        total += entry.report.read
        rate = total / max(time.monotonic() - begun, 0.001)
        text = f"batch {entry.batch} · {total:,} records · {rate:,.0f}/s"
        if entry.report.quarantined:
            text += f" · {entry.report.quarantined:,} rejected in this batch"
        update(text)
        if not err.is_terminal:
            err.print(text, soft_wrap=True)

    return show


class log_to_file:
    """Our own logging goes to the same file as Spark's while a command runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        from jobs.common.logging import TextLines

        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self._path)
        self._handler.setFormatter(TextLines())
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.setLevel(logging.INFO)
        logging.getLogger("py4j").setLevel(logging.WARNING)
        logging.getLogger("botocore").setLevel(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()
