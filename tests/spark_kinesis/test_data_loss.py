"""Records that left the stream unread are always told, and idleness, waiting and sparse shards never taken for it.

Against a scripted stream, without Spark. What a reader finds by itself is in `test_reading.py`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from spark_kinesis.errors import DataLossError, TransientSourceError
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, Offset, ShardRange, after, at_timestamp, parse_offset
from spark_kinesis.options import KinesisOptions
from tests.helpers.fake_spark import DAY, SHARD, FakeSpark, having_read, put, query, reader, values
from tests.helpers.scripted import ScriptedClient, ScriptedStream, as_time, broken

HOUR = 3600


def losses(spark: FakeSpark) -> int:
    return parse_offset(spark.offsets[-1], "s").losses


def ends_at_tip(spark: FakeSpark) -> None:
    """The next run of the query is one until drained."""
    spark.options = KinesisOptions(**{**spark.options.__dict__, "ends_at_tip": True})
    spark.restart()


# A closed shard


def closed_after_a_loss(**options: Any) -> FakeSpark:
    """50 records an hour after the last batch, a split an hour later; then all expired, and the shard still listed."""
    stream, spark = having_read(5, **options)
    stream.now += HOUR
    put(stream, 50, begin=5)
    stream.now += HOUR
    stream.split(SHARD)
    stream.now += DAY - HOUR + 60
    spark.restart()
    return spark


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("options", [{}, {"max_records": 100}, {"ends_at_tip": True}])
def test_a_closed_shard_whose_unread_records_all_expired_is_a_loss(strict: bool, options: dict[str, Any]) -> None:
    spark = closed_after_a_loss(**options)
    spark.client.strict = strict
    with pytest.raises(DataLossError, match=SHARD):
        spark.drain()


def test_a_loss_on_a_closed_shard_is_counted_where_it_is_allowed() -> None:
    spark = closed_after_a_loss(fail_on_data_loss=False)
    spark.step()
    assert losses(spark) == 1
    put(spark.client.stream, 5, begin=55)
    spark.drain()
    assert len(spark.values) == 10


def test_a_closed_shard_that_was_read_to_its_tip_is_no_loss() -> None:
    stream, spark = having_read(5)
    for _ in range(8):
        stream.now += DAY / 6
        spark.drain()
    stream.split(SHARD)
    stream.now += DAY - HOUR
    spark.restart()
    spark.drain()
    assert parse_offset(spark.offsets[-1], "s").shards[SHARD] == SHARD_END


@pytest.mark.parametrize("start", ["record", "TRIM_HORIZON"])
def test_a_range_to_a_closed_shards_end_is_not_believed_to_be_empty(start: str) -> None:
    stream = ScriptedStream(1)
    first = stream.put("k", "1")
    put(stream, 5)
    stream.now += HOUR
    stream.split(SHARD)
    stream.now += DAY - 60
    begin = after(str(first.number)) if start == "record" else TRIM_HORIZON
    planned = as_time(stream.now - DAY)
    part = ShardRange(SHARD, begin, SHARD_END, complete_until=planned, ending_sequence=str(stream.shards[SHARD].ending))
    stream.now += 59
    with pytest.raises(DataLossError, match=SHARD):
        values(reader(ScriptedClient(stream)).read(part))


def test_a_shard_that_left_the_stream_between_plan_and_read_is_a_loss_with_its_range() -> None:
    stream = ScriptedStream(1)
    last = put(stream, 5) and stream.shards[SHARD].records[-1]
    stream.split(SHARD)
    stream.now += DAY + 60
    for end in (after(str(last.number)), SHARD_END):
        part = ShardRange(SHARD, TRIM_HORIZON, end)
        with pytest.raises(DataLossError, match=SHARD):
            values(reader(ScriptedClient(stream)).read(part))
        assert values(reader(ScriptedClient(stream), fail_on_data_loss=False).read(part)) == []


def test_a_shard_that_is_no_longer_listed_and_was_read_to_its_tip_is_no_loss() -> None:
    stream, spark = having_read(5)
    stream.split(SHARD)
    # Planned again shortly before the closed shard leaves the list, by a list that does not show the split yet.
    offset = json.loads(spark.offsets[-1])
    offset["planned_at"] = "2025-11-25T15:30:00.000Z"
    spark.offsets[-1] = json.dumps(offset)
    stream.now += DAY + 60
    wanted = put(stream, 5, begin=5)
    spark.restart()
    spark.drain()
    assert spark.values[5:] == wanted


@pytest.mark.parametrize("strict", [False, True])
def test_records_that_expire_between_two_pages_of_a_range_are_a_loss(strict: bool) -> None:
    stream = ScriptedStream(1)
    put(stream, 20)
    last = stream.shards[SHARD].records[-1]
    client = ScriptedClient(stream, strict=strict)
    batches = reader(client, records_per_call=5, prefetch=False).read(
        ShardRange(SHARD, TRIM_HORIZON, after(str(last.number)))
    )
    next(batches)
    stream.now += DAY + 60
    put(stream, 5, begin=20)
    with pytest.raises(DataLossError, match=SHARD):
        list(batches)


# A position that names no record


@pytest.mark.parametrize("after_expiry", [0, 3])
def test_records_of_a_shard_that_was_empty_at_latest_do_not_expire_in_silence(after_expiry: int) -> None:
    stream = ScriptedStream(1)
    spark = query(stream, initial="LATEST")
    spark.drain()
    stream.now += HOUR
    put(stream, 50)
    stream.now += DAY + 60
    put(stream, after_expiry, begin=50)
    spark.restart()
    with pytest.raises(DataLossError, match="TRIM_HORIZON names no record"):
        spark.drain()


def test_a_loss_at_the_trim_horizon_is_counted_once() -> None:
    stream = ScriptedStream(1)
    spark = query(stream, initial="LATEST", fail_on_data_loss=False)
    spark.drain()
    stream.now += HOUR
    put(stream, 50)
    stream.now += DAY + 60
    spark.restart()
    spark.drain()
    wanted = put(stream, 3, begin=50)
    spark.drain()
    spark.restart()
    spark.drain()
    assert (losses(spark), spark.values) == (1, wanted)


def test_records_after_a_start_time_do_not_expire_in_silence() -> None:
    stream = ScriptedStream(1)
    stream.now += 60
    spark = query(stream, initial=str(at_timestamp(as_time(stream.now - 30))))
    spark.drain()
    stream.now += HOUR
    put(stream, 50)
    stream.now += DAY + 60
    spark.restart()
    with pytest.raises(DataLossError, match=SHARD):
        spark.drain()


@pytest.mark.parametrize("initial", ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP:2025-11-24T15:00:00Z"])
def test_a_new_query_on_an_old_stream_loses_nothing(initial: str) -> None:
    stream = ScriptedStream(2)
    put(stream, 20)
    stream.now += 3 * DAY
    wanted = put(stream, 5, begin=20) if initial != "LATEST" else []
    spark = query(stream, initial=initial)
    spark.drain()
    wanted += put(stream, 5, begin=25)
    spark.drain()
    assert spark.values == wanted


@pytest.mark.parametrize("initial", ["TRIM_HORIZON", "LATEST"])
def test_empty_shards_are_no_loss_while_the_query_runs_nor_after_a_short_stop(initial: str) -> None:
    stream = ScriptedStream(2)
    spark = query(stream, initial=initial)
    for _ in range(20):
        stream.now += DAY / 6
        spark.drain()
    stream.now += DAY / 2
    spark.restart()
    wanted = put(stream, 5)
    spark.drain()
    assert spark.values == wanted


def test_that_a_backlog_turned_out_to_be_read_whole_is_written_down_before_its_last_record_expires() -> None:
    stream, spark = having_read(1, max_records=5, exact_caps=True)
    put(stream, 5, begin=1)
    stream.now += 14 * HOUR
    spark.drain()
    stream.now += 12 * HOUR
    spark.restart()
    wanted = put(stream, 1, begin=6)
    spark.drain()
    assert spark.values[6:] == wanted


# Children that wait


def test_a_child_that_joined_late_does_not_lose_its_older_records_in_silence() -> None:
    stream, spark = having_read(5)
    stream.now += HOUR
    put(stream, 5, begin=5)
    left, _ = stream.split(SHARD)
    for number in range(100):
        stream.put("x", f"early-{number}", left)
    stream.now += 10 * HOUR
    stream.put("x", "late", left)
    stream.now += 12.5 * HOUR
    spark.restart()
    spark.step()
    stream.now += 2 * HOUR
    spark.restart()
    with pytest.raises(DataLossError, match=left):
        spark.drain()


def test_a_child_is_no_loss_while_its_first_record_is_there_however_old_the_last_batch() -> None:
    stream, spark = having_read(5)
    stream.now += 20 * HOUR
    stream.put("x", "parent", SHARD)
    left, right = stream.split(SHARD)
    middle, _ = stream.split(left)
    stream.put("x", "grandchild", middle)
    stream.now += 3 * HOUR
    stream.put("x", "child", right)
    spark.restart()
    spark.step()
    stream.now += 2 * HOUR
    spark.restart()
    spark.drain()
    assert sorted(spark.values[5:]) == ["child", "grandchild", "parent"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_grandchild_that_waits_for_longer_than_the_retention_is_no_loss(restarts: bool) -> None:
    stream = ScriptedStream(1)
    put(stream, 12)
    left, _ = stream.split(SHARD)
    spark = query(stream, max_records=1, exact_caps=True)
    spark.step()
    stream.now += HOUR
    for number in range(12):
        stream.put("x", f"left-{number:02}", left)
    grandchild, _ = stream.split(left)
    begin = stream.now
    for turn in range(28):
        if turn == 23:
            stream.put("x", "grandchild", grandchild)
        if restarts:
            spark.restart()
        spark.step()
        if "grandchild" in spark.values:
            break
        stream.now += 1.06 * HOUR
    assert stream.now - begin > DAY
    assert len(spark.values) == 25


def test_a_child_that_waits_costs_no_calls_until_its_time_gets_old() -> None:
    stream = ScriptedStream(1)
    put(stream, 40)
    spark = query(stream, max_records=1, exact_caps=True)
    spark.step()
    left, right = stream.split(SHARD)
    stream.put("x", "child", left)
    for _ in range(30):
        stream.now += 0.5 * HOUR
        spark.step()
    assert spark.client.calls[left] == 1
    assert spark.client.calls[right] <= 3


def test_a_loss_in_a_child_that_waits_is_counted_when_its_turn_comes() -> None:
    stream = ScriptedStream(1)
    put(stream, 24)
    left, _ = stream.split(SHARD)
    stream.put("x", "lost", left)
    stream.now += HOUR
    stream.put("x", "kept", left)
    spark = query(stream, max_records=1, exact_caps=True, fail_on_data_loss=False)
    while SHARD_END not in parse_offset(spark.offsets[-1], "s").shards.values() if spark.offsets else True:
        spark.step()
        stream.now += 0.97 * HOUR
    spark.drain()
    assert ("lost" in spark.values, "kept" in spark.values, losses(spark)) == (False, True, 1)


# Long stretches without records


def sparse(records: int, *, empty_hours: float, since_hours: float = 0, **options: Any) -> FakeSpark:
    """A shard whose records come after so many hours without any, and again so many before now. Five minutes an
    answer."""
    stream = ScriptedStream(1)
    stream.now += empty_hours * HOUR
    put(stream, records, every=1)
    stream.now += since_hours * HOUR
    given: dict[str, Any] = {"stream": "s", "initial": "TRIM_HORIZON", "discovery_seconds": 0, **options}
    return FakeSpark(KinesisOptions(**given), ScriptedClient(stream, span=300), with_start=False)


def recent(spark: FakeSpark) -> str:
    return json.loads(spark.offsets[-1]).get("behind", {}).get(SHARD, "none")


@pytest.mark.parametrize("options", [{}, {"max_records": 100}, {"initial": "AT_TIMESTAMP:2025-11-24T15:59:00Z"}])
@pytest.mark.parametrize("restarts", [False, True])
def test_records_behind_hours_without_any_are_found(options: dict[str, Any], restarts: bool) -> None:
    spark = sparse(5, empty_hours=5, since_hours=1, **options)
    for _ in range(4):
        spark.step()
        assert not recent(spark).startswith("1970")
        if restarts:
            spark.restart()
    assert len(spark.values) == 5


@pytest.mark.parametrize("options", [{}, {"max_records": 100}])
def test_a_stretch_that_one_trigger_does_not_pass_is_no_loss_once_records_come(options: dict[str, Any]) -> None:
    spark = sparse(5, empty_hours=20, since_hours=3, **options)
    for _ in range(4):
        spark.step()
    assert len(spark.values) == 5


@pytest.mark.parametrize("options", [{}, {"max_records": 100}])
def test_a_query_that_ends_with_each_trigger_comes_through_any_stretch(options: dict[str, Any]) -> None:
    spark = sparse(5, empty_hours=20, since_hours=3, **options)
    spark.client.stream.retention_hours = 72
    for _ in range(12):
        spark.step()
        spark.restart()
        spark.client.stream.now += 3 * HOUR
    assert len(spark.values) == 5


def test_records_near_the_tip_are_found_by_a_leap() -> None:
    spark = sparse(5, empty_hours=23)
    assert spark.plan()
    assert spark.client.calls[SHARD] < 40
    assert len(spark.run_batch()) == 5


@pytest.mark.parametrize("options", [{}, {"max_records": 100}, {"max_seconds": 60}])
def test_a_run_until_drained_does_not_end_in_a_stretch_without_records(options: dict[str, Any]) -> None:
    spark = sparse(5, empty_hours=18, since_hours=4, ends_at_tip=True, **options)
    spark.drain()
    assert len(spark.values) == 5


def test_a_shard_that_was_idle_for_long_is_not_walked_through_again_after_a_restart() -> None:
    spark = sparse(5, empty_hours=0, max_records=100)
    spark.drain()
    for _ in range(20):
        spark.client.stream.now += HOUR
        spark.step()
    spark.restart()
    wanted = put(spark.client.stream, 1, begin=5)
    spark.client.calls.clear()
    assert spark.plan()
    assert spark.client.calls[SHARD] < 100
    spark.run_batch()
    assert spark.values[5:] == wanted


def test_a_process_that_stood_still_for_longer_than_the_retention_looks_at_its_positions_again() -> None:
    stream, spark = having_read(5)
    stream.now += HOUR
    put(stream, 5, begin=5)
    stream.now += DAY + 60
    with pytest.raises(DataLossError, match=SHARD):
        spark.step()


def test_what_is_not_reached_in_a_long_stretch_keeps_its_iterator() -> None:
    spark = sparse(0, empty_hours=23, max_records=100)
    spark.step()
    calls = spark.client.calls[SHARD]
    assert calls <= 110
    for _ in range(3):
        spark.step()
    assert spark.client.calls[SHARD] < 23 * 12 + 20
    assert parse_offset(spark.offsets[-1], "s").shards[SHARD] == TRIM_HORIZON


# A start time, until drained


@pytest.mark.parametrize("options", [{}, {"max_records": 100}])
@pytest.mark.parametrize("goes_on", [False, True])
def test_a_shard_without_records_since_the_start_time_is_drained_at_once(
    goes_on: bool, options: dict[str, Any]
) -> None:
    stream = ScriptedStream(2)
    other = "shardId-000000000001"
    stream.put("x", "1", SHARD)
    stream.put("x", "2", other)
    stream.now += 60
    moment = stream.now
    stream.now += 60
    stream.put("x", "new", SHARD)
    stream.now += 5
    spark = query(stream, initial=str(at_timestamp(as_time(moment))), ends_at_tip=True, **options)
    spark.reader.prepareForTriggerAvailableNow()
    if goes_on:
        stream.put("x", "after the tip", other)
    spark.drain()
    assert spark.values == ["new"]


def test_what_follows_a_run_until_drained_is_not_taken_for_read() -> None:
    stream = ScriptedStream(1)
    put(stream, 4)
    spark = query(stream, ends_at_tip=True, max_records=3, exact_caps=True)
    spark.step()
    unread = stream.now + 1
    stream.now += HOUR
    put(stream, 3, begin=4)
    stream.now += 20 * HOUR
    spark.drain()
    assert len(spark.values) == 4
    assert parse_offset(spark.offsets[-1], "s").complete_until(SHARD) <= as_time(unread)  # type: ignore[operator]


# What is counted


@pytest.mark.parametrize("way", ["open", "closed", "until drained"])
def test_a_loss_that_planning_can_see_is_counted(way: str) -> None:
    stream, spark = having_read(5, fail_on_data_loss=False)
    put(stream, 5, begin=5)
    stream.now += DAY + HOUR - 60
    put(stream, 5, begin=10)
    if way == "closed":
        stream.split(SHARD)
    stream.now += 60
    if way == "until drained":
        ends_at_tip(spark)
    spark.restart()
    spark.drain()
    assert (len(spark.values), losses(spark)) == (10, 1)


def test_a_planned_end_costs_no_call_where_nothing_can_be_lost() -> None:
    stream, spark = having_read(5)
    put(stream, 5, begin=5)
    stream.split(SHARD)
    spark.restart()
    spark.client.calls.clear()
    spark.plan()
    assert SHARD not in spark.client.calls


def test_what_fails_in_planning_names_stream_shard_and_position() -> None:
    stream = ScriptedStream(1)
    spark = query(stream, discovery_seconds=30)
    record = stream.put("k", "1")
    spark.drain()
    spark.client.faults = [broken() for _ in range(1000)]
    with pytest.raises(TransientSourceError, match=f"stream s, shard {SHARD}, behind {record.number}"):
        spark.step()
    spark.client.faults = []
    pinned = query(stream, initial="LATEST", discovery_seconds=30)
    pinned.planner.tip()
    pinned.client.faults = [None] + [broken() for _ in range(1000)]
    with pytest.raises(TransientSourceError, match=f"stream s, shard {SHARD}, behind TRIM_HORIZON"):
        pinned.step()


def test_an_offset_of_an_older_release_is_still_read_by_its_times() -> None:
    stream = ScriptedStream(1)
    record = stream.put("k", "1")
    old = Offset("s", {SHARD: after(str(record.number))}, as_time(stream.now + 1))
    spark = query(stream)
    spark.offsets, spark.committed = [json.dumps(old.to_json())], 1
    stream.now += HOUR
    wanted = put(stream, 5)
    spark.restart()
    spark.drain()
    assert spark.values == wanted
