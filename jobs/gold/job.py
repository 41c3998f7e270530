"""The gold job: the processed rows of committed batches become Delta tables, which Glue lists.

On a cluster: `spark-submit jobs/gold_job.py --config conf/emr.yaml [--follow]`; `movement gold` runs the same code.
The ledger names the new batches. Each table's own Delta log stores which batches it contains, in the commit that wrote
them (docs/adr/0008). If the job is killed anywhere, the next run completes the tables that lack a batch.
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
from jobs.gold.increments import CommittedBatch, Increment, next_increment
from jobs.gold.maintenance import MaintenanceResult, maintain_tables
from jobs.gold.manifests import SYMLINKS, outdated_manifests, row_count, write_manifests
from jobs.gold.tables import TABLES, check_contract
from jobs.gold.writer import IncrementWriter
from jobs.lake.delta import PROCESSED, last_committed_batch, open_delta
from jobs.lake.lease import Lease
from jobs.lake.ledger import Ledger, LedgerEntry, queries
from jobs.lake.store import Lake, lake_at
from jobs.lake.table_files import LiveFile, files_holding
from jobs.schema.table import load_contract
from jobs.settings.job_main import job_parser, run_job, stop_on_signals
from jobs.settings.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

# Finds the files that contain the batches' rows; they may also contain rows of other batches.
FindFiles = Callable[[Lake, Sequence[CommittedBatch]], Sequence[LiveFile]]


@dataclass
class GoldResult:
    """What one run did.

    batches  the number of batches of each query
    rows     the processed rows that were read
    tables   for each table `rows`, its rows now, and `new`, how many of them are new
    """

    increments: int = 0
    batches: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0


def files_of_batches(lake: Lake, batches: Sequence[CommittedBatch]) -> Sequence[LiveFile]:
    """The files that contain the batches' rows now; compaction may have moved rows to other files than they name."""
    partitions = sorted({partition for batch in batches for partition in batch.partitions})
    return list(files_holding(lake, {batch.name for batch in batches}, partitions))


def run(
    start_spark: Callable[[], SparkSession],
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    on_increment: Callable[[Increment], None] = lambda _: None,
    find_files: FindFiles = files_of_batches,
) -> GoldResult:
    """Writes every new batch of the ledger to the gold tables; `stop` ends it early, between two increments.

    `start_spark` is only called if there is a new batch. Raises ConfigurationError for a contract that is not about
    travel times, AlreadyRunningError if another gold job is running.
    """
    started, result = time.perf_counter(), GoldResult()
    check_contract(load_contract(settings.contract))
    lake = lake_at(settings.lake)
    opened = open_tables(settings.lake)
    before = table_rows(opened)
    if find_increment(lake, settings, opened) is not None or _manifests_outdated(lake, settings, opened):
        with _exclusive(lake) as lease:
            GlueCatalog(client("glue"), settings.database, settings.lake).ensure_tables(catalog_tables(settings))
            writer: IncrementWriter | None = None
            while not (stop and stop.is_set()):
                # The tables are opened again for each increment, because the last one changed them.
                increment = find_increment(lake, settings, open_tables(settings.lake))
                if increment is None:
                    break
                writer = writer or _writer(start_spark(), settings, lease)
                with _spark_errors(f"{increment.query}-{increment.last}"):
                    writer.write(increment, find_files(lake, increment.batches))
                result.increments += 1
                result.rows += increment.rows
                taken = result.batches.get(increment.query, 0) + len(increment.batches)
                result.batches[increment.query] = taken
                on_increment(increment)
            publish_manifests(lake, settings)
        opened = open_tables(settings.lake)
    after = table_rows(opened)
    result.tables = {name: {"rows": rows, "new": rows - before.get(name, 0)} for name, rows in after.items()}
    result.seconds = round(time.perf_counter() - started, 3)
    return result


def follow(
    start_spark: Callable[[], SparkSession],
    settings: Settings,
    stop: threading.Event,
    *,
    on_increment: Callable[[Increment], None] = lambda _: None,
    on_run: Callable[[GoldResult], None] = lambda _: None,
    find_files: FindFiles = files_of_batches,
) -> GoldResult:
    """Calls `run` every `gold.poll_seconds` until `stop` is set; returns the sum of all runs.

    After the first success, a run that fails with a TransientError (AWS does not answer), or because maintenance is
    running, is tried again after `gold.poll_seconds`.
    """
    total, succeeded = GoldResult(), False
    while not stop.is_set():
        try:
            done = run(start_spark, settings, stop=stop, on_increment=on_increment, find_files=find_files)
        except (TransientError, AlreadyRunningError) as error:
            if not succeeded:
                raise
            log.warning("trying again in %g s: %s", settings.gold.poll_seconds, error)
            stop.wait(settings.gold.poll_seconds)
            continue
        succeeded = True
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


