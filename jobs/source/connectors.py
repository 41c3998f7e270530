"""Which connector reads the stream: ours (`native`) or EMR's JVM connector (`aws-kinesis`).

Whatever is chosen, what goes on to `jobs.transform` has the same columns: `data, shard_id, sequence_number,
partition_key, arrival_time, stream`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jobs.contract.settings import Settings
from jobs.source.kinesis.boto_client import BotoStreamClient
from jobs.source.kinesis.data_source import KinesisDataSource
from jobs.source.kinesis.options import parse_options
from jobs.source.kinesis.planner import Planner
from jobs.source.kinesis.retry import RetryingClient

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def read_stream(spark: SparkSession, settings: Settings, ending: str | None = None) -> DataFrame:
    """The stream as a streaming DataFrame.

    ending  an offset as `tip` gives it: no batch passes it, so `query.processAllAvailable()` returns there although
            producers go on. Only with the native connector.
    """
    spark.dataSource.register(KinesisDataSource)
    options = native_options(settings)
    if ending is not None:
        options["endingPosition"] = ending
    parse_options(options)  # here, so that a wrong option is one clear error and not a failed query
    return spark.readStream.format("kinesis").options(**options).load()


def native_options(settings: Settings) -> dict[str, str]:
    """The settings as options of the native source."""
    source = settings.source
    return {
        "streamName": settings.stream.name,
        "startingPosition": source.starting_position,
        "failOnDataLoss": json.dumps(source.fail_on_data_loss),
    }


def tip(settings: Settings) -> str:
    """The stream's tip now, as an offset's JSON: every record that was accepted before the call lies before it.

    Raises AwsAccessError where the stream does not exist or may not be read.
    """
    options = parse_options(native_options(settings))
    client = BotoStreamClient(options, connections=options.planning_threads)
    planner = Planner(options, RetryingClient(client, seconds=options.retry_seconds))
    try:
        return planner.tip().text()
    finally:
        planner.close()
