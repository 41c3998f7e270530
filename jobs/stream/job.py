"""The streaming job: Kinesis to raw, processed and quarantine files, Glue partitions and ledger entries.

On a cluster: `spark-submit jobs/stream_job.py --config conf/emr.yaml`. On a laptop: `movement stream`, the same code.
This module wires the stages. `micro_batch` holds the exactly-once protocol, `query` the life of the query.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import SparkSession

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import stream_tables
from jobs.common.aws import client
from jobs.common.spark_session import spark_session
from jobs.lake.delta import check_format
from jobs.lake.lease import Lease
from jobs.lake.ledger import LedgerEntry
from jobs.lake.partition_locations import check_layout
from jobs.lake.store import lake_at
from jobs.lake.task_report import RunTotals
from jobs.metrics.publisher import JobMetrics
from jobs.metrics.query_listener import observe_query
from jobs.schema.privacy import privacy_salt
from jobs.schema.table import load_contract
from jobs.settings.job_main import job_parser, run_job, stop_on_signals
from jobs.settings.settings import Settings
from jobs.stream.catalog_watch import CatalogWatch
from jobs.stream.checkpoint import checkpoint_at
from jobs.stream.connector import check_stream, kept_since, read_stream
from jobs.stream.delta_commits import DeltaCommitter
from jobs.stream.micro_batch import MicroBatchWriter
from jobs.stream.query import QUERY_NAME, run_query, run_with_restarts
from jobs.stream.resume import START_FROM, START_FROM_HELP, StartFrom, align_checkpoint

log = logging.getLogger(__name__)


@dataclass
class StreamResult(RunTotals):
    """The result of one run of the job, over all its batches."""

    batches: int = 0
    raw: int = 0

    def add(self, entry: LedgerEntry) -> None:
        """Adds a batch."""
        self.batches += 1
        self.raw += entry.report.raw
        self.add_report(entry.report, "processed")


def run(
    start_spark: Callable[[], SparkSession],
    settings: Settings,
    *,
    until_drained: bool = False,
    start_from: StartFrom | None = None,
    stop: threading.Event | None = None,
    on_batch: Callable[[LedgerEntry], None] = lambda _: None,
) -> StreamResult:
    """Runs the job until `stop` is set. With `until_drained` it also ends once it has written the records that are on
    the stream at its start.

    `start_spark` is called last, when this job holds the checkpoint's lease and all that needs no Spark has succeeded.
    `start_from`: what to trust if the checkpoint and the lake's ledger disagree; see `resume`. A stop waits for Spark's
    start or for the current batch. `on_batch` is called with the entry of each batch that became final. Raises
    ConfigurationError, AwsAccessError or another MovementError that names the cause and the remedy.
    """
    stop = stop or threading.Event()
    started, result = time.perf_counter(), StreamResult()
    contract = load_contract(settings.contract)
    privacy_salt(contract.columns)  # before anything is touched
    lake = lake_at(settings.lake)
    checkpoint = checkpoint_at(settings.checkpoint)
    delta = DeltaCommitter(lake, contract) if settings.sink.format == "delta" else None
    if delta is not None:
        delta.check_table()
    else:
        check_format(lake, settings.sink.format)
        check_layout(lake, "processed")
    check_stream(settings, until_drained=until_drained)
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)

    with (
        JobMetrics(settings.observe, settings.stream.name) as metrics,
        Lease(lake, settings.checkpoint_name, stream=settings.stream.name) as lease,
    ):

        def batch_committed(entry: LedgerEntry) -> None:
            result.add(entry)
            metrics.batch_committed(entry)
            on_batch(entry)

        def new_writer() -> MicroBatchWriter:
            return MicroBatchWriter(
                settings, contract, lake, catalog, lease, batch_committed, source.records, checkpoint, delta
            )

        align_checkpoint(
            checkpoint,
            lake,
            settings.stream.name,
            start_from,
            after_crash=lease.after_crash,
            kept_since=lambda: kept_since(settings),
        )
        lake.clear_drafts()
        # Only with the lease: a second job must be refused before it changes the tables of the running one.
        catalog.ensure_tables(stream_tables(contract, settings.sink.format))
        if delta is not None:
            delta.ensure_table()
            log.info("committed %d final batches that were missing in the Delta log", delta.catch_up_all())
        if stop.is_set():
            return result
        spark = start_spark()
        source = read_stream(spark, settings, until_drained=until_drained)
        with observe_query(spark, metrics, QUERY_NAME), CatalogWatch(settings, stop):
            run_with_restarts(
                new_writer, lambda writer: run_query(source.rows, settings, writer, stop, until_drained), stop
            )
    result.seconds = round(time.perf_counter() - started, 3)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Runs the job for spark-submit and Glue; returns the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument(
        "--until-drained", action="store_true", help="end once all records that are on the stream now are written"
    )
    parser.add_argument("--start-from", choices=START_FROM, help=START_FROM_HELP)
    return run_job(parser, _run, arguments)


def _run(settings: Settings, options: argparse.Namespace) -> StreamResult:
    stop = threading.Event()
    stop_on_signals(stop)

    def start_spark() -> SparkSession:
        return spark_session("movement-stream", settings.spark.master, settings.spark.conf, stop=stop)

    return run(start_spark, settings, until_drained=options.until_drained, start_from=options.start_from, stop=stop)
