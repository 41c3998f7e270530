"""The delivery job: new delivery files become rows of processed_batch, rejections, Glue partitions and a ledger entry.

On a cluster: `spark-submit jobs/batch_job.py --config conf/emr.yaml`. As a Glue 6.0 job: the same script, without
awsglue; `lambdas/gluejob_trigger.py` starts it after each crawl. The stream's code reads, checks and writes the
records. A run is planned, written, registered, then committed (docs/adr/0005). If the job is killed anywhere, the next
job executes the same plan, and every record is in the table once.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import cast

import msgspec
import pyarrow as pa
from pyspark.sql import SparkSession

from jobs.catalog.check import batch_check
from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import batch_tables
from jobs.common.aws import client
from jobs.common.spark_errors import explained_failure
from jobs.common.spark_session import spark_session
from jobs.delivery.delivery_files import DeliveryFile, find_delivery_files, partition_files
from jobs.delivery.delivery_records import DeliveryReader
from jobs.delivery.ledger import TABLES, DeliveryLedger, DeliveryPlan, DeliveryRun
from jobs.lake.store import Lake, lake_at
from jobs.lake.task_report import RunTotals, TaskReport
from jobs.schema.privacy import privacy_salt
from jobs.schema.table import TableContract, load_contract
from jobs.settings.job_main import job_parser, run_job
from jobs.settings.settings import Settings
from jobs.write.task import REPORT_SCHEMA, WriteTask, collect_reports, report_row

log = logging.getLogger(__name__)

DELIVERY_TABLE = "delivery"
# The compressed bytes that one task reads, and the limits of one run: a large backlog takes several runs.
TASK_BYTES = 64 * 1024 * 1024
RUN_FILES = 10_000
RUN_BYTES = 64 * 1024**3


@dataclass
class DeliveryResult(RunTotals):
    """What one call of the job did, over all its runs."""

    runs: int = 0
    files: int = 0

    def add(self, run: DeliveryRun) -> None:
        """Adds one run."""
        self.runs += 1
        self.files += len(run.files)
        self.add_report(run.report, "processed_batch")


@dataclass(frozen=True)
class DeliveryTask:
    """One Spark task: reads the files of one task of the plan, writes files of the lake, yields a TaskReport."""

    plan: DeliveryPlan
    read: DeliveryReader
    write: WriteTask

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in cast(list[int], batch["id"].to_pylist()):
                records = self.read(self.plan.tasks[number])
                # Named after the task's number in the plan, not after Spark's: a repeated run writes the same names.
                report = self.write.write(records, f"{self.plan.name}-{number:05d}")
                yield report_row(msgspec.json.encode(report))


class DeliveryJob:
    """The job of one lake and one delivery table."""

    def __init__(self, spark: SparkSession, settings: Settings, database: str, table: str) -> None:
        self._spark = spark
        self._settings = settings
        self._contract: TableContract = load_contract(settings.contract)
        privacy_salt(self._contract.columns)
        self._lake: Lake = lake_at(settings.lake)
        self._glue = client("glue")
        self._database, self._table = database, table
        self._catalog = GlueCatalog(self._glue, settings.database, settings.lake)
        self._catalog.ensure_tables(batch_tables(self._contract))
        self._ledger = DeliveryLedger(self._lake)
        self._files_by_run = self._ledger.files_by_run()

    def next_plan(self) -> tuple[DeliveryPlan, bool] | None:
        """The plan to execute now, and whether another job started it; None if every file is processed."""
        number = max(self._files_by_run, default=-1) + 1
        stored = self._ledger.plan(number)
        if stored is not None:
            return stored, True
        processed = {name for files in self._files_by_run.values() for name in files}
        files = find_delivery_files(self._glue, self._database, self._table)
        new = sorted(file for file in files if short_name(file.uri, self._settings.lake) not in processed)
        if not new:
            return None
        chosen = _files_of_one_run(new)
        parallel = self._spark.sparkContext.defaultParallelism
        tasks = max(parallel, sum(file.size for file in chosen) // TASK_BYTES + 1)
        uris = [[file.uri for file in task] for task in partition_files(chosen, tasks)]
        plan = DeliveryPlan(number, datetime.now(UTC), uris)
        to_execute = self._ledger.store_plan(plan)
        return to_execute, to_execute != plan

    def execute(self, plan: DeliveryPlan, started_before: bool) -> DeliveryRun | None:
        """Executes a plan and commits its run; None if another job has committed the run in the meantime."""
        started_at, clock = datetime.now(UTC), time.perf_counter()
        report = self.write(plan)
        seconds = {"write": time.perf_counter() - clock}
        if started_before:
            leftovers = self._ledger.remove_leftovers(plan, report)
            log.warning("%s was started before: written again, %d leftover files deleted", plan.name, len(leftovers))
        clock = time.perf_counter()
        partitions = {table: report.partitions(table) for table in TABLES}
        for table, folders in partitions.items():
            self._catalog.register(table, folders)
        seconds["register"] = time.perf_counter() - clock
        run = DeliveryRun(
            run=plan.run,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            files=sorted(short_name(uri, self._settings.lake) for task in plan.tasks for uri in task),
            report=report,
            partitions=partitions,
            seconds={stage: round(spent, 4) for stage, spent in seconds.items()},
        )
        committed = self._ledger.commit(run)
        self._files_by_run[plan.run] = run.files
        log.info("%s: %d files, %d records, %s", plan.name, len(run.files), report.read, run.seconds)
        return run if committed else None

    def write(self, plan: DeliveryPlan) -> TaskReport:
        """Writes the plan's records to the lake, one Spark task for each task of the plan."""
        settings = self._settings
        write = WriteTask(
            settings.lake,
            plan.name,
            self._contract,
            settings.sink,
            table="processed_batch",
            write_raw=False,
            stage="batch",
        )
        read = DeliveryReader(
            partial(short_name, lake=settings.lake),
            plan.planned_at,
            self._contract.max_record_bytes if self._contract.encoding == "gzip" else None,
        )
        task = DeliveryTask(plan, read, write)
        numbers = self._spark.range(0, len(plan.tasks), 1, len(plan.tasks))
        try:
            return collect_reports(numbers.mapInArrow(task, REPORT_SCHEMA))
        except Exception as error:
            raise explained_failure(error, "the batch job") from error


