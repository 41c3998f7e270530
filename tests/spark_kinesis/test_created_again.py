"""A stream that was deleted and created again under the same name is never taken for the old one.

Against a scripted stream, without Spark. What emulators do in this case is in `test_emulators.py`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from spark_kinesis.client import Shard
from spark_kinesis.errors import DataLossError
from spark_kinesis.offset import SHARD_END, parse_offset
from tests.helpers.fake_spark import SHARD, FakeSpark, having_read, put, query
from tests.helpers.scripted import ScriptedStream


def created_again(spark: FakeSpark, *, after_seconds: float, same_numbers: bool = False) -> ScriptedStream:
    """The query's stream is another one now, created so many seconds after the old one's last event.

    same_numbers  its sequence numbers start where the old one's did, as moto's do
    """
    old = spark.client.stream
    new = ScriptedStream(1, seed=5, start=old.now + after_seconds)
    if not same_numbers:
        shift = 2**100
        for shard in new.shards.values():
            shard.starting += shift
        new._next += shift
    spark.client.stream = new
    spark.restart()
    return new


def of_an_earlier_release(spark: FakeSpark) -> None:
    """The checkpoint's offsets lack the stream's creation time."""
    for number, text in enumerate(spark.offsets):
        offset = json.loads(text)
        del offset["stream_created"]
        spark.offsets[number] = json.dumps(offset)


@pytest.mark.parametrize("same_numbers", [False, True])
@pytest.mark.parametrize("after_seconds", [0.002, 5, 3600])
def test_a_stream_that_was_created_again_is_not_taken_for_the_old_one(after_seconds: float, same_numbers: bool) -> None:
    _, spark = having_read(5)
    new = created_again(spark, after_seconds=after_seconds, same_numbers=same_numbers)
    put(new, 5, begin=5)
    with pytest.raises(DataLossError, match="stream s was deleted and created again") as error:
        spark.drain()
    assert "Start a new checkpoint, or read the new stream with failOnDataLoss=false" in str(error.value)


@pytest.mark.parametrize("after_seconds", [0.002, 3600])
def test_a_recreated_stream_is_read_from_its_beginning_where_loss_is_allowed(after_seconds: float) -> None:
    _, spark = having_read(5, fail_on_data_loss=False)
    new = created_again(spark, after_seconds=after_seconds)
    wanted = put(new, 5, begin=5)
    spark.drain()
    spark.restart()
    wanted += put(new, 5, begin=10)
    spark.drain()
    assert spark.values[5:] == wanted
    assert parse_offset(spark.offsets[-1], "s").losses == 1


def test_an_offset_without_a_creation_time_from_before_the_shards_start_tells_it() -> None:
    _, spark = having_read(5)
    of_an_earlier_release(spark)
    put(created_again(spark, after_seconds=1), 5, begin=5)
    with pytest.raises(DataLossError, match=f"shard {SHARD} was read up to [0-9]+, and now starts after that"):
        spark.drain()


def test_an_offset_without_a_creation_time_that_has_ended_an_open_shard_tells_it() -> None:
    stream, spark = having_read(5)
    stream.split(SHARD)
    spark.drain()
    assert parse_offset(spark.offsets[-1], "s").shards[SHARD] == SHARD_END
    of_an_earlier_release(spark)
    put(created_again(spark, after_seconds=1, same_numbers=True), 5, begin=5)
    with pytest.raises(DataLossError, match=f"shard {SHARD} was read to its end, and is open"):
        spark.drain()


def test_a_batch_that_was_planned_on_the_old_stream_is_not_read_from_the_new_one() -> None:
    stream, spark = having_read(5)
    put(stream, 5, begin=5)
    assert spark.plan()
    with pytest.raises(DataLossError, match="deleted and created again"):
        created_again(spark, after_seconds=5, same_numbers=True)


def test_the_batch_after_one_that_was_lost_with_the_old_stream_holds_the_whole_new_one() -> None:
    stream, spark = having_read(5, fail_on_data_loss=False)
    put(stream, 5, begin=5)
    assert spark.plan()
    new = created_again(spark, after_seconds=5, same_numbers=True)
    assert spark.values == [f"{number:06}" for number in range(5)]
    wanted = put(new, 5, begin=10)
    spark.drain()
    assert spark.values[5:] == wanted


def test_a_list_that_lags_behind_a_shards_end_is_no_new_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, spark = having_read(5)
    before, lags_until = spark.client.list_shards(), stream.now + 4
    original = spark.client.list_shards

    def late() -> list[Shard]:
        return original() if stream.now >= lags_until else before

    monkeypatch.setattr(spark.client, "list_shards", late)
    wanted = put(stream, 5, begin=5)
    stream.split(SHARD)
    wanted += put(stream, 5, begin=10)
    spark.drain()
    assert sorted(spark.values[5:]) == wanted


@pytest.mark.parametrize("host_clock", [-7200, 7200])
def test_a_wrong_clock_of_this_host_makes_no_new_stream_of_an_old_one(host_clock: int) -> None:
    stream = ScriptedStream(1)
    stream.created_at -= host_clock  # as this host sees it
    spark = query(stream)
    wanted: list[Any] = []
    for turn in range(3):
        wanted += put(stream, 5, begin=5 * turn)
        spark.drain()
        spark.restart()
    assert spark.values == wanted
