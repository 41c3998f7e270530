"""Settings become the options of whichever connector is chosen, and its columns become ours."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.common.aws import client
from jobs.common.errors import ConfigurationError
from jobs.settings.settings import Settings
from jobs.stream.connector import check_stream, jvm_options, kept_since, native_options, read_stream, stream_lag
from tests.helpers.paths import ROOT


class RecordingSpark:
    """Notes what reaches Spark's reader."""

    def __init__(self) -> None:
        self.dataSource = self
        self.readStream = self
        self.registered: list[Any] = []
        self.said: dict[str, Any] = {}

    def register(self, source: Any) -> None:
        self.registered.append(source)

    def format(self, name: str) -> RecordingSpark:
        self.said["format"] = name
        return self

    def options(self, **options: str) -> RecordingSpark:
        self.said["options"] = options
        return self

    def load(self) -> RecordingSpark:
        return self

    def selectExpr(self, *columns: str) -> RecordingSpark:
        self.said["columns"] = columns
        return self


def settings(**source: Any) -> Settings:
    return Settings.model_validate({"stream": {"name": "trips"}, "source": source})


@pytest.fixture
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_KINESIS", raising=False)


@pytest.mark.usefixtures("_region")
def test_the_jvm_connector_gets_exactly_these_options() -> None:
    spark: Any = RecordingSpark()
    read_stream(spark, settings(connector="aws-kinesis", starting_position="2026-11-23T00:00:00Z"))
    assert spark.said == {
        "format": "aws-kinesis",
        "options": {
            "kinesis.region": "eu-west-1",
            "kinesis.endpointUrl": "https://kinesis.eu-west-1.amazonaws.com",
            "kinesis.streamName": "trips",
            "kinesis.startingPosition": "AT_TIMESTAMP 2026-11-23T00:00:00Z",
            "kinesis.failOnDataLoss": "true",
            "kinesis.consumerType": "GetRecords",
        },
        "columns": (
            "data",
            "cast(null as string) as shard_id",
            "sequenceNumber as sequence_number",
            "partitionKey as partition_key",
            "approximateArrivalTimestamp as arrival_time",
            "streamName as stream",
        ),
    }


@pytest.mark.usefixtures("_region")
def test_enhanced_fan_out_and_a_role_reach_the_jvm_connector() -> None:
    spark: Any = RecordingSpark()
    read_stream(
        spark,
        settings(
            connector="aws-kinesis",
            starting_position="LATEST",
            fail_on_data_loss=False,
            consumer_name="lake",
            role_arn="arn:aws:iam::123456789012:role/reader",
            options={"kinesis.describeShardInterval": "5s"},
        ),
    )
    assert spark.said["options"] == {
        "kinesis.region": "eu-west-1",
        "kinesis.endpointUrl": "https://kinesis.eu-west-1.amazonaws.com",
        "kinesis.streamName": "trips",
        "kinesis.startingPosition": "LATEST",
        "kinesis.failOnDataLoss": "false",
        "kinesis.consumerType": "SubscribeToShard",
        "kinesis.consumerName": "lake",
        "kinesis.stsRoleArn": "arn:aws:iam::123456789012:role/reader",
        "kinesis.stsSessionName": "movement-lake",
        "kinesis.describeShardInterval": "5s",
    }


@pytest.mark.usefixtures("_region")
def test_the_native_source_gets_exactly_these_options() -> None:
    spark: Any = RecordingSpark()
    read_stream(
        spark,
        settings(max_records_per_batch=1000, role_arn="arn:aws:iam::1:role/r", options={"discoverySeconds": 5}),
        until_drained=True,
    )
    assert spark.said == {
        "format": "kinesis-ranges",
        "options": {
            "streamName": "trips",
            "startingPosition": "TRIM_HORIZON",
            "failOnDataLoss": "true",
            "maxRecordsPerBatch": "1000",
            "maxBytesPerBatch": "0",
            "maxSecondsPerBatch": "0",
            "deaggregate": "false",
            "roleArn": "arn:aws:iam::1:role/r",
            "discoverySeconds": "5",
            "endingPosition": "LATEST",
        },
    }
    assert [source.name() for source in spark.registered] == ["kinesis-ranges"]


