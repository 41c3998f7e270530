"""KPL aggregates: many user records in one Kinesis record, never split, in order, each with its own number."""

from __future__ import annotations

from collections import Counter
from hashlib import md5
from typing import Any

import pytest

from spark_kinesis.errors import SourceConfigurationError
from spark_kinesis.kpl import Deaggregator
from spark_kinesis.offset import TRIM_HORIZON, Position, ShardRange, after
from spark_kinesis.options import parse_options
from spark_kinesis.reader import RangeReader
from tests.helpers.fake_spark import SHARD, query
from tests.helpers.scripted import ScriptedClient, ScriptedStream, as_time

aggregation = pytest.importorskip("aws_kinesis_agg.aggregator", reason="needs aws_kinesis_agg (extra 'kpl')")


def aggregate(*values: str) -> bytes:
    made = aggregation.RecordAggregator()
    for value in values:
        made.add_user_record(f"key-{value}", value.encode())
    data: bytes = made.clear_and_get().get_contents()[2]
    return data


def put(stream: ScriptedStream, data: bytes) -> str:
    record = stream.put("k", "")
    record.data = data
    return str(record.number)


def rows(
    stream: ScriptedStream,
    start: Position,
    end: str,
    hash_keys: tuple[int, int] | None = None,
    counters: Counter[str] | None = None,
) -> list[dict[str, Any]]:
    reader = RangeReader(
        ScriptedClient(stream), "s", clock=lambda: as_time(stream.now), deaggregator=Deaggregator(counters)
    )
    part = ShardRange(SHARD, start, after(end), hash_keys=hash_keys)
    return [row for batch in reader.read(part) for row in batch.to_pylist()]


def test_user_records_come_in_order_with_sub_sequence_numbers_and_their_own_keys() -> None:
    stream = ScriptedStream(1)
    first = put(stream, b"plain")
    second = put(stream, aggregate("a", "b", "c"))
    got = rows(stream, TRIM_HORIZON, second)
    assert [(row["data"], row["sequence_number"], row["partition_key"]) for row in got] == [
        (b"plain", first, "k"),
        (b"a", f"{second}:0", "key-a"),
        (b"b", f"{second}:1", "key-b"),
        (b"c", f"{second}:2", "key-c"),
    ]


def test_what_only_looks_like_an_aggregate_stays_as_it_is() -> None:
    stream = ScriptedStream(1)
    damaged = aggregate("a", "b")[:-1] + b"?"
    put(stream, damaged)
    last = put(stream, b"\xf3\x89\x9a\xc2")
    assert [row["data"] for row in rows(stream, TRIM_HORIZON, last)] == [damaged, b"\xf3\x89\x9a\xc2"]


def test_a_position_inside_an_aggregate_resumes_behind_that_user_record() -> None:
    stream = ScriptedStream(1)
    first = put(stream, aggregate("a", "b", "c"))
    second = put(stream, aggregate("d", "e"))
    assert [row["data"] for row in rows(stream, after(first, 0), second)] == [b"b", b"c", b"d", b"e"]


def test_a_query_that_takes_over_inside_the_last_aggregate_reads_its_rest() -> None:
    stream = ScriptedStream(1)
    number = put(stream, aggregate("a", "b", "c"))
    spark = query(stream, initial="SHARDS", starting_shards={SHARD: after(number, 1)}, deaggregate=True)
    spark.reader.deaggregator = Deaggregator()
    spark.drain()
    assert spark.values == ["c"]


def hash_of(key: str) -> int:
    return int.from_bytes(md5(key.encode(), usedforsecurity=False).digest())


def test_user_records_that_the_kpl_sends_again_after_a_split_come_once(caplog: pytest.LogCaptureFixture) -> None:
    stream = ScriptedStream(1)
    left, right = stream.split(SHARD)
    middle = stream.shards[left].high
    values = [f"{number:02}" for number in range(20)]
    to_left = [value for value in values if hash_of(f"key-{value}") <= middle]
    to_right = [value for value in values if value not in to_left]
    assert to_left
    assert to_right
    # The KPL does not know of the split yet: the aggregate has the records of both children, and goes to the left one.
    stream.put("x", "", left).data = aggregate(*values)
    stream.put("x", "", right).data = aggregate(*to_right)
    spark = query(stream, deaggregate=True)
    spark.reader.deaggregator = Deaggregator(spark.reader.counters)
    spark.drain()
    assert sorted(spark.values) == values
    assert spark.reader.counters == {"resent": len(to_right)}
    assert f"dropped {len(to_right)} user records of KPL aggregates" in caplog.text
    assert left in caplog.text


def test_an_explicit_hash_key_decides_which_shard_takes_a_user_record() -> None:
    stream = ScriptedStream(1)
    made = aggregation.RecordAggregator()
    made.add_user_record("key", b"here", "5")
    made.add_user_record("key", b"elsewhere", "11")
    made.add_user_record("key", b"here too", "10")
    number = put(stream, made.clear_and_get().get_contents()[2])
    counters = Counter[str]()
    got = rows(stream, TRIM_HORIZON, number, (0, 10), counters)
    assert [(row["data"], row["sequence_number"]) for row in got] == [
        (b"here", f"{number}:0"),
        (b"here too", f"{number}:2"),
    ]
    assert counters == {"resent": 1}


def test_an_aggregate_of_which_the_shard_takes_nothing_gives_no_rows() -> None:
    stream = ScriptedStream(1)
    number = put(stream, aggregate("a", "b"))
    assert rows(stream, TRIM_HORIZON, number, (0, 0)) == []


def test_a_position_inside_an_aggregate_needs_the_option() -> None:
    given = {"streamName": "s", "startingPosition": '{"shardId-0": "5:1"}'}
    with pytest.raises(SourceConfigurationError, match="needs deaggregate=true"):
        parse_options(given)
    assert parse_options({**given, "deaggregate": "true"}).starting_shards == {"shardId-0": after("5", 1)}
