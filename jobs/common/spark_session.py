"""The Spark session of every entry point, on a laptop and on a cluster.

Spark settings given to spark-submit override ours, except the time zone. S3A does not read AWS_REGION, AWS_PROFILE or
AWS_ENDPOINT_URL / AWS_ENDPOINT_URL_S3 itself; the session passes them on, so that S3A finds AWS where boto3 does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from jobs.common.aws import region

# Partitions are days in UTC, whatever the cluster's default.
_TIME_ZONE = "spark.sql.session.timeZone"
_S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem"
# Delta needs these. Its jars are installed here, on EMR 8 and on Glue 6 (`--datalake-formats delta`).
_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


def spark_session(
    name: str, master: str, conf: Mapping[str, object], log_file: str | None = None, *, delta: bool = False
) -> SparkSession:
    """A session called `name`. If one is active (spark-submit's, the tests'), it is reused and `conf` is applied to it.

    `master` counts only when this process starts Spark itself; `conf` overrides the settings made here. `log_file`
    takes the output of Spark and its workers instead of the terminal. `delta`: the session writes Delta tables; a
    session that is started here always can, so that commands share one.
    """
    builder = SparkSession.builder.appName(name)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        # Not under spark-submit: this process starts the JVM and chooses master and memory.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        builder = builder.master(master).config("spark.driver.memory", "2g")
        builder = builder.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
        delta = True
    submitted = submitted_keys()
    for key, value in {**session_conf(), **(_DELTA if delta else {}), **conf}.items():
        if key not in submitted or key == _TIME_ZONE:
            builder = builder.config(key, str(value))
    with _jvm_ignores_sigterm():
        return builder.getOrCreate() if log_file is None else _start_logging_to(builder, log_file)


def submitted_keys() -> set[str]:
    """The keys of the Spark settings from spark-submit's command line and the cluster's defaults."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ or SparkContext._active_spark_context is not None:
        return set()
    SparkContext._ensure_initialized()  # SparkConf reads them through the JVM
    return {key for key, _ in SparkConf().getAll()}


def session_conf() -> dict[str, str]:
    """The Spark settings that the jobs rely on."""
    conf = {
        _TIME_ZONE: "UTC",
        # A record has up to 10 MiB: keep 10,000 of them from being in memory at once.
        "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
        "spark.sql.execution.arrow.maxBytesPerBatch": str(4 * 1024 * 1024),
        "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "true",
        # EMR 8 and Glue 6 map s3:// to S3A by themselves; other platforms need it.
        "spark.hadoop.fs.s3.impl": _S3A,
        "spark.hadoop.fs.AbstractFileSystem.s3.impl": "org.apache.hadoop.fs.s3a.S3A",
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        conf |= {
            "spark.hadoop.fs.s3a.endpoint": endpoint,
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": str(urlsplit(endpoint).scheme == "https").lower(),
        }
    if region():
        conf["spark.hadoop.fs.s3a.endpoint.region"] = str(region())
        conf["spark.executorEnv.AWS_REGION"] = str(region())
    # Executors on other machines use the driver's endpoints, and credentials of their own machine.
    for name, value in os.environ.items():
        if name == "AWS_ENDPOINT_URL" or name.startswith("AWS_ENDPOINT_URL_"):
            conf[f"spark.executorEnv.{name}"] = value
    if os.environ.get("AWS_PROFILE"):
        conf["spark.hadoop.fs.s3a.aws.credentials.provider"] = (
            "software.amazon.awssdk.auth.credentials.ProfileCredentialsProvider"
        )
    return conf


def has_class(spark: SparkSession, name: str) -> bool:
    """Whether the driver's JVM has a class, including those of spark-submit's jars."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]

    jvm: Any = spark._jvm
    try:
        jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(name)
    except Py4JJavaError:
        return False
    return True


@contextmanager
def _jvm_ignores_sigterm() -> Iterator[None]:
    """A JVM that is started inside this block ignores SIGTERM, as Spark's JVMs ignore Ctrl-C.

    A signal to the whole process group then leaves the JVM running until the current batch is done. It ends with
    this process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start_logging_to(builder: SparkSession.Builder, log_file: str) -> SparkSession:
    """Starts the session while standard output and error are redirected to the log; the JVM inherits them."""
    os.makedirs(os.path.dirname(log_file) or ".", exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(stream, os.dup(stream)) for stream in (1, 2)]
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for stream, _ in saved:
            os.dup2(log, stream)
        return builder.getOrCreate()
    finally:
        for stream, original in saved:
            os.dup2(original, stream)
            os.close(original)
        os.close(log)
