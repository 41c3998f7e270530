"""The Spark session: what every entry point needs, on a laptop as on a cluster.

A setting of a cluster's own spark-submit wins over ours. AWS is found where boto3 finds it: AWS_REGION, profiles
and AWS_ENDPOINT_URL / AWS_ENDPOINT_URL_S3, which S3A does not read by itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from jobs.common.aws import region
from jobs.settings.settings import Settings

# Partitions are days of UTC: no cluster's default may change that.
_TIME_ZONE = "spark.sql.session.timeZone"
_S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem"
# What Delta asks for; its jars are here, on EMR 8 and on Glue 6 (with `--datalake-formats delta`) already.
_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


def spark_session(settings: Settings, name: str, log_file: str | None = None, *, delta: bool = False) -> SparkSession:
    """A session called `name`; an active one (spark-submit's, the tests') is taken over as it is.

    With `log_file`, what Spark and its workers print goes there instead of the terminal. `delta`: it is to write
    Delta tables; here every session can, so that commands share one.
    """
    builder = SparkSession.builder.appName(name)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        # Not under spark-submit: this process starts the JVM, so master and memory are ours to say.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        builder = builder.master(settings.spark.master).config("spark.driver.memory", "2g")
        builder = builder.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
        delta = True
    submitted = _submitted()
    for key, value in {**session_conf(settings), **(_DELTA if delta else {}), **settings.spark.conf}.items():
        if key not in submitted or key == _TIME_ZONE:
            builder = builder.config(key, str(value))
    with _sigterm_is_ours():
        return builder.getOrCreate() if log_file is None else _quietly(builder, log_file)


def _submitted() -> set[str]:
    """The keys that spark-submit was given, by its command line or the cluster's defaults."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ or SparkContext._active_spark_context is not None:
        return set()
    SparkContext._ensure_initialized()  # without the JVM, SparkConf would not see them
    return {key for key, _ in SparkConf().getAll()}


def session_conf(settings: Settings) -> dict[str, str]:
    """The Spark settings that the jobs rely on."""
    conf = {
        _TIME_ZONE: "UTC",
        # Records of up to 10 MiB: a batch of 10,000 of them must not stand in memory at once.
        "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
        "spark.sql.execution.arrow.maxBytesPerBatch": str(4 * 1024 * 1024),
        "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "true",
        # EMR 8 and Glue 6 know s3:// as S3A; elsewhere it has to be said.
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
    # Where the driver finds AWS, executors on other machines find it too. Credentials are each machine's own.
    for name, value in os.environ.items():
        if name == "AWS_ENDPOINT_URL" or name.startswith("AWS_ENDPOINT_URL_"):
            conf[f"spark.executorEnv.{name}"] = value
    if os.environ.get("AWS_PROFILE"):
        conf["spark.hadoop.fs.s3a.aws.credentials.provider"] = (
            "software.amazon.awssdk.auth.credentials.ProfileCredentialsProvider"
        )
    return conf


def has_class(spark: SparkSession, name: str) -> bool:
    """Whether the driver's JVM finds a class, spark-submit's jars included."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]

    jvm: Any = spark._jvm
    try:
        jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(name)
    except Py4JJavaError:
        return False
    return True


@contextmanager
def _sigterm_is_ours() -> Iterator[None]:
    """A JVM born within ignores SIGTERM, as Spark lets it ignore Ctrl-C: a signal to the whole process group must
    leave it running until the batch in hand is done. It ends with this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _quietly(builder: SparkSession.Builder, log_file: str) -> SparkSession:
    """Starts the session while our standard output and error point to the log: the JVM keeps what it is born with."""
    os.makedirs(os.path.dirname(log_file) or ".", exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for stream, _ in kept:
            os.dup2(log, stream)
        return builder.getOrCreate()
    finally:
        for stream, original in kept:
            os.dup2(original, stream)
            os.close(original)
        os.close(log)
