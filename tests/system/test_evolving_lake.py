"""The contract of a lake changes: files from before and after are read as one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyarrow.fs import S3FileSystem

from jobs.common.aws import client
from jobs.common.errors import IncompatibleSchemaError
from jobs.lake.store import lake_at
from jobs.schema.types import ARROW_TYPES
from jobs.settings.settings import Settings
from jobs.stream.job import StreamResult, run
from local.server import RunningServer
from tests.helpers.lakes import contract_file
from tests.helpers.samples import GOOD, LOWER, MEAN, UPPER, bytes_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]

CITIES = ["Paris", "São Paulo", "a/b", "50% : c=d", "it's", 'the "city"', "東京", " x  y "]
BIG = 2**40


def drain(spark: SparkSession, settings: Settings, contract: str, records: list[dict[str, Any]]) -> StreamResult:
    kinesis = client("kinesis")
    for record in records:
        kinesis.put_record(StreamName=settings.stream.name, Data=bytes_of(record), PartitionKey="key")
    return run(lambda: spark, settings.model_copy(update={"contract": contract}), until_drained=True)


def glue_columns(settings: Settings, table: str) -> dict[str, str]:
    found = client("glue").get_table(DatabaseName=settings.database, Name=table)["Table"]
    return {
        column["Name"]: column["Type"]
        for column in [*found["StorageDescriptor"]["Columns"], *found["PartitionKeys"]]
    }  # fmt: skip


def test_old_and_new_files_are_one_table_to_spark_and_pyarrow(
    spark: SparkSession, lake_settings: Settings, embedded_aws: RunningServer, tmp_path: Path
) -> None:
    old = [GOOD | {"City": city} for city in CITIES]
    new = [
        GOOD | {"City": city, "Weather": "rain", MEAN: BIG, LOWER: BIG - 1, UPPER: BIG + 1} for city in CITIES
    ]  # fmt: skip
    longer = {f"{which}_travel_time_seconds": {"type": "long"} for which in ("mean", "lower_bound", "upper_bound")}
    drain(spark, lake_settings, contract_file(tmp_path), old)
    result = drain(spark, lake_settings, contract_file(tmp_path, weather={"type": "string"}, **longer), new)

    assert (result.processed, result.quarantined) == (len(new), 0)
    expected = sorted(
        [(city, 446, None) for city in CITIES] + [(city, BIG, "rain") for city in CITIES], key=lambda row: row[:2]
    )
    columns = glue_columns(lake_settings, "processed")
    assert (columns["mean_travel_time_seconds"], columns["weather"]) == ("bigint", "string")

    # Spark, with the table's schema from the catalog.
    schema = ", ".join(f"`{name}` {kind}" for name, kind in columns.items())
    frame = spark.read.schema(schema).parquet(f"{lake_settings.lake}/processed")
    rows = frame.select("city", "mean_travel_time_seconds", "weather").collect()
    assert sorted((tuple(row) for row in rows), key=lambda row: row[:2]) == expected
    assert frame.where(f"mean_travel_time_seconds >= {BIG}").count() == len(new), "pushed down to int32 statistics too"

    # pyarrow, with the same schema and Hive partitioning.
    kinds = {"bigint": "long"}
    arrow = pa.schema([(name, ARROW_TYPES[kinds.get(kind, kind)]) for name, kind in columns.items()])
    s3 = S3FileSystem(endpoint_override=embedded_aws.endpoint, access_key="test", secret_key="test", region="us-east-1")
    found = ds.dataset(
        f"{lake_settings.lake.removeprefix('s3://')}/processed",
        filesystem=s3,
        schema=arrow,
        partitioning=ds.partitioning(pa.schema([("city", pa.string()), ("start_date", pa.date32())]), flavor="hive"),
    ).to_table(columns=["city", "mean_travel_time_seconds", "weather"])
    assert sorted((tuple(row.values()) for row in found.to_pylist()), key=lambda row: row[:2]) == expected

    # Every old partition holds rows of both contracts, and has the new schema.
    pages = client("glue").get_paginator("get_partitions")
    partitions = [
        partition
        for page in pages.paginate(DatabaseName=lake_settings.database, TableName="processed")
        for partition in page["Partitions"]
    ]
    assert sorted(partition["Values"][0] for partition in partitions) == sorted(CITIES)
    for partition in partitions:
        kinds = {column["Name"]: column["Type"] for column in partition["StorageDescriptor"]["Columns"]}
        assert (kinds["mean_travel_time_seconds"], kinds["weather"]) == ("bigint", "string")


def _all_but_claims(settings: Settings) -> dict[str, int]:
    return {path: size for path, size in lake_at(settings.lake).list("") if not path.startswith("_claims/")}


def test_a_breaking_contract_stops_before_anything_is_read_or_written(
    spark: SparkSession, lake_settings: Settings, tmp_path: Path
) -> None:
    drain(spark, lake_settings, contract_file(tmp_path), [GOOD])
    before = _all_but_claims(lake_settings)

    with pytest.raises(IncompatibleSchemaError, match=r"column origin_geometry .* is no longer in the contract"):
        drain(spark, lake_settings, contract_file(tmp_path, origin_geometry=None), [GOOD])

    assert _all_but_claims(lake_settings) == before
    # With the column restored, the record that remained on the stream is written.
    assert drain(spark, lake_settings, contract_file(tmp_path), []).processed == 1
