"""The Spark session of every entry point, on a laptop and on a cluster.

Spark settings given to spark-submit override ours, except the time zone. S3A does not read AWS_REGION, AWS_PROFILE or
AWS_ENDPOINT_URL / AWS_ENDPOINT_URL_S3 itself; the session passes them on, so that S3A finds AWS where boto3 does.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from py4j.protocol import Py4JJavaError, Py4JNetworkError  # type: ignore[import-untyped]
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from jobs.common.aws import ca_bundle, region
from jobs.common.errors import MovementError, TerminalError
from jobs.common.java_process import start_jvm, stop_on_jvm_signals, trust_certificates
from jobs.common.spark_errors import explained_failure

# Partitions are days in UTC, whatever the cluster's default.
_TIME_ZONE = "spark.sql.session.timeZone"
_S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem"
# Delta needs these. Its jars are installed here, on EMR 8 and on Glue 6 (`--datalake-formats delta`).
_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


def spark_session(
    name: str,
    master: str,
    conf: Mapping[str, object],
    log_file: str | None = None,
    *,
    delta: bool = False,
    stop: threading.Event | None = None,
) -> SparkSession:
    """A session called `name`. If one is active (spark-submit's, the tests'), it is reused and `conf` is applied to it.

    `master` counts only when this process starts Spark itself; `conf` overrides the settings made here. `log_file`
    takes the output of Spark and its workers instead of the terminal. `delta`: the session writes Delta tables; a
    session that is started here always can, so that commands share one. `stop` is set by a SIGTERM or SIGINT to
    spark-submit, which reaches Spark's JVM and not this process.

    Raises TerminalError if Spark does not start.
    """
    started: list[SparkSession] = []
    errors: list[BaseException] = []

    def start() -> None:
        try:
            started.append(_start(name, master, conf, log_file, delta, stop))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            errors.append(error)

    # In a thread of its own. The main thread stays free for signals: a handler that notes a stop runs at once, and one
    # that ends the process does not break off PySpark while it starts the JVM, which would then never end. And PySpark
    # replaces the handler of SIGINT only if it is started in the main thread.
    thread = threading.Thread(target=start, name="start-spark", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise _explained(errors[0], log_file) from errors[0]
    session = started[0]
    # Java's active session is one of each thread.
    SparkSession._get_j_spark_session_class(session._jvm).setActiveSession(session._jsparkSession)
    return session


def _start(
    name: str,
    master: str,
    conf: Mapping[str, object],
    log_file: str | None,
    delta: bool,
    stop: threading.Event | None,
) -> SparkSession:
    options = {"spark.app.name": name}
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        # Not under spark-submit: this process starts the JVM and chooses master and memory.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        options |= {"spark.master": master, "spark.driver.memory": "2g"}
        options |= {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
        delta = True
    elif stop is not None:
        stop_on_jvm_signals(stop)
    submitted = submitted_keys()
    for key, value in {**session_conf(), **(_DELTA if delta else {}), **conf}.items():
        if key not in submitted or key == _TIME_ZONE:
            options[key] = str(value)
    start_jvm(options, log_file)
    bundle = ca_bundle()
    if bundle is not None:
        trust_certificates(SparkContext._gateway, bundle)
    return SparkSession.builder.config(map=dict(options)).getOrCreate()


def _explained(error: BaseException, log_file: str | None) -> BaseException:
    """Why Spark did not start."""
    if isinstance(error, MovementError):
        return error
    if isinstance(error, (Py4JNetworkError, PySparkRuntimeError)):
        where = log_file or "its output above"
        return TerminalError(f"Spark did not start: its Java process has ended; {where} says why")
    return explained_failure(error, "Spark's start")


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
        # A bucket may be in another region than the job.
        "spark.hadoop.fs.s3a.cross.region.access.enabled": "true",
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
    jvm: Any = spark._jvm
    try:
        jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(name)
    except Py4JJavaError:
        return False
    return True
