"""The gold job: the processed rows of committed batches become Delta tables, which Glue lists.

On a cluster: `spark-submit jobs/gold_job.py --config conf/emr.yaml [--follow]`; `movement gold` runs the same code.
The ledger names the new batches. Each table's own Delta log stores which batches it contains, in the commit that wrote
them (docs/adr/0008). If the job is killed anywhere, the next run completes the tables that lack a batch.
"""

from __future__ import annotations

import argparse
import logging
import math
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
from jobs.common.errors import AlreadyRunningError, ConfigurationError, TransientError
from jobs.common.spark_errors import find_cause
from jobs.common.spark_session import spark_session
from jobs.gold.definitions import check_definitions, delete_table
from jobs.gold.delta_writes import gold_session
from jobs.gold.increments import CommittedBatch, Increment, lagging_sources, next_increment
from jobs.gold.maintenance import MaintenanceResult, maintain_tables
from jobs.gold.manifests import SYMLINKS, outdated_manifests, row_count, write_manifests
from jobs.gold.tables import GoldTable, gold_tables
from jobs.gold.writer import IncrementWriter
from jobs.lake.delta import PROCESSED, last_committed_batch, open_delta
from jobs.lake.lease import Lease
from jobs.lake.ledger import Ledger, LedgerEntry, queries
from jobs.lake.store import Lake, lake_at
from jobs.lake.table_files import LiveFile, files_holding
from jobs.schema.table import TableContract, load_contract
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

    `start_spark` is only called if there is a new batch. Raises ConfigurationError for a contract without gold tables,
    and for one that defines an existing table differently; AlreadyRunningError if another gold job is running.
    """
    started, result = time.perf_counter(), GoldResult()
    contract = load_contract(settings.contract)
    tables = gold_tables(contract)
    sources = {table.name: table.source for table in tables if table.source}
    lake = lake_at(settings.lake)
    opened = open_tables(settings.lake, tables)
    check_definitions(lake, tables, opened)
    before = table_rows(opened)
    new = find_increment(lake, settings, opened, sources) is not None
    if new or _manifests_outdated(lake, settings, tables, opened):
        with _exclusive(lake) as lease:
            catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
            catalog.ensure_tables(catalog_tables(settings, tables))
            writer: IncrementWriter | None = None
            while not (stop and stop.is_set()):
                # The tables are opened again for each increment, because the last one changed them.
                increment = find_increment(lake, settings, open_tables(settings.lake, tables), sources)
                if increment is None:
                    break
                writer = writer or _writer(start_spark(), settings, contract, tables, lease)
                with _spark_errors(f"{increment.query}-{increment.last}"):
                    writer.write(increment, find_files(lake, increment.batches))
                result.increments += 1
                result.rows += increment.rows
                taken = result.batches.get(increment.query, 0) + len(increment.batches)
                result.batches[increment.query] = taken
                on_increment(increment)
            publish_manifests(lake, settings, tables)
        opened = open_tables(settings.lake, tables)
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
    lake, tables = lake_at(settings.lake), gold_tables(load_contract(settings.contract))
    with _exclusive(lake), _spark_errors("upkeep"):
        session = gold_session(spark, settings.spark.conf)
        results = maintain_tables(session, settings.lake, tables, settings.gold.retention_hours)
        publish_manifests(lake, settings, tables)
    return results


def delete_tables(settings: Settings, names: Sequence[str]) -> None:
    """Deletes gold tables, so that the next run computes them again from the ledger's batches.

    Raises ConfigurationError if the contract has no such table, AlreadyRunningError if another gold job is running.
    """
    known = {table.name: table for table in gold_tables(load_contract(settings.contract))}
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"--rebuild {name}: the contract has no such gold table; it has {', '.join(known)}"
            )
    lake = lake_at(settings.lake)
    with _exclusive(lake):
        for name in dict.fromkeys(names):
            delete_table(lake, known[name])


def catalog_tables(settings: Settings, tables: Sequence[GoldTable]) -> Iterator[LakeTable]:
    """The Glue tables: `gold_corridors`, …, and `gold_corridors_manifest`, … for Redshift Spectrum."""
    for table in tables:
        name = settings.gold.table_prefix + table.name
        yield delta_table(name, table.folder, table.comment, table.columns)
        if settings.gold.manifests:
            folder = f"{table.folder}/{SYMLINKS}"
            yield manifest_table(f"{name}_manifest", folder, f"{table.comment} (for Redshift Spectrum)", table.columns)


def open_tables(lake: str, tables: Sequence[GoldTable]) -> dict[str, DeltaTable | None]:
    """Each gold table's latest version, by name; None if the table does not exist."""
    return {table.name: open_delta(f"{lake}/{table.folder}") for table in tables}


