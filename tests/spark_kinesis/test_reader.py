"""Reading a range, losing records, failing calls: against a scripted stream, without Spark."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter

import pyarrow as pa
import pytest

from spark_kinesis.client import RetryingClient
from spark_kinesis.errors import (
    DataLossError,
    ExpiredIteratorError,
    FutureTimeError,
    SourceError,
    StreamAccessError,
    TransientSourceError,
)
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, ShardRange, after, at_timestamp, parse_offset
from spark_kinesis.reader import MAX_CONCURRENT, SCHEMA, RangeReader
from tests.helpers.fake_spark import DAY, SHARD, having_read, put, query, reader, values
from tests.helpers.scripted import ScriptedClient, ScriptedStream, as_time, broken, throttled


def test_a_range_excludes_its_start_and_includes_its_end() -> None:
    stream = ScriptedStream(1)
    records = [stream.put("k", f"{number}") for number in range(6)]
    part = ShardRange(SHARD, after(str(records[1].number)), after(str(records[4].number)))
    assert values(reader(ScriptedClient(stream)).read(part)) == ["2", "3", "4"]


def test_a_row_carries_the_records_own_values() -> None:
    stream = ScriptedStream(1, start=1_764_000_000.25)
    record = stream.put("Kéy", "däta")
    (batch,) = reader(ScriptedClient(stream)).read(ShardRange(SHARD, TRIM_HORIZON, after(str(record.number))))
    assert batch.schema == SCHEMA
    assert isinstance(batch, pa.RecordBatch)
    (row,) = batch.to_pylist()
    assert row == {
        "data": "däta".encode(),
        "shard_id": SHARD,
        "sequence_number": str(record.number),
        "partition_key": "Kéy",
        "arrival_time": as_time(1_764_000_000.25),
        "stream": "s",
    }


def test_calls_that_had_to_be_retried_are_counted() -> None:
    stream = ScriptedStream(1)
    put(stream, 3, every=1)
    scripted = ScriptedClient(stream)
    scripted.faults = [throttled(), broken()]
    counters = Counter[str]()
    client = RetryingClient(scripted, seconds=60, counters=counters, sleep=lambda _: None)
    last = stream.shards[SHARD].records[-1]
    part = ShardRange(SHARD, TRIM_HORIZON, after(str(last.number)))
    assert len(values(RangeReader(client, "s").read(part))) == 3
    assert counters == {"retries": 2, "throttles": 1}


def test_empty_and_partial_answers_with_data_ahead_are_read_on() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 200, every=1)
    last = stream.shards[SHARD].records[-1]
    got = values(
        reader(ScriptedClient(stream, ragged=True)).read(ShardRange(SHARD, TRIM_HORIZON, after(str(last.number))))
    )
    assert got == wanted


@pytest.mark.parametrize("prefetch", [False, True])
def test_an_iterator_that_expires_in_mid_range_is_opened_again(prefetch: bool) -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 50)
    client = ScriptedClient(stream)

    def slow(name: str) -> None:
        if name == SHARD:
            stream.now += 301 if client.calls[SHARD] % 3 == 0 else 0

    client.after_call = slow
    last = stream.shards[SHARD].records[-1]
    part = ShardRange(SHARD, TRIM_HORIZON, after(str(last.number)))
    assert values(reader(client, records_per_call=5, prefetch=prefetch).read(part)) == wanted


def test_repeated_attempts_yield_the_same_rows() -> None:
    stream = ScriptedStream(1)
    put(stream, 30)
    last = stream.shards[SHARD].records[19]
    part = ShardRange(SHARD, TRIM_HORIZON, after(str(last.number)))
    client = ScriptedClient(stream, ragged=True)
    first = values(reader(client).read(part))
    put(stream, 30, begin=30)
    assert values(reader(client).read(part)) == first


def test_throttles_and_server_errors_are_waited_out() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 10)
    client = ScriptedClient(stream)
    client.faults = [throttled(), broken(), throttled(), None, throttled(), broken()]
    last = stream.shards[SHARD].records[-1]
    assert values(reader(client).read(ShardRange(SHARD, TRIM_HORIZON, after(str(last.number))))) == wanted


def test_a_call_that_keeps_failing_becomes_a_transient_error_that_names_stream_shard_and_range() -> None:
    stream = ScriptedStream(1)
    put(stream, 10)
    client = ScriptedClient(stream)
    client.faults = [throttled() for _ in range(1000)]
    with pytest.raises(TransientSourceError, match=r"tried \d+ times") as error:
        list(reader(client, seconds=5).read(ShardRange(SHARD, TRIM_HORIZON, after("7"))))
    assert f"stream s, shard {SHARD}, range (TRIM_HORIZON, 7]" in str(error.value)
    assert "ProvisionedThroughputExceededException" in str(error.value)


def test_a_refusal_is_not_retried() -> None:
    stream = ScriptedStream(1)
    client = ScriptedClient(stream)
    client.faults = [StreamAccessError("AWS refused (AccessDeniedException); check the role's policy"), None]
    with pytest.raises(StreamAccessError, match="check the role's policy") as error:
        list(reader(client).read(ShardRange(SHARD, TRIM_HORIZON, after("7"))))
    assert SHARD in str(error.value)
    assert client.calls == {"iterator": 1}


def test_back_off_is_jittered_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    stream = ScriptedStream(1)
    client = ScriptedClient(stream)
    client.faults = [throttled() for _ in range(12)]

    drawn: list[tuple[float, float]] = []
    monkeypatch.setattr("random.uniform", lambda low, high: drawn.append((low, high)) or high)
    RetryingClient(client, seconds=1000, sleep=pauses.append, clock=lambda: 0.0).list_shards()
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert max(pauses) == 5.0
    assert {low for low, _ in drawn} == {0.0}


@pytest.mark.parametrize("ending", ["9223372036854775807", None])
def test_a_closed_shard_is_read_to_its_null_iterator_whatever_end_the_server_lists(ending: str | None) -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 25)
    stream.split(SHARD)
    part = ShardRange(SHARD, TRIM_HORIZON, SHARD_END, ending_sequence=ending)
    assert values(reader(ScriptedClient(stream), records_per_call=10).read(part)) == wanted


# Loss


def test_records_that_expired_before_they_were_read_stop_the_query_with_what_was_lost() -> None:
    stream, spark = having_read(5)
    put(stream, 5, begin=5)
    stream.now += DAY + 3600
    put(stream, 5, begin=10)
    spark.restart()
    with pytest.raises(DataLossError) as error:
        spark.drain()
    text = str(error.value)
    for part in ("stream s", SHARD, "2025-11-24T16:00:00", "the oldest record left", "failOnDataLoss=false", "24 h"):
        assert part in text


@pytest.mark.parametrize("strict", [False, True])
def test_loss_that_is_allowed_is_counted_and_the_query_goes_on(strict: bool, caplog: pytest.LogCaptureFixture) -> None:
    stream = ScriptedStream(1)
    spark = query(stream, fail_on_data_loss=False)
    spark.client.strict = strict
    put(stream, 5)
    spark.drain()
    put(stream, 5, begin=5)
    stream.now += DAY + 3600
    left = put(stream, 5, begin=10)
    spark.restart()
    spark.drain()
    assert spark.values[5:] == left
    assert parse_offset(spark.offsets[-1], "s").losses == 1
    assert "Continuing, because failOnDataLoss=false" in caplog.text
    put(stream, 1, begin=15)
    spark.restart()
    spark.drain()
    assert parse_offset(spark.offsets[-1], "s").losses == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_shard_that_was_idle_for_days_is_no_loss_while_the_query_runs(strict: bool) -> None:
    stream = ScriptedStream(1)
    spark = query(stream)
    spark.client.strict = strict
    put(stream, 5)
    spark.drain()
    for _ in range(12):
        stream.now += DAY / 4
        spark.drain()
    wanted = put(stream, 5, begin=5)
    spark.drain()
    assert spark.values[5:] == wanted


def test_a_shard_that_was_idle_for_days_is_no_loss_after_a_short_stop() -> None:
    stream, spark = having_read(5)
    for _ in range(12):
        stream.now += DAY / 4
        spark.drain()
    stream.now += DAY / 2
    wanted = put(stream, 5, begin=5)
    spark.restart()
    spark.drain()
    assert spark.values[5:] == wanted


def test_a_batch_planned_before_its_records_expired_fails_when_it_is_replayed_too_late() -> None:
    stream, spark = having_read(5)
    put(stream, 5, begin=5)
    assert spark.plan()
    stream.now += DAY + 60
    put(stream, 5, begin=10)
    with pytest.raises(DataLossError, match=SHARD):
        spark.restart()


def test_a_shard_that_expired_unread_is_a_loss() -> None:
    stream, spark = having_read(5)
    put(stream, 5, begin=5)
    stream.split(SHARD)
    stream.now += DAY + 60
    spark.restart()
    with pytest.raises(DataLossError, match=SHARD):
        spark.drain()


def test_an_explicit_position_that_has_expired_is_a_loss() -> None:
    stream = ScriptedStream(1)
    record = stream.put("k", "1")
    stream.now += DAY + 60
    stream.put("k", "2")
    spark = query(stream, initial="SHARDS", starting_shards={SHARD: after(str(record.number))})
    with pytest.raises(DataLossError, match="an unknown time"):
        spark.step()


def test_an_expired_iterator_is_not_retried_with_the_same_iterator() -> None:
    stream = ScriptedStream(1)
    client = ScriptedClient(stream)
    iterator = client.iterator(SHARD, TRIM_HORIZON)
    client.faults = [ExpiredIteratorError("expired")]
    retrying = RetryingClient(client, seconds=60, sleep=lambda _: None)
    with pytest.raises(ExpiredIteratorError):
        retrying.records(iterator, 1)
    assert client.calls == {"iterator": 1, SHARD: 1}


def test_a_time_in_the_servers_future_is_told_at_once() -> None:
    client = ScriptedClient(ScriptedStream(1))
    client.slow_clock = 5
    retrying = RetryingClient(client, seconds=60, sleep=lambda _: None)
    with pytest.raises(FutureTimeError):
        retrying.iterator(SHARD, at_timestamp(as_time(client.stream.now)))
    assert client.calls == {"iterator": 1}


def test_an_offset_can_be_read_by_a_person() -> None:
    stream = ScriptedStream(1)
    spark = query(stream)
    record = stream.put("k", "1")
    spark.drain()
    assert json.loads(spark.offsets[-1]) == {
        "version": 1,
        "stream": "s",
        "planned_at": as_time(stream.now).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "stream_created": "2025-11-24T16:00:00.000Z",
        "shards": {SHARD: str(record.number)},
        "bytes": {SHARD: 3},
    }


def test_a_child_whose_records_expired_while_it_waited_for_its_parent_is_a_loss() -> None:
    stream = ScriptedStream(1)
    put(stream, 40, every=1)
    left, _ = stream.split(SHARD)
    stream.put("x", "child", left)
    spark = query(stream, max_records=3)
    for _ in range(4):
        spark.step()
    stream.now += DAY - 3600
    put(stream, 0)
    assert parse_offset(spark.offsets[-1], "s").behind[left] < as_time(stream.now)
    stream.now += 2 * 3600
    with pytest.raises(DataLossError):
        spark.drain()


def test_a_task_that_is_killed_does_not_wait_for_the_next_page() -> None:
    stream = ScriptedStream(1)
    put(stream, 20)
    client = ScriptedClient(stream)
    answer = threading.Event()
    last = stream.shards[SHARD].records[-1]
    batches = reader(client, records_per_call=5).read(ShardRange(SHARD, TRIM_HORIZON, after(str(last.number))))
    client.after_call = lambda _name: answer.wait(30) and None if client.calls.get(SHARD, 0) > 1 else None
    next(batches)
    begin = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begin < 25  # the answer takes 30
    answer.set()


def test_the_ranges_of_one_task_come_whole_and_in_their_order() -> None:
    stream = ScriptedStream(1)
    records = [stream.put("k", f"{number}") for number in range(30)]
    bounds = [TRIM_HORIZON, *(after(str(record.number)) for record in records[2::3])]
    parts = [ShardRange(SHARD, start, end) for start, end in itertools.pairwise(bounds)]
    assert len(parts) > MAX_CONCURRENT
    assert values(reader(ScriptedClient(stream)).read_all(parts)) == [f"{number}" for number in range(30)]


def test_a_range_that_fails_among_others_fails_the_task_with_its_name() -> None:
    stream = ScriptedStream(1)
    last = stream.put("k", "a")
    parts = [
        ShardRange(SHARD, TRIM_HORIZON, after(str(last.number))),
        ShardRange("shardId-000000000099", TRIM_HORIZON, after(str(last.number))),
    ]
    with pytest.raises(SourceError, match="shardId-000000000099"):
        values(reader(ScriptedClient(stream)).read_all(parts))
