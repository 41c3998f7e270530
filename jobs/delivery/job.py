"""The batch job. Delivery files that are new → processed_batch, quarantine → Glue partitions → ledger.

On a cluster: `spark-submit jobs/batch_job.py --config conf/emr.yaml`; as a Glue 6.0 job with the same script, without
awsglue: `lambdas/gluejob_trigger.py` starts it after each crawl. Records are read, checked and written by the same
code as the stream's. A run is planned, written, registered, then final (docs/adr/0005): killed anywhere, the next
does the same run again, and no record of a file is there twice.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
from pyspark.sql import SparkSession

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import batch_tables
from jobs.common.aws import client
from jobs.common.job_main import job_parser, run_job
from jobs.common.spark_errors import explained_failure
from jobs.common.spark_session import spark_session
from jobs.delivery.delivery_files import DeliveryFile, delivery_files, spread
from jobs.delivery.delivery_records import ReadFiles
from jobs.delivery.ledger import TABLES, BatchEntry, BatchLedger, Plan
from jobs.lake.store import Lake, lake_at
from jobs.lake.task_report import RunTotals, TaskReport
from jobs.schema.record_parser import RecordParser
from jobs.schema.table import TableContract, load_contract
from jobs.settings.settings import Settings
from jobs.write.task import REPORT_SCHEMA, WriteTask, collect_reports, report_row

log = logging.getLogger(__name__)

DELIVERY_TABLE = "delivery"
# A task reads about so much, compressed; and a run so many files, so that a backlog of years is done in steps.
TASK_BYTES = 64 * 1024 * 1024
RUN_FILES = 10_000
RUN_BYTES = 64 * 1024**3


@dataclass
class BatchResult(RunTotals):
    """What one call of the job did, over all its runs."""

    runs: int = 0
    files: int = 0

    def add(self, entry: BatchEntry) -> None:
        """Takes in one run."""
        self.runs += 1
        self.files += len(entry.files)
        self.add_report(entry.report, "processed_batch")


@dataclass(frozen=True)
class BatchTask:
    """One Spark task: the files of the plan's task with that number → files of the lake, and a TaskReport."""

    plan: Plan
    read: ReadFiles
    write: WriteTask

    def __call__(self, numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in batch["id"].to_pylist():
                records = self.read(self.plan.tasks[number])
                # Named by the plan's number, not by Spark's: a run done again writes the same names.
                report = self.write.write(records, f"{self.plan.name}-{number:05d}")
                yield report_row(msgspec.json.encode(report))


class BatchJob:
    """The job of one lake and delivery table."""

    def __init__(self, spark: SparkSession, settings: Settings, database: str, table: str) -> None:
        self._spark = spark
        self._settings = settings
        self._contract: TableContract = load_contract(settings.contract)
        self._lake: Lake = lake_at(settings.lake)
        self._glue: Any = client("glue")
        self._database, self._table = database, table
        self._catalog = GlueCatalog(self._glue, settings.database, settings.lake)
        self._catalog.ensure_tables(batch_tables(self._contract))
        self._ledger = BatchLedger(self._lake)
        self._final = self._ledger.final_runs()

    def next_plan(self) -> tuple[Plan, bool] | None:
        """The run to do now, and whether another began it; None where every file is done."""
        run = max(self._final, default=-1) + 1
        begun = self._ledger.planned(run)
        if begun is not None:
            return begun, True
        done = {name for files in self._final.values() for name in files}
        name = partial(short_name, lake=self._settings.lake)
        found = delivery_files(self._glue, self._database, self._table, lake_at)
        new = sorted(file for file in found if name(file.uri) not in done)
        if not new:
            return None
        chosen = _first(new)
        parallel = self._spark.sparkContext.defaultParallelism
        tasks = max(parallel, sum(file.size for file in chosen) // TASK_BYTES + 1)
        plan = Plan(run, datetime.now(UTC), [[file.uri for file in task] for task in spread(chosen, tasks)])
        counts = self._ledger.plan(plan)
        return counts, counts != plan

    def do(self, plan: Plan, begun_before: bool) -> BatchEntry | None:
        """Does a run; its entry, or None where another job made it final meanwhile."""
        started, clock = datetime.now(UTC), time.perf_counter()
        report = self._written(plan)
        seconds = {"write": time.perf_counter() - clock}
        if begun_before:
            leftovers = self._ledger.remove_leftovers(plan, report)
            log.warning("%s was begun before: done again, %d other files of it deleted", plan.name, len(leftovers))
        clock = time.perf_counter()
        partitions = {table: report.partitions(table) for table in TABLES}
        for table, folders in partitions.items():
            self._catalog.register(table, folders)
        seconds["register"] = time.perf_counter() - clock
        entry = BatchEntry(
            run=plan.run,
            started_at=started,
            finished_at=datetime.now(UTC),
            files=sorted(short_name(uri, self._settings.lake) for task in plan.tasks for uri in task),
            report=report,
            partitions=partitions,
            seconds={stage: round(spent, 4) for stage, spent in seconds.items()},
        )
        ours = self._ledger.commit(entry)
        self._final[plan.run] = entry.files
        log.info("%s: %d files, %d records, %s", plan.name, len(entry.files), report.read, entry.seconds)
        return entry if ours else None

    def _written(self, plan: Plan) -> TaskReport:
        settings = self._settings
        write = WriteTask(
            settings.lake,
            plan.name,
            self._contract,
            settings.sink,
            RecordParser,
            table="processed_batch",
            keeps_raw=False,
            stage="batch",
        )
        task = BatchTask(plan, ReadFiles(lake_at, partial(short_name, lake=settings.lake), plan.planned_at), write)
        numbers = self._spark.range(0, len(plan.tasks), 1, len(plan.tasks))
        try:
            return collect_reports(numbers.mapInArrow(task, REPORT_SCHEMA))
        except Exception as error:
            raise explained_failure(error, "the batch job") from error


def short_name(uri: str, lake: str) -> str:
    """A file's name in the ledger and in rows: its path in the lake, or its full address where it lies elsewhere."""
    root = lake if "://" in lake else f"file://{lake}"
    return uri.removeprefix(f"{root}/")


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    database: str | None = None,
    table: str = DELIVERY_TABLE,
    on_run: Callable[[BatchEntry], None] = lambda _: None,
) -> BatchResult:
    """Processes every delivery file that the catalog leads to and the ledger does not name.

    `database` (default: the settings') and `table` are the delivery table's; `on_run` is told each run that is
    final. Raises ConfigurationError, AwsAccessError or another MovementError with what went wrong and the remedy.
    """
    begun, result = time.perf_counter(), BatchResult()
    job = BatchJob(spark, settings, database or settings.database, table)
    while (found := job.next_plan()) is not None:
        entry = job.do(*found)
        if entry is not None:
            result.add(entry)
            on_run(entry)
    result.seconds = round(time.perf_counter() - begun, 3)
    return result


def _first(files: list[DeliveryFile]) -> list[DeliveryFile]:
    """As many of the files, in their order, as one run takes: one at least."""
    chosen: list[DeliveryFile] = []
    size = 0
    for file in files[:RUN_FILES]:
        size += file.size
        if chosen and size > RUN_BYTES:
            break
        chosen.append(file)
    return chosen


def main(arguments: list[str] | None = None) -> int:
    """For spark-submit and Glue; the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument("--database", metavar="NAME", help="the delivery table's database; default: the settings'")
    parser.add_argument("--table", metavar="NAME", default=DELIVERY_TABLE, help="the delivery table")
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> BatchResult:
    return run(spark_session(settings, "movement-batch"), settings, database=options.database, table=options.table)
