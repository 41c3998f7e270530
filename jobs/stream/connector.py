"""Connects the job to the stream: with `spark_kinesis` (`native`) or with EMR's JVM connector (`aws-kinesis`).

Both give records with the columns `data, shard_id, sequence_number, partition_key, arrival_time, stream`, which
`jobs.write` takes. With `native` the task that writes the records reads them, so they never pass through the JVM
(docs/adr/0015).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobs.common import aws
from jobs.common.errors import AwsAccessError, ConfigurationError, TerminalError, TransientError
from jobs.common.spark_errors import Translations
from jobs.common.times import format_time, parse_time
from jobs.settings.settings import Settings
from jobs.write.task import ReadRecords
from spark_kinesis.boto_client import BotoStreamClient
from spark_kinesis.client import RetryingClient
from spark_kinesis.errors import SourceConfigurationError, SourceError, StreamAccessError, TransientSourceError
from spark_kinesis.offset import parse_position
from spark_kinesis.options import KinesisOptions, configured_endpoint, parse_options
from spark_kinesis.tip_search import ShardLag, shard_lags

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

# What the source's errors become when they reach the job through Spark.
SOURCE_ERRORS: Translations = {TransientSourceError: TransientError, SourceError: TerminalError}

# Where EMR's image has the connector's jar.
JAR = "/usr/share/aws/kinesis/spark-sql-kinesis/lib/spark-streaming-sql-kinesis-connector.jar"

# Our columns from the JVM connector's, which does not name a record's shard.
_FROM_JVM = (
    "data",
    "cast(null as string) as shard_id",
    "sequenceNumber as sequence_number",
    "partitionKey as partition_key",
    "approximateArrivalTimestamp as arrival_time",
    "streamName as stream",
)


@dataclass(frozen=True)
class SourceStream:
    """The stream that the job reads.

    rows      the streaming DataFrame: its micro-batches and their tasks
    records   reads the records that a task's `rows` name; None: the rows are the records. See `WriteTask.records`
    """

    rows: DataFrame
    records: ReadRecords | None = None


def check_stream(settings: Settings, *, until_drained: bool = False) -> None:
    """Raises an error if the settings name no stream that can be read: a few calls, without Spark.

    Raises ConfigurationError for a wrong option, AwsAccessError if the stream does not exist or may not be read.
    """
    if settings.source.connector == "aws-kinesis":
        if until_drained:
            raise ConfigurationError(
                "source.connector: aws-kinesis cannot end at a fixed tip; use native for runs until drained"
            )
        jvm_options(settings)
        return
    if settings.source.consumer_name is not None:
        raise ConfigurationError("source.consumer_name: enhanced fan-out needs source.connector: aws-kinesis")
    with _as_our_errors():
        options = parse_options(native_options(settings))
        try:
            RetryingClient(BotoStreamClient(options), seconds=10).list_shards()
        except TransientSourceError as error:
            log.warning("%s. The query will try again", error)


def kept_since(settings: Settings) -> datetime | None:
    """The arrival time from which on the stream still has all records; None if the settings accept lost ones.

    Calls DescribeStreamSummary. Raises AwsAccessError or TransientError.
    """
    if not settings.source.fail_on_data_loss:
        return None
    with _as_our_errors():
        stream = RetryingClient(BotoStreamClient(_own_options(settings)), seconds=60).summary()
    expired = datetime.now(UTC) - timedelta(hours=stream.retention_hours)
    return expired if stream.created_at is None else max(expired, stream.created_at)


def read_stream(spark: SparkSession, settings: Settings, *, until_drained: bool = False) -> SourceStream:
    """The stream of the settings.

    until_drained   no batch passes the tip at the query's start, so `query.processAllAvailable()` returns although
                    producers go on. Only with the native connector

    Call `check_stream` first. Raises ConfigurationError if the JVM connector's jar is not on the class path.
    """
    if settings.source.connector == "aws-kinesis":
        return SourceStream(_read_with_jvm_connector(spark, settings))
    from spark_kinesis.data_source import KinesisRangesDataSource, RecordsOfTasks

    spark.dataSource.register(KinesisRangesDataSource)
    options = native_options(settings)
    if until_drained:
        options["endingPosition"] = "LATEST"
    rows = spark.readStream.format(KinesisRangesDataSource.name()).options(**options).load()
    return SourceStream(rows, RecordsOfTasks(parse_options(options)))


def _read_with_jvm_connector(spark: SparkSession, settings: Settings) -> DataFrame:
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import AnalysisException

    reader = spark.readStream.format("aws-kinesis").options(**jvm_options(settings))
    try:
        rows = reader.load()
    except (AnalysisException, Py4JJavaError) as error:
        if "DATA_SOURCE_NOT_FOUND" not in str(error):
            raise
        raise ConfigurationError(
            "source.connector: Spark finds no source 'aws-kinesis': its jar has to be on the class path, on EMR with "
            f"spark-submit --jars {JAR}"
        ) from error
    return rows.selectExpr(*_FROM_JVM)


def native_options(settings: Settings) -> dict[str, str]:
    """The settings as options of the native source. `source.options` takes precedence."""
    source = settings.source
    options = {
        "streamName": settings.stream.name,
        "startingPosition": source.starting_position,
        "failOnDataLoss": _text(source.fail_on_data_loss),
        "maxRecordsPerBatch": _text(source.max_records_per_batch),
        "maxBytesPerBatch": _text(source.max_bytes_per_batch),
        "maxSecondsPerBatch": _text(source.max_seconds_per_batch),
        "deaggregate": _text(source.deaggregate),
    }
    if source.role_arn is not None:
        options["roleArn"] = source.role_arn
    return options | {name: _text(value) for name, value in source.options.items()}


def jvm_options(settings: Settings) -> dict[str, str]:
    """The settings as options of awslabs' spark-sql-kinesis-connector. `source.options` takes precedence.

    Names and values: https://github.com/awslabs/spark-sql-kinesis-connector#kinesis-source-configuration
    """
    source = settings.source
    if source.deaggregate:
        raise ConfigurationError("source.deaggregate: only the native connector takes KPL aggregates apart")
    region = aws.region()
    if region is None:
        raise ConfigurationError("no AWS region: set AWS_REGION, or a region in the AWS profile")
    start = source.starting_position
    if start.lstrip().startswith("{"):
        raise ConfigurationError("source.starting_position: only the native connector starts at positions by shard")
    options = {
        "kinesis.region": region,
        "kinesis.endpointUrl": configured_endpoint() or _public_endpoint(region),
        "kinesis.streamName": settings.stream.name,
        "kinesis.startingPosition": start if start in ("TRIM_HORIZON", "LATEST") else f"AT_TIMESTAMP {_utc(start)}",
        "kinesis.failOnDataLoss": _text(source.fail_on_data_loss),
        "kinesis.consumerType": "GetRecords" if source.consumer_name is None else "SubscribeToShard",
    }
    if source.consumer_name is not None:
        options["kinesis.consumerName"] = source.consumer_name
    if source.role_arn is not None:
        options["kinesis.stsRoleArn"] = source.role_arn
        options["kinesis.stsSessionName"] = "movement-lake"
    return options | {name: _text(value) for name, value in source.options.items()}


def _utc(time: str) -> str:
    return format_time(parse_time(time))


def _public_endpoint(region: str) -> str:
    """From botocore's tables: not every AWS partition is in amazonaws.com."""
    found: str = aws.core_session().create_client("kinesis", region_name=region).meta.endpoint_url
    return found


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def stream_lag(settings: Settings, last_read: Mapping[str, str]) -> list[ShardLag]:
    """Each listed shard against the last sequence number that was read of it: a small call a shard, without Spark.

    Raises AwsAccessError if the stream does not exist or may not be read.
    """
    with _as_our_errors():
        options = _own_options(settings)
        client = RetryingClient(BotoStreamClient(options, connections=options.planning_threads), seconds=10)
        # `<number>:<sub>` is a user record of a KPL aggregate. A batch reads aggregates whole.
        return shard_lags(client, {shard: parse_position(last.partition(":")[0]) for shard, last in last_read.items()})


def _own_options(settings: Settings) -> KinesisOptions:
    """Options of our own client, also for a stream that the JVM connector reads, whose options it does not know."""
    if settings.source.connector == "aws-kinesis":
        settings = settings.model_copy(update={"source": settings.source.model_copy(update={"options": {}})})
    return parse_options(native_options(settings))


@contextmanager
def _as_our_errors() -> Iterator[None]:
    """Raises the source's errors as ours, so that the command line ends as for any other error."""
    try:
        yield
    except SourceConfigurationError as error:
        raise ConfigurationError(str(error)) from error
    except StreamAccessError as error:
        raise AwsAccessError(str(error)) from error
    except TransientSourceError as error:
        raise TransientError(str(error)) from error
    except SourceError as error:
        raise TerminalError(str(error)) from error