def table_rows(opened: Mapping[str, DeltaTable | None]) -> dict[str, int]:
    """The rows of each gold table that exists, by name."""
    return {name: row_count(found) for name, found in opened.items() if found is not None}


def publish_manifests(lake: Lake, settings: Settings, tables: Sequence[GoldTable]) -> None:
    """Updates every table's manifests from its Delta log. The caller holds the lease."""
    if settings.gold.manifests:
        for table in tables:
            opened = open_delta(f"{lake.uri}/{table.folder}")
            if opened is not None:
                write_manifests(lake, table, opened)


def _manifests_outdated(
    lake: Lake, settings: Settings, tables: Sequence[GoldTable], opened: Mapping[str, DeltaTable | None]
) -> bool:
    """Whether a manifest does not match its table: a run died before it wrote them, or they were just turned on."""
    listed = [(table, opened[table.name]) for table in tables] if settings.gold.manifests else []
    return any(outdated_manifests(lake, table, found) for table, found in listed if found is not None)


def _writer(
    spark: SparkSession, settings: Settings, contract: TableContract, tables: tuple[GoldTable, ...], lease: Lease
) -> IncrementWriter:
    return IncrementWriter(
        gold_session(spark, settings.spark.conf),
        settings.lake,
        contract,
        tables,
        settings.gold.retention_hours,
        lease.check,
        settings.spark.conf,
    )


def find_increment(
    lake: Lake,
    settings: Settings,
    opened: Mapping[str, DeltaTable | None],
    sources: Mapping[str, str] | None = None,
) -> Increment | None:
    """The next increment of the first query that has one; None if the tables are up to date.

    `sources`: for a table that is computed from another gold table, that table's name.
    """
    limits = settings.gold.increment_batches, settings.gold.increment_rows
    processed = open_delta(f"{lake.uri}/{PROCESSED}")
    found = {
        query: {name: last_committed_batch(table, query) for name, table in opened.items()} for query in queries(lake)
    }
    lagging = {query: lagging_sources(progress, sources or {}) for query, progress in found.items()}
    # (query, progress of the tables to write, last batch to take): the lagging sources of every query come first.
    steps: list[tuple[str, dict[str, int], float]] = [
        *((query, few, max(few.values())) for query, few in lagging.items() if few),
        *((query, progress, math.inf) for query, progress in found.items()),
    ]
    for query, progress, last in steps:
        if processed is not None:
            # The ledger entry is stored before the commit to the Delta table: until then the rows are not visible.
            last = min(last, last_committed_batch(processed, query))
        following = takewhile(
            lambda batch, last=last: batch.number <= last,  # type: ignore[misc]
            map(_batch_of, Ledger(lake, query).entries_after(min(progress.values()))),
        )
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
    parser.add_argument(
        "--rebuild", action="append", metavar="TABLE", help="first delete this gold table, to compute it again; repeat"
    )
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> GoldResult | list[dict[str, Any]]:
    stop = threading.Event()
    stop_on_signals(stop)
    if options.rebuild:
        delete_tables(settings, options.rebuild)
    spark = spark_session("movement-gold", settings.spark.master, settings.spark.conf, delta=True, stop=stop)
    if options.upkeep:
        return [asdict(table) for table in maintain(spark, settings)]
    if options.follow:
        return follow(lambda: spark, settings, stop)
    return run(lambda: spark, settings, stop=stop)
