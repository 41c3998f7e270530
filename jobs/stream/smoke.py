"""The smoke run: a minute of the streaming job as the job's role, in a lake of its own, and what it found as JSON.

Everything is below `<lake>/_checkpoints/_smoke/<run>/`, where the role of the streaming job may read, write and delete
already; `findings.json` is written there last, for `movement deploy smoke`. The rest is deleted again. Beside that, one
empty file is written to and deleted from each table's folder; its name begins with `_`, so that readers skip it. No
table and no partition of the catalog is changed, and the real checkpoint is not touched.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import platform
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import stream_tables
from jobs.common.aws import client, error_code
from jobs.common.errors import ConfigurationError, MovementError
from jobs.common.findings import Answer, Finding, failed, passed, unknown
from jobs.common.spark_session import has_class, spark_session
from jobs.lake.lease import Lease
from jobs.lake.ledger import TABLES, LedgerEntry
from jobs.lake.smoke_findings import FINDINGS, encode_findings, smoke_folder
from jobs.lake.store import lake_at
from jobs.schema.table import load_contract
from jobs.settings.job_main import job_parser, run_job, stop_on_signals
from jobs.settings.settings import Settings
from jobs.stream.checkpoint import checkpoint_at
from jobs.stream.connector import check_stream, read_stream
from jobs.stream.micro_batch import MicroBatchWriter
from jobs.stream.query import ABORTABLE_FILE_MANAGER, run_query

log = logging.getLogger(__name__)

# At most, for the query with its first micro-batch; it takes about 20 s.
SECONDS = 180.0
RECORDS = 10
S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem"
DELTA_CLASSES = (
    "io.delta.sql.DeltaSparkSessionExtension",
    "org.apache.spark.sql.delta.catalog.DeltaCatalog",
)
METRIC = "SmokeRun"
_RUN = re.compile(r"[0-9a-z-]{1,40}")


Prove = Callable[[], Answer]


class NoRegistration(GlueCatalog):
    """The catalog of a smoke run: its partitions are in a folder that will be deleted, so none is registered."""

    def register(self, table: str, partitions: Iterable[str], locations: Mapping[str, str] | None = None) -> int:
        """Registers nothing."""
        return 0


class SmokeRun:
    """The proofs of one run. `proofs` has those so far."""

    def __init__(self, settings: Settings, run: str, stop: threading.Event, seconds: float = SECONDS) -> None:
        if not settings.lake.startswith("s3://"):
            raise ConfigurationError(f"lake: {settings.lake}: a smoke run needs a lake on S3")
        if not _RUN.fullmatch(run):
            raise ConfigurationError(f"--run {run}: small letters, digits and dashes, 40 at most")
        self._settings, self._run, self._stop, self._seconds = settings, run, stop, seconds
        self._root = smoke_folder(settings.lake, run)
        self._timed_out = False
        self.proofs: list[Finding] = []

    def do(self, start_spark: Callable[[], SparkSession]) -> list[Finding]:
        """Every proof in order; writes `findings.json` and deletes everything else.

        A proof that raises an error has failed, and the next ones follow. Raises AwsAccessError or TransientError if
        the findings cannot be written.
        """
        self._prove("driver: Python", _python)
        self._prove("put-if-absent", self._put_if_absent)
        self._prove("If-Match", self._if_match)
        for table in TABLES:
            self._prove(f"write {table}/", lambda table=table: self._write(table))  # type: ignore[misc]
        self._prove("catalog", self._catalog)
        self._prove("metric", self._metric)
        spark: list[SparkSession] = []
        self._prove("Spark", lambda: _spark(spark, start_spark))
        if spark:
            self._prove("executors: Python", lambda: _executors(spark[0]))
            self._prove("class behind s3://", lambda: _file_system(spark[0], self._root))
            self._prove("hadoop-cloud", lambda: _hadoop_cloud(spark[0]))
            self._prove("Delta", lambda: _delta(spark[0]))
            self._prove("one record in, one row out", lambda: self._stream(spark[0]))
            self._prove("checkpoint", self._checkpoint)
        self._clean_up()
        self._lake().put(FINDINGS, io.BytesIO(encode_findings(self.proofs)))
        return self.proofs

    def _prove(self, name: str, prove: Prove) -> None:
        try:
            answer = prove()
        except (MovementError, BotoCoreError, ClientError, PySparkException, Py4JError, OSError, ValueError) as error:
            answer = failed(str(error).partition("\n")[0] or repr(error), "the run's log has the details")
            log.warning("%s", name, exc_info=True)
        self.proofs.append(Finding(name, answer.status, answer.found, answer.remedy))
        log.info("%s: %s: %s", name, answer.status, answer.found)

    def _lake(self) -> Any:
        return lake_at(self._root)

    def _put_if_absent(self) -> Answer:
        first = self._lake().put_if_absent("once.json", b"1")
        second = self._lake().put_if_absent("once.json", b"2")
        if first and not second:
            return passed("the second of two writes was refused")
        return failed("both of two writes were taken: S3 ignores If-None-Match", "use S3, or a store that honours it")

    def _if_match(self) -> Answer:
        parts = urlsplit(self._root)
        place = {"Bucket": parts.netloc, "Key": f"{parts.path.lstrip('/')}/matched.json"}
        s3: Any = client("s3")
        etag = s3.put_object(**place, Body=b"1")["ETag"]
        s3.put_object(**place, Body=b"2", IfMatch=etag)
        try:
            s3.put_object(**place, Body=b"3", IfMatch=etag)
        except ClientError as error:
            if error_code(error) in ("PreconditionFailed", "412"):
                return passed("a write with an old ETag was refused")
            raise
        return failed("a write with an old ETag was taken: S3 ignores If-Match", "use S3, or a store that honours it")

    def _write(self, table: str) -> Answer:
        lake, path = lake_at(self._settings.lake), f"{table}/_smoke-{self._run}"
        lake.put(path, io.BytesIO(b""))
        lake.delete([path])
        return passed("a file was written and deleted")

    def _catalog(self) -> Answer:
        catalog = GlueCatalog(client("glue"), self._settings.database, self._settings.lake)
        tables = stream_tables(load_contract(self._settings.contract), self._settings.sink.format)
        missing = catalog.missing_tables(tables)
        there = [table.name for table in tables if table.name not in missing]
        if missing:
            return passed(f"Glue answers; not there yet: {', '.join(missing)} (the job creates them)")
        return passed(f"Glue answers; tables {', '.join(there)}")

    def _metric(self) -> Answer:
        if self._settings.observe.metrics != "cloudwatch":
            return unknown(f"observe.metrics is {self._settings.observe.metrics}: no PutMetricData is sent")
        namespace = self._settings.observe.namespace
        dimensions = [{"Name": "StreamName", "Value": self._settings.stream.name}]
        data = [{"MetricName": METRIC, "Value": 1.0, "Unit": "Count", "Dimensions": dimensions}]
        cloudwatch: Any = client("cloudwatch")
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)
        return passed(f"{namespace} {METRIC} was taken")

    def _stream(self, spark: SparkSession) -> Answer:
        """The job's own protocol on the first records of the stream: read, parse, write, ledger."""
        entries = self._first_batch(spark)
        if not entries and self._timed_out:
            return failed(f"no micro-batch was written within {self._seconds:.0f} s", "the run's log has the details")
        if not entries:
            return unknown("the stream is empty", "movement deploy smoke --record sends one record")
        report = entries[0].report
        return passed(
            f"{report.read} read = {report.raw} raw = {report.processed} processed + {report.quarantined} quarantined, "
            f"in {sum(entries[0].seconds.values()):.1f} s"
        )

    def _first_batch(self, spark: SparkSession) -> list[LedgerEntry]:
        settings = self._own_settings()
        native = settings.source.connector == "native"
        lake, contract = lake_at(settings.lake), load_contract(settings.contract)
        entries: list[LedgerEntry] = []

        def on_batch(entry: LedgerEntry) -> None:
            entries.append(entry)
            self._stop.set()

        check_stream(settings, until_drained=native)
        catalog = NoRegistration(client("glue"), settings.database, settings.lake)
        timer = threading.Timer(self._seconds, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            with Lease(lake, settings.checkpoint_name) as lease:
                source = read_stream(spark, settings, until_drained=native)
                checkpoint = checkpoint_at(settings.checkpoint)
                writer = MicroBatchWriter(
                    settings, contract, lake, catalog, lease, on_batch, source.records, checkpoint
                )
                run_query(source.rows, settings, writer, self._stop, native)
        finally:
            timer.cancel()
        return entries

    def _give_up(self) -> None:
        self._timed_out = True
        self._stop.set()

    def _own_settings(self) -> Settings:
        """The job's settings in the run's own lake, from the oldest record, a few records and no alarm."""
        source = self._settings.source.model_copy(
            update={"starting_position": "TRIM_HORIZON", "max_records_per_batch": RECORDS, "fail_on_data_loss": False}
        )
        sink = self._settings.sink.model_copy(update={"format": "parquet", "fail_on_max_rejected_share": False})
        job = self._settings.stream_job.model_copy(update={"checkpoint": None})
        changes = {"lake": self._root, "source": source, "sink": sink, "stream_job": job}
        return self._settings.model_copy(update=changes)

    def _checkpoint(self) -> Answer:
        place = self._own_settings().checkpoint
        state = checkpoint_at(place).state()
        if state.query is None:
            return unknown("no query has run")
        if state.committed is None:
            return unknown("Spark wrote the query's id, and no batch")
        return passed(f"Spark wrote offsets and commits, the last one of batch {state.committed}")

    def _clean_up(self) -> None:
        lake = self._lake()
        try:
            lake.delete([path for path, _ in lake.list("")])
        except MovementError as error:
            self.proofs.append(Finding("clean up", "fail", str(error), f"delete {self._root}"))
        else:
            self.proofs.append(Finding("clean up", "pass", "the run's files are deleted"))


def _glibc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (ValueError, OSError):
        return "unknown"


def _machine(_: object = None) -> tuple[str, str, str, str]:
    """(host, Python, glibc, region) of the process."""
    return socket.gethostname(), platform.python_version(), _glibc(), os.environ.get("AWS_REGION", "")


def _python() -> Answer:
    _, version, glibc, _ = _machine()
    return passed(f"{version} at {sys.executable}, {platform.machine()}, {glibc}")


def _spark(found: list[SparkSession], start_spark: Callable[[], SparkSession]) -> Answer:
    spark = start_spark()
    found.append(spark)
    jvm: Any = spark._jvm
    java = jvm.java.lang.System.getProperty("java.version")
    text = f"{spark.version}, Java {java}, master {spark.sparkContext.master}"
    if int(spark.version.partition(".")[0]) < 4:
        return failed(text, "a platform with Spark 4: the source needs its Python Data Source API")
    return passed(text)


def _executors(spark: SparkSession) -> Answer:
    """Runs tasks that import this module: the executors have the release's environment."""
    tasks = max(2, min(spark.sparkContext.defaultParallelism, 16))
    machines = sorted(set(spark.sparkContext.parallelize(range(tasks), tasks).map(_machine).collect()))
    versions = {(version, glibc) for _, version, glibc, _ in machines}
    hosts = {host for host, *_ in machines}
    text = "; ".join(f"{version}, {glibc}" for version, glibc in sorted(versions)) + f"; machines: {len(hosts)}"
    driver = platform.python_version()
    if {version.rpartition(".")[0] for version, _ in versions} != {driver.rpartition(".")[0]}:
        return failed(f"{text}; the driver has {driver}", "give driver and executors the same PYSPARK_PYTHON")
    if any(not region for *_, region in machines):
        return failed(f"{text}; AWS_REGION is not set there", "set spark.executorEnv.AWS_REGION")
    return passed(text)


def _file_system(spark: SparkSession, uri: str) -> Answer:
    jvm: Any = spark._jvm
    java_context: Any = spark._jsc
    found = jvm.org.apache.hadoop.fs.Path(uri).getFileSystem(java_context.hadoopConfiguration()).getClass().getName()
    if found != S3A:
        return failed(str(found), f"set spark.hadoop.fs.s3.impl={S3A}: the checkpoint is tested with it only")
    return passed(str(found))


def _hadoop_cloud(spark: SparkSession) -> Answer:
    if has_class(spark, ABORTABLE_FILE_MANAGER):
        return passed("there: the checkpoint is written by one PUT a file")
    return passed("absent: the checkpoint is written by renaming, which is slower and as safe")


def _delta(spark: SparkSession) -> Answer:
    missing = [name for name in DELTA_CLASSES if not has_class(spark, name)]
    if missing:
        return unknown(
            f"absent: {missing[0]}. The streaming job does not need it, movement gold does",
            "on EMR the classification delta-defaults with delta.enabled, on Glue --datalake-formats delta",
        )
    return passed("there")


def main(arguments: list[str] | None = None) -> int:
    """Runs the proofs for spark-submit and Glue; returns the exit code, 0 whatever was found."""
    parser = job_parser(__doc__)
    parser.add_argument("--run", required=True, metavar="NAME", help="name of the run's folder, made by the caller")
    return run_job(parser, _run, arguments)


def _run(settings: Settings, options: argparse.Namespace) -> dict[str, str]:
    stop = threading.Event()
    stop_on_signals(stop)

    def start_spark() -> SparkSession:
        return spark_session("movement-smoke", settings.spark.master, settings.spark.conf, stop=stop)

    run = SmokeRun(settings, options.run, stop)
    return {each.name: each.status for each in run.do(start_spark)}