def maintain(spark: SparkSession, settings: Settings) -> list[MaintenanceResult]:
    """Runs OPTIMIZE and VACUUM on the gold tables, then writes their manifests. No gold job may run meanwhile."""
    lake = lake_at(settings.lake)
    with _exclusive(lake), _spark_errors("upkeep"):
        session = gold_session(spark, settings.spark.conf)
        results = maintain_tables(session, settings.lake, settings.gold.retention_hours)
        publish_manifests(lake, settings)
    return results


def catalog_tables(settings: Settings) -> Iterator[LakeTable]:
    """The Glue tables: `gold_corridors`, …, and `gold_corridors_manifest`, … for Redshift Spectrum."""
    for table in TABLES:
        name = settings.gold.table_prefix + table.name
        yield delta_table(name, table.folder, table.comment, table.columns)
        if settings.gold.manifests:
            folder = f"{table.folder}/{SYMLINKS}"
            yield manifest_table(f"{name}_manifest", folder, f"{table.comment} (for Redshift Spectrum)", table.columns)


def open_tables(lake: str) -> dict[str, DeltaTable | None]:
    """Each gold table's latest version, by name; None if the table does not exist."""
    return {table.name: open_delta(f"{lake}/{table.folder}") for table in TABLES}


def table_rows(opened: Mapping[str, DeltaTable | None]) -> dict[str, int]:
    """The rows of each gold table that exists, by name."""
    return {name: row_count(found) for name, found in opened.items() if found is not None}


def publish_manifests(lake: Lake, settings: Settings) -> None:
    """Updates every table's manifests from its Delta log. The caller holds the lease."""
    if settings.gold.manifests:
        for table in TABLES:
            opened = open_delta(f"{lake.uri}/{table.folder}")
            if opened is not None:
                write_manifests(lake, table, opened)


def _manifests_outdated(lake: Lake, settings: Settings, opened: Mapping[str, DeltaTable | None]) -> bool:
    """Whether a manifest does not match its table: a run died before it wrote them, or they were just turned on."""
    tables = [(table, opened[table.name]) for table in TABLES] if settings.gold.manifests else []
    return any(outdated_manifests(lake, table, found) for table, found in tables if found is not None)


def _writer(spark: SparkSession, settings: Settings, lease: Lease) -> IncrementWriter:
    return IncrementWriter(
        gold_session(spark, settings.spark.conf),
        settings.lake,
        settings.gold.retention_hours,
        lease.check,
        settings.spark.conf,
    )


def find_increment(lake: Lake, settings: Settings, opened: Mapping[str, DeltaTable | None]) -> Increment | None:
    """The next increment of the first query that has one; None if the tables are up to date."""
    limits = settings.gold.increment_batches, settings.gold.increment_rows
    processed = open_delta(f"{lake.uri}/{PROCESSED}")
    for query in queries(lake):
        progress = {name: last_committed_batch(found, query) for name, found in opened.items()}
        entries = Ledger(lake, query).entries_after(min(progress.values()))
        if processed is not None:
            # The ledger entry is stored before the commit to the Delta table: until then the rows are not visible.
            committed = last_committed_batch(processed, query)
            entries = takewhile(lambda entry, last=committed: entry.batch <= last, entries)  # type: ignore[misc]
        following = map(_batch_of, entries)
        increment = next_increment(query, progress, following, *limits)
        if increment is not None:
            return increment
    return None


def _batch_of(entry: LedgerEntry) -> CommittedBatch:
    return CommittedBatch(entry.query, entry.batch, entry.report.processed, tuple(entry.partitions["processed"]))


@contextmanager
def _exclusive(lake: Lake) -> Iterator[Lease]:
    """Allows one gold job for each lake: Delta on S3 has no conditional put, so a second could overwrite a commit."""
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(Lease(lake, f"{lake.uri}/gold"))
        except AlreadyRunningError as error:
            raise AlreadyRunningError(
                f"another gold job, or its upkeep, is running on {lake.uri}/gold: wait for it or stop it ({error})"
            ) from error
        yield lease


@contextmanager
def _spark_errors(what: str) -> Iterator[None]:
    """Translates Spark's errors into ours; a TransientError of a worker stays one."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        cause = find_cause(error)
        raise cause.kind(f"gold, {what}: {cause.message}") from error


def main(arguments: list[str] | None = None) -> int:
    """Runs the job for spark-submit and Glue; returns the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument(
        "--follow", action="store_true", help="look for new batches every gold.poll_seconds, until stopped"
    )
    parser.add_argument("--upkeep", action="store_true", help="OPTIMIZE and VACUUM instead")
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> GoldResult | list[dict[str, Any]]:
    stop = threading.Event()
    stop_on_signals(stop)
    spark = spark_session("movement-gold", settings.spark.master, settings.spark.conf, delta=True, stop=stop)
    if options.upkeep:
        return [asdict(table) for table in maintain(spark, settings)]
    if options.follow:
        return follow(lambda: spark, settings, stop)
    return run(lambda: spark, settings, stop=stop)