def short_name(uri: str, lake: str) -> str:
    """A file's name in the ledger and in rows: its path in the lake, or its URI if it is outside the lake."""
    root = lake if "://" in lake else f"file://{lake}"
    return uri.removeprefix(f"{root}/")


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    database: str | None = None,
    table: str = DELIVERY_TABLE,
    on_run: Callable[[DeliveryRun], None] = lambda _: None,
) -> DeliveryResult:
    """Processes every delivery file of the catalog's delivery table that the ledger does not name.

    `database` (default: the settings') and `table` name the delivery table; `on_run` is called with each committed
    run. Raises a MovementError, such as ConfigurationError or AwsAccessError, that names the failure and the remedy.
    """
    clock, result = time.perf_counter(), DeliveryResult()
    job = DeliveryJob(spark, settings, database or settings.database, table)
    batch_check(settings).repair()  # partitions that were dropped since the last run
    while (next_plan := job.next_plan()) is not None:
        committed = job.execute(*next_plan)
        if committed is not None:
            result.add(committed)
            on_run(committed)
    result.seconds = round(time.perf_counter() - clock, 3)
    return result


def _files_of_one_run(files: list[DeliveryFile]) -> list[DeliveryFile]:
    """The first files, up to one run's limits; at least one file."""
    chosen: list[DeliveryFile] = []
    size = 0
    for file in files[:RUN_FILES]:
        size += file.size
        if chosen and size > RUN_BYTES:
            break
        chosen.append(file)
    return chosen


def main(arguments: list[str] | None = None) -> int:
    """Runs the job for spark-submit and Glue; returns the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument(
        "--database", metavar="NAME", help="the delivery table's database; the default is the settings' database"
    )
    parser.add_argument("--table", metavar="NAME", default=DELIVERY_TABLE, help="the delivery table")
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> DeliveryResult:
    return run(
        spark_session("movement-batch", settings.spark.master, settings.spark.conf),
        settings,
        database=options.database,
        table=options.table,
    )
