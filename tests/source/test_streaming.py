"""Whole queries: Spark, the source and an emulator."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.settings import Settings
from jobs.source.connectors import tip
from jobs.source.kinesis import KinesisDataSource
from tests.source.emulators import Stream

pytestmark = [pytest.mark.spark, pytest.mark.aws]


class Query:
    """Runs one query again and again on the same checkpoint; `rows` is all that its batches delivered."""

    def __init__(self, spark: Any, stream: Stream, folder: Path, **options: str) -> None:
        spark.dataSource.register(KinesisDataSource)
        self.spark = spark
        self.out = folder / "out"
        self.checkpoint = folder / "checkpoint"
        self.options = {
            "streamName": stream.name,
            "endpointUrl": stream.emulator.endpoint,
            "region": "us-east-1",
            "startingPosition": "TRIM_HORIZON",
            "discoverySeconds": "0",
            "planningCallsPerSecond": "1000",
            "retrySeconds": "10",
            **options,
        }

    def start(self, **trigger: Any) -> Any:
        rows = self.spark.readStream.format("kinesis").options(**self.options).load()
        writer = rows.writeStream.format("parquet").option("checkpointLocation", str(self.checkpoint))
        if trigger:
            writer = writer.trigger(**trigger)
        return writer.start(str(self.out))

    def run(self, until_rows: int | None = None) -> None:
        """Starts the query, waits until nothing new comes, stops it."""
        query = self.start()
        try:
            query.processAllAvailable()
        finally:
            query.stop()

    @property
    def rows(self) -> list[Any]:
        return list(self.spark.read.parquet(str(self.out)).collect()) if self.out.exists() else []

    @property
    def values(self) -> list[str]:
        return sorted(bytes(row.data).decode() for row in self.rows)


def names(prefix: str, count: int) -> list[str]:
    return sorted(f"{prefix}-{number:05}" for number in range(count))


def test_a_restarted_query_reads_each_record_once(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=3)
    query = Query(spark, stream, tmp_path)
    stream.put(names("a", 700))
    query.run()
    assert query.values == names("a", 700)
    stream.put(names("b", 300))
    query.run()
    assert query.values == sorted(names("a", 700) + names("b", 300))


def test_latest_reads_what_comes_after_the_first_start_even_while_the_job_is_down(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=2)
    stream.put(names("before", 50))
    query = Query(spark, stream, tmp_path, startingPosition="LATEST")
    query.run()
    assert query.values == []
    stream.put(names("down", 40))
    query.run()
    assert query.values == names("down", 40)


def test_a_query_with_an_ending_stops_there_although_producers_go_on(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=2)
    stream.put(names("before", 120))
    os.environ["AWS_ENDPOINT_URL_KINESIS"] = stream.emulator.endpoint
    try:
        ending = tip(Settings.model_validate({"stream": {"name": stream.name}}))
    finally:
        del os.environ["AWS_ENDPOINT_URL_KINESIS"]
    stream.put(names("later", 80))
    query = Query(spark, stream, tmp_path, endingPosition=ending)
    query.run()
    assert query.values == names("before", 120)
    Query(spark, stream, tmp_path).run()
    assert query.values == sorted(names("before", 120) + names("later", 80))
