"""Whole queries: Spark, the source and an emulator."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyspark
import pytest

from spark_kinesis.data_source import COLUMNS, KinesisRangesDataSource, RecordsOfTasks
from spark_kinesis.options import parse_options
from tests.helpers.emulators import Stream
from tests.helpers.stream_query import Query, names

pytestmark = [pytest.mark.spark, pytest.mark.aws]


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


def test_records_read_where_they_are_used_are_those_that_the_source_yields(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    class ByTheirRanges(Query):
        """Reads as the job does: Spark gets rows that name ranges, and a later step of the same task reads them."""

        def start(self, **trigger: Any) -> Any:
            self.spark.dataSource.register(KinesisRangesDataSource)
            tasks = self.spark.readStream.format("kinesis-ranges").options(**self.options).load()
            records = tasks.mapInArrow(RecordsOfTasks(parse_options(self.options)), COLUMNS)
            writer = records.writeStream.format("parquet").option("checkpointLocation", str(self.checkpoint))
            return writer.start(str(self.out))

    stream = new_stream(shards=3)
    direct = Query(spark, stream, tmp_path / "direct", bytesPerTask="0")
    ranged = ByTheirRanges(spark, stream, tmp_path / "ranged", maxRecordsPerBatch="100")
    for round_ in "ab":
        stream.put(names(round_, 400))
        direct.run()
        ranged.run()
    assert len(direct.rows) == 800
    assert sorted(ranged.rows, key=str) == sorted(direct.rows, key=str)


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
    query = Query(spark, stream, tmp_path, endingPosition="LATEST", maxRecordsPerBatch="40")
    running = query.start()
    try:
        while not query.planned and running.isActive:
            time.sleep(0.02)
        stream.put(names("later", 80))
        running.processAllAvailable()
    finally:
        running.stop()
    assert query.values == names("before", 120)
    assert len(query.planned) >= 3
    Query(spark, stream, tmp_path).run()
    assert query.values == sorted(names("before", 120) + names("later", 80))


def test_a_batch_with_an_idle_shard_is_replayed_the_same_although_records_came_to_that_shard_since(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=2)
    busy, idle = (stream.key_in(shard["ShardId"]) for shard in stream.open_shards())
    stream.put(names("a", 50), busy)
    stream.put(names("i", 50), idle)
    query = Query(spark, stream, tmp_path)
    query.run()
    stream.put(names("b", 100), busy)
    query.run()
    # As after a crash between a batch's plan and its commit: the plan exists, its commit and files do not.
    last = max(int(path.name) for path in (query.checkpoint / "commits").iterdir() if path.name.isdigit())
    assert query.batch(last) == names("b", 100)
    for name in (str(last), f".{last}.crc"):
        (query.checkpoint / "commits" / name).unlink(missing_ok=True)
        (query.out / "_spark_metadata" / name).unlink(missing_ok=True)
    stream.put(names("c", 50), idle)
    stream.put(names("d", 50), busy)
    query.run()
    assert query.batch(last) == names("b", 100)
    assert query.values == sorted(names("a", 50) + names("i", 50) + names("b", 100) + names("c", 50) + names("d", 50))


def test_capped_batches_drain_a_backlog(spark: Any, new_stream: Callable[..., Stream], tmp_path: Path) -> None:
    stream = new_stream(shards=2)
    stream.put(names("a", 300))
    query = Query(spark, stream, tmp_path, maxRecordsPerBatch="80")
    query.run()
    assert query.values == names("a", 300)
    assert len(query.planned) >= 4


def test_a_split_and_a_merge_over_a_backlog_while_the_job_is_down_lose_and_double_nothing(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=2)
    query = Query(spark, stream, tmp_path / "resumed", maxRecordsPerBatch="150")
    stream.put(names("a", 200))
    query.run()
    stream.put(names("b", 200))
    stream.split("shardId-000000000000")
    stream.put(names("c", 200))
    stream.merge("shardId-000000000002", "shardId-000000000003")
    stream.put(names("d", 200))
    query.run()
    wanted = sorted(names("a", 200) + names("b", 200) + names("c", 200) + names("d", 200))
    assert query.values == wanted
    # A query that starts at TRIM_HORIZON after all of this.
    anew = Query(spark, stream, tmp_path / "anew")
    anew.run()
    assert anew.values == wanted


def test_a_split_and_a_merge_over_a_backlog_are_followed_by_a_running_query(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=2)
    put = names("backlog", 500)
    stream.put(put)
    query = Query(spark, stream, tmp_path, maxRecordsPerBatch="120")
    running = query.start(processingTime="100 milliseconds")
    try:
        while not query.planned and running.isActive:
            time.sleep(0.02)
        stream.split("shardId-000000000000")
        stream.put(names("after-split", 100))
        stream.merge("shardId-000000000002", "shardId-000000000003")
        stream.put(names("after-merge", 100))
        assert len(query.planned) < 4, "the backlog was drained before the stream was resharded"
        running.processAllAvailable()
    finally:
        running.stop()
    query.run()
    assert query.values == sorted(put + names("after-split", 100) + names("after-merge", 100))


def test_available_now_ends_although_nobody_stops_it(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=2)
    stream.put(names("a", 100))
    query = Query(spark, stream, tmp_path)
    running = query.start(availableNow=True)
    assert running.awaitTermination(60)
    assert query.values == names("a", 100)


def test_a_stream_that_does_not_exist_is_one_clear_error(spark: Any, moto: Any, tmp_path: Path) -> None:
    missing = Stream(None, "no-such-stream", moto)
    running = Query(spark, missing, tmp_path).start()
    with pytest.raises(
        Exception, match=r"no-such-stream: list shards: does not exist .* check name, region and account"
    ):
        running.processAllAvailable()


def test_a_position_of_an_explicit_shard_is_honoured(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=1)
    answers = stream.put(names("a", 20))
    position = json.dumps({answers[9]["ShardId"]: answers[9]["SequenceNumber"]})
    query = Query(spark, stream, tmp_path, startingPosition=position)
    query.run()
    assert query.values == names("a", 20)[10:]


def test_a_start_time_is_honoured(spark: Any, new_stream: Callable[..., Stream], tmp_path: Path) -> None:
    stream = new_stream(shards=1)
    stream.put(names("before", 20))
    time.sleep(1.1)
    moment = datetime.now(UTC)
    time.sleep(0.05)
    stream.put(names("after", 20))
    query = Query(spark, stream, tmp_path, startingPosition=moment.isoformat())
    query.run()
    assert query.values == names("after", 20)


@pytest.mark.skipif(pyspark.__version__ < "4.2", reason="Spark 4.0 and 4.1 run one batch for availableNow")
def test_available_now_drains_capped_batches_to_the_tip_of_its_start(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=2)
    stream.put(names("a", 300))
    stream.split("shardId-000000000000")
    stream.put(names("b", 100))
    query = Query(spark, stream, tmp_path, maxRecordsPerBatch="60")
    running = query.start(availableNow=True)
    assert running.awaitTermination(120)
    assert query.values == sorted(names("a", 300) + names("b", 100))
    assert len(query.planned) >= 4