@pytest.mark.parametrize(("region", "domain"), [("cn-north-1", "amazonaws.com.cn"), ("us-gov-west-1", "amazonaws.com")])
@pytest.mark.usefixtures("_region")
def test_the_jvm_connectors_endpoint_is_in_its_regions_partition(
    region: str, domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", region)
    found = jvm_options(settings(connector="aws-kinesis"))
    assert found["kinesis.endpointUrl"] == f"https://kinesis.{region}.{domain}"


@pytest.mark.usefixtures("_region")
def test_positions_by_shard_are_settings_as_they_are_options() -> None:
    positions = '{"shardId-000000000000": "4958", "shardId-000000000001": "SHARD_END"}'
    assert native_options(settings(starting_position=positions))["startingPosition"] == positions


@pytest.mark.parametrize(
    ("source", "until_drained", "said"),
    [
        (
            {"connector": "aws-kinesis", "starting_position": '{"shardId-0": "4958"}'},
            False,
            "only the native connector",
        ),
        ({"connector": "aws-kinesis"}, True, "use native for runs until drained"),
        ({"connector": "aws-kinesis", "deaggregate": True}, False, "only the native connector"),
        ({"consumer_name": "lake"}, False, "needs source.connector: aws-kinesis"),
        ({"options": {"discoverySecond": 5}}, False, "did you mean 'discoverySeconds'?"),
    ],
)
@pytest.mark.usefixtures("_region")
def test_what_a_connector_cannot_do_is_refused(source: dict[str, Any], until_drained: bool, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_stream(settings(**source), until_drained=until_drained)
    assert said in str(error.value)


@pytest.mark.spark
def test_a_missing_jar_is_named(spark: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"spark-streaming-sql-kinesis-connector\.jar"):
        read_stream(spark, settings(connector="aws-kinesis"))


@pytest.mark.spark
@pytest.mark.aws
@pytest.mark.skipif("KINESIS_CONNECTOR_JAR" not in os.environ, reason="KINESIS_CONNECTOR_JAR names no jar")
def test_the_jvm_connectors_rows_have_our_columns(lake_settings: Settings, tmp_path: Path) -> None:
    name = lake_settings.stream.name
    for data in (b"one", b"two"):
        client("kinesis").put_record(StreamName=name, Data=data, PartitionKey="one")
    script = f"""
        from pyspark.sql import SparkSession
        from jobs.settings.settings import Settings
        from jobs.stream.connector import read_stream
        from spark_kinesis.data_source import COLUMNS

        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        spark = builder.config("spark.jars", {os.environ.get("KINESIS_CONNECTOR_JAR")!r}).getOrCreate()
        source = {{"connector": "aws-kinesis"}}
        settings = Settings.model_validate({{"stream": {{"name": {name!r}}}, "source": source}})
        rows = read_stream(spark, settings).rows
        assert rows.schema.simpleString() == spark.createDataFrame([], COLUMNS).schema.simpleString(), rows.schema
        query = rows.writeStream.format("parquet").option("checkpointLocation", {str(tmp_path / "c")!r})
        query = query.trigger(availableNow=True).start({str(tmp_path / "o")!r})
        assert query.awaitTermination(120)
        print(sorted(bytes(row.data).decode() for row in spark.read.parquet({str(tmp_path / "o")!r}).collect()))
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "['one', 'two']" in found.stdout, found.stderr[-3000:]


@pytest.mark.aws
def test_a_stream_keeps_all_records_since_its_creation_or_for_its_retention(lake_settings: Settings) -> None:
    told = lake_settings
    since = kept_since(told)
    assert since is not None
    assert timedelta(0) <= datetime.now(UTC) - since < timedelta(minutes=5), "it was made just now"
    jvm = {"connector": "aws-kinesis", "options": {"kinesis.client.numRetries": "3"}}
    assert kept_since(told.model_copy(update={"source": settings(**jvm).source})) is not None
    lost = told.model_copy(update={"source": settings(fail_on_data_loss=False).source})
    assert kept_since(lost) is None


@pytest.mark.aws
def test_options_of_the_jvm_connector_do_not_stop_the_look_at_the_lag(lake_settings: Settings) -> None:
    jvm = settings(connector="aws-kinesis", options={"kinesis.client.numRetries": "3"}).source
    assert stream_lag(lake_settings.model_copy(update={"source": jvm}), {}) != []
