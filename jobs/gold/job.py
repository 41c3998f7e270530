"""The gold job. Final batches of the processed layer → Delta tables → Glue.

On a cluster: `spark-submit jobs/gold_job.py --config conf/emr.yaml [--follow]`; `movement gold` runs the same code.
What is new stands in the ledger; what a table has stands in its own Delta log, in the commit that put it there
(docs/adr/0008). Killed anywhere, the next run brings the tables that lack something up to the others.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import LakeTable, delta_table, manifest_table
from jobs.common.aws import client
from jobs.common.errors import AlreadyRunningError, TransientError
from jobs.common.spark_errors import find_cause
from jobs.common.spark_session import spark_session
from jobs.gold.delta_writes import gold_session
from jobs.gold.increments import Batch, Increment, SourceFile, next_increment
from jobs.gold.maintenance import Kept, keep_up
from jobs.gold.manifests import SYMLINKS, outdated, publish, rows_of
from jobs.gold.tables import TABLES, check_contract
from jobs.gold.writer import IncrementWriter
from jobs.lake.delta import PROCESSED, last_committed_batch, open_delta
from jobs.lake.lease import Lease
from jobs.lake.ledger import Ledger, LedgerEntry, queries
from jobs.lake.store import Lake, lake_at
from jobs.lake.table_files import files_holding
from jobs.schema.table import load_contract
from jobs.settings.job_main import job_parser, run_job, stop_on_signals
from jobs.settings.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

# The files that hold the rows of some batches, and of others perhaps.
Resolve = Callable[[Lake, Sequence[Batch]], Sequence[SourceFile]]


@dataclass
class GoldResult:
    """What one run did. `batches`: by query, how many; `rows`: processed rows taken in; `tables`: by name, rows now
    and how many of them are new."""

    increments: int = 0
    batches: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0


def files_of_batches(lake: Lake, batches: Sequence[Batch]) -> Sequence[SourceFile]:
    """Where the rows of batches are by now: compaction may have put them into other files than the ledger names."""
    partitions = sorted({partition for batch in batches for partition in batch.partitions})
    return [SourceFile(*file) for file in files_holding(lake, {batch.name for batch in batches}, partitions)]


def run(
    start_spark: Callable[[], SparkSession],
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    on_increment: Callable[[Increment], None] = lambda _: None,
    resolve: Resolve = files_of_batches,
) -> GoldResult:
    """Brings the gold tables up to the ledger; ends early, between two increments, once `stop` is set.

    `start_spark` is called when there is something to do. Raises ConfigurationError for a contract that is not about
    travel times, AlreadyRunningError where another gold job is at work.
    """
    begun, result = time.perf_counter(), GoldResult()
    check_contract(load_contract(settings.contract))
    lake = lake_at(settings.lake)
    opened = open_tables(settings.lake)
    before = table_rows(opened)
    if _pending(lake, settings, opened) is not None or _outdated(lake, settings, opened):
        with _exclusive(lake) as lease:
            GlueCatalog(client("glue"), settings.database, settings.lake).ensure_tables(catalog_tables(settings))
            writer: IncrementWriter | None = None
            while not (stop and stop.is_set()):
                # Looked up anew for each: under the lease the tables are only changed by us.
                increment = _pending(lake, settings, open_tables(settings.lake))
                if increment is None:
                    break
                writer = writer or _writer(start_spark(), settings, lease)
                with _explained(f"{increment.query}-{increment.last}"):
                    writer.write(increment, resolve(lake, increment.batches))
                result.increments += 1
                result.rows += increment.rows
                taken = result.batches.get(increment.query, 0) + len(increment.batches)
                result.batches[increment.query] = taken
                on_increment(increment)
            publish_manifests(lake, settings)
        opened = open_tables(settings.lake)
    after = table_rows(opened)
    result.tables = {name: {"rows": rows, "new": rows - before.get(name, 0)} for name, rows in after.items()}
    result.seconds = round(time.perf_counter() - begun, 3)
    return result


def follow(
    start_spark: Callable[[], SparkSession],
    settings: Settings,
    stop: threading.Event,
    *,
    on_increment: Callable[[Increment], None] = lambda _: None,
    on_run: Callable[[GoldResult], None] = lambda _: None,
    resolve: Resolve = files_of_batches,
) -> GoldResult:
    """`run`, again and again every `gold.poll_seconds`, until `stop` is set; what all runs did together.

    Once the first run has worked, one that fails in a way that may pass is tried again: AWS that does not answer,
    upkeep that is under way.
    """
    total, worked = GoldResult(), False
    while not stop.is_set():
        try:
            done = run(start_spark, settings, stop=stop, on_increment=on_increment, resolve=resolve)
        except (TransientError, AlreadyRunningError) as error:
            if not worked:
                raise
            log.warning("tried again in %g s: %s", settings.gold.poll_seconds, error)
            stop.wait(settings.gold.poll_seconds)
            continue
        worked = True
        total.increments += done.increments
        total.rows += done.rows
        total.seconds = round(total.seconds + done.seconds, 3)
        for query, count in done.batches.items():
            total.batches[query] = total.batches.get(query, 0) + count
        for name, figures in done.tables.items():
            new = total.tables.get(name, {"new": 0})["new"] + figures["new"]
            total.tables[name] = {"rows": figures["rows"], "new": new}
        on_run(done)
        stop.wait(settings.gold.poll_seconds)
    return total


def upkeep(spark: SparkSession, settings: Settings) -> list[Kept]:
    """OPTIMIZE and VACUUM of the gold tables, while no gold job writes; then their manifests."""
    lake = lake_at(settings.lake)
    with _exclusive(lake), _explained("upkeep"):
        kept = keep_up(gold_session(spark, settings.spark.conf), settings.lake, settings.gold.retention_hours)
        publish_manifests(lake, settings)
    return kept


def catalog_tables(settings: Settings) -> Iterator[LakeTable]:
    """The gold tables as Glue has them: `gold_corridors`, and `gold_corridors_manifest` for Redshift Spectrum."""
    for table in TABLES:
        name = settings.gold.table_prefix + table.name
        yield delta_table(name, table.folder, table.comment, table.columns)
        if settings.gold.manifests:
            folder = f"{table.folder}/{SYMLINKS}"
            yield manifest_table(f"{name}_manifest", folder, f"{table.comment} (for Redshift Spectrum)", table.columns)


def open_tables(lake: str) -> dict[str, DeltaTable | None]:
    """Each gold table as it stands, by name; None for one that does not exist."""
    return {table.name: open_delta(f"{lake}/{table.folder}") for table in TABLES}


def table_rows(opened: Mapping[str, DeltaTable | None]) -> dict[str, int]:
    """The rows of each gold table that exists, by name."""
    return {name: rows_of(found) for name, found in opened.items() if found is not None}


def publish_manifests(lake: Lake, settings: Settings) -> None:
    """Makes every table's manifests say what its Delta log says. The caller holds the lease."""
    if settings.gold.manifests:
        for table in TABLES:
            opened = open_delta(f"{lake.uri}/{table.folder}")
            if opened is not None:
                publish(lake, table, opened)


def _outdated(lake: Lake, settings: Settings, opened: Mapping[str, DeltaTable | None]) -> bool:
    """Whether manifests lag behind their tables: a run died before it wrote them, or they were turned on."""
    tables = [(table, opened[table.name]) for table in TABLES] if settings.gold.manifests else []
    return any(outdated(lake, table, found) for table, found in tables if found is not None)


def _writer(spark: SparkSession, settings: Settings, lease: Lease) -> IncrementWriter:
    return IncrementWriter(
        gold_session(spark, settings.spark.conf),
        settings.lake,
        lake_at,
        settings.gold.retention_hours,
        lease.check,
        settings.spark.conf,
    )


def _pending(lake: Lake, settings: Settings, opened: Mapping[str, DeltaTable | None]) -> Increment | None:
    limits = settings.gold.increment_batches, settings.gold.increment_rows
    processed = open_delta(f"{lake.uri}/{PROCESSED}")
    for query in queries(lake):
        progress = {name: last_committed_batch(found, query) for name, found in opened.items()}
        entries = Ledger(lake, query).entries_after(min(progress.values()))
        following = map(
            _batch, entries if processed is None else _up_to(last_committed_batch(processed, query), entries)
        )
        increment = next_increment(query, progress, following, *limits)
        if increment is not None:
            return increment
    return None


def _up_to(batch: int, entries: Iterator[LedgerEntry]) -> Iterator[LedgerEntry]:
    """Where processed is a Delta table, a batch is in the ledger before it is in that table's log: until then its rows
    are not to be found, and it waits."""
    return takewhile(lambda entry: entry.batch <= batch, entries)


def _batch(entry: LedgerEntry) -> Batch:
    return Batch(entry.query, entry.batch, entry.report.processed, tuple(entry.partitions["processed"]))


@contextmanager
def _exclusive(lake: Lake) -> Iterator[Lease]:
    """One gold job a lake: Delta's way to S3 has no conditional put, so two writers could overwrite a commit."""
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(Lease(lake, f"{lake.uri}/gold"))
        except AlreadyRunningError as error:
            raise AlreadyRunningError(
                f"another gold job, or its upkeep, is at work on {lake.uri}/gold: let it end, or stop it ({error})"
            ) from error
        yield lease


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Our own error out of Spark's, whose text is the JVM's or a worker's whole traceback."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        cause = find_cause(error)
        raise cause.kind(f"gold, {what}: {cause.message}") from error


def main(arguments: list[str] | None = None) -> int:
    """For spark-submit and Glue; the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument("--follow", action="store_true", help="go on, every gold.poll_seconds, until it is stopped")
    parser.add_argument("--upkeep", action="store_true", help="OPTIMIZE and VACUUM instead")
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> GoldResult | list[dict[str, Any]]:
    stop = threading.Event()
    spark = spark_session("movement-gold", settings.spark.master, settings.spark.conf, delta=True)
    stop_on_signals(stop)  # after Spark, which puts a handler of its own in place
    if options.upkeep:
        return [asdict(kept) for kept in upkeep(spark, settings)]
    if options.follow:
        return follow(lambda: spark, settings, stop)
    return run(lambda: spark, settings, stop=stop)
