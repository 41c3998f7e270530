"""What a batch holds: starts, tips, caps, endings, resharding. Against a scripted stream, without Spark."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spark_kinesis.client import Shard
from spark_kinesis.errors import SourceConfigurationError
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, ShardRange, after, at_timestamp, parse_offset
from spark_kinesis.planner import group_ranges
from spark_kinesis.shards import ShardGraph
from tests.helpers.fake_spark import DAY, having_read, put, query
from tests.helpers.scripted import ScriptedStream, as_time


def test_an_idle_shard_costs_one_call_a_trigger() -> None:
    stream, spark = having_read(10)
    spark.client.calls.clear()
    for _ in range(20):
        assert not spark.step()
        stream.now += 5
    assert spark.client.calls["shardId-000000000000"] == 20
    assert spark.client.calls.get("iterator", 0) <= 1


def test_the_iterator_of_a_shard_that_is_idle_for_long_is_opened_again() -> None:
    stream, spark = having_read(3)
    stream.now += 3600
    assert not spark.step()
    values = put(stream, 2, begin=3)
    spark.drain()
    assert spark.values[-2:] == values


def test_the_tip_of_a_days_backlog_is_found_in_a_few_calls() -> None:
    stream = ScriptedStream(1)
    put(stream, 20_000, every=4.0)
    stream.now += 3
    spark = query(stream)
    assert spark.plan()
    assert spark.client.calls["shardId-000000000000"] <= 20
    assert len(spark.run_batch()) == 20_000


def test_a_steady_stream_costs_two_calls_a_trigger_for_its_tip() -> None:
    stream = ScriptedStream(1)
    spark = query(stream)
    put(stream, 50, every=0.1)
    spark.drain()
    spark.client.calls.clear()
    for turn in range(10):
        put(stream, 500, every=0.01, begin=50 + turn * 500)
        assert spark.plan()
        spark.reader.partitions(json.loads(spark.offsets[-2]), json.loads(spark.offsets[-1]))
        spark.commit()
    assert spark.client.calls["shardId-000000000000"] <= 25


def test_planning_does_not_read_the_backlog() -> None:
    stream = ScriptedStream(1)
    put(stream, 5_000, every=10.0)
    spark = query(stream)
    seen = 0

    original = spark.client.headers

    def counted(iterator: str, limit: int) -> Any:
        nonlocal seen
        page = original(iterator, limit)
        seen += len(page.records)
        return page

    spark.client.headers = counted  # type: ignore[method-assign]
    assert spark.plan()
    assert seen < 50


def test_latest_misses_nothing_that_arrives_between_planning_and_reading() -> None:
    stream = ScriptedStream(2)
    put(stream, 5)
    spark = query(stream, initial="LATEST")
    assert spark.plan()
    values = put(stream, 5, begin=5)
    assert spark.run_batch() == []
    spark.restart()
    spark.drain()
    assert spark.values == values


def test_latest_is_pinned_once_even_when_the_first_batch_is_planned_again() -> None:
    stream = ScriptedStream(1)
    spark = query(stream, initial="LATEST")
    assert spark.plan()
    values = put(stream, 4)
    spark.restart()
    spark.drain()
    assert spark.values == values


def test_latest_on_a_resharded_stream_reads_neither_old_parents_nor_old_records() -> None:
    stream = ScriptedStream(1)
    put(stream, 5)
    stream.split("shardId-000000000000")
    put(stream, 5, begin=5)
    spark = query(stream, initial="LATEST")
    spark.drain()
    values = put(stream, 5, begin=10)
    spark.drain()
    assert spark.values == values


def test_a_start_time_holds_for_shards_on_both_sides_of_a_reshard() -> None:
    stream = ScriptedStream(1)
    put(stream, 5, every=10)
    moment = stream.now - 5
    wanted = put(stream, 3, begin=5)
    stream.now += 5
    stream.split("shardId-000000000000")
    wanted += put(stream, 5, begin=8)
    spark = query(stream, initial=str(at_timestamp(as_time(moment))))
    spark.drain()
    assert spark.values == wanted


def test_a_start_time_after_a_reshard_skips_the_childrens_older_records() -> None:
    stream = ScriptedStream(1)
    put(stream, 5)
    stream.split("shardId-000000000000")
    put(stream, 5, begin=5)
    stream.now += 60
    moment = stream.now
    stream.now += 1
    wanted = put(stream, 5, begin=10)
    spark = query(stream, initial=str(at_timestamp(as_time(moment))))
    spark.drain()
    assert spark.values == wanted


def test_a_start_time_within_a_second_is_exact() -> None:
    stream = ScriptedStream(1, start=1_764_000_000.0)
    put(stream, 5, every=0.1)
    moment = stream.now - 0.05
    wanted = put(stream, 5, every=0.1, begin=5)
    stream.now += 2
    spark = query(stream, initial=str(at_timestamp(as_time(moment))))
    spark.drain()
    assert spark.values == wanted


def test_a_query_that_starts_in_the_future_reads_nothing_until_then(caplog: pytest.LogCaptureFixture) -> None:
    stream = ScriptedStream(1)
    put(stream, 5)
    spark = query(stream, initial=str(at_timestamp(as_time(stream.now + 60))))
    for _ in range(3):
        assert not spark.step()
    put(stream, 5, begin=5)
    assert caplog.text.count("is in the future") == 1, "said once, not at every trigger"
    stream.now += 60
    wanted = put(stream, 5, begin=10)
    spark.restart()
    spark.drain()
    assert spark.values == wanted


def test_a_run_until_drained_that_starts_in_the_future_is_refused() -> None:
    stream = ScriptedStream(1)
    spark = query(stream, initial=str(at_timestamp(as_time(stream.now + 60))), ends_at_tip=True)
    with pytest.raises(SourceConfigurationError, match=r"in the future, so a query that ends .* would read nothing"):
        spark.step()


@pytest.mark.parametrize("options", [{}, {"max_records": 40}, {"max_seconds": 7}])
def test_a_clock_of_the_servers_that_is_slow_does_not_end_a_query(options: dict[str, int]) -> None:
    stream = ScriptedStream(1)
    begin = stream.now
    wanted = put(stream, 300, every=0.1)
    spark = query(stream, initial=str(at_timestamp(as_time(begin))), **options)
    spark.client.slow_clock = 2.5
    spark.drain()
    assert spark.values == wanted


def test_a_start_time_that_one_of_the_servers_clocks_has_not_reached_is_waited_for() -> None:
    stream = ScriptedStream(2)
    put(stream, 5)
    stream.split("shardId-000000000000")
    spark = query(stream, initial=str(at_timestamp(as_time(stream.now))))
    spark.client.slow_clock = 5
    spark.drain()
    stream.now += 5
    wanted = put(stream, 5, begin=5)
    stream.now += 1
    spark.restart()
    spark.drain()
    assert spark.values == wanted


def test_explicit_positions_take_over_from_another_consumer() -> None:
    stream = ScriptedStream(1)
    records = [stream.put("k", f"{number:06}") for number in range(10)]
    spark = query(stream, initial="SHARDS", starting_shards={"shardId-000000000000": after(str(records[3].number))})
    spark.drain()
    assert spark.values == [record.data.decode() for record in records[4:]]


def test_explicit_positions_leave_out_what_lies_before_them_and_nothing_else() -> None:
    stream = ScriptedStream(2)
    old = put(stream, 4, key="a")
    parent = next(shard for shard in stream.shards.values() if shard.records)
    other = next(shard for shard in stream.shards.values() if not shard.records)
    left, right = stream.split(parent.shard_id)
    stream.put("x", "left-1", left)
    first = stream.put("x", "left-0", left)
    stream.put("x", "right", right)
    stream.put("x", "left-2", left)
    stream.put("x", "other", other.shard_id)
    spark = query(stream, initial="SHARDS", starting_shards={left: after(str(first.number))})
    spark.drain()
    assert sorted(spark.values) == ["left-2", "other", "right"]
    assert not set(old) & set(spark.values)


def test_an_explicit_position_in_an_unknown_shard_is_refused() -> None:
    stream = ScriptedStream(1)
    spark = query(stream, initial="SHARDS", starting_shards={"shardId-000000000099": TRIM_HORIZON})
    with pytest.raises(SourceConfigurationError, match="no shard shardId-000000000099"):
        spark.step()


def test_an_explicit_end_of_an_open_shard_is_refused() -> None:
    stream = ScriptedStream(1)
    spark = query(stream, initial="SHARDS", starting_shards={"shardId-000000000000": SHARD_END})
    with pytest.raises(SourceConfigurationError, match="shardId-000000000000 is open, so SHARD_END is no position"):
        spark.step()


def test_an_explicit_position_from_before_the_shards_start_is_refused() -> None:
    stream = ScriptedStream(1)
    spark = query(stream, initial="SHARDS", starting_shards={"shardId-000000000000": after("5")})
    with pytest.raises(SourceConfigurationError, match="starts after 5, which is a position in an earlier stream"):
        spark.step()


def test_a_closed_parent_is_read_before_its_children() -> None:
    stream = ScriptedStream(1)
    put(stream, 5)
    left, right = stream.split("shardId-000000000000")
    put(stream, 5, begin=5)
    spark = query(stream)
    assert spark.step()
    assert {shard for shard, _, _ in spark.rows[0]} == {"shardId-000000000000"}
    spark.drain()
    assert {shard for shard, _, _ in spark.rows[1]} <= {left, right}
    assert len(spark.values) == 10


def test_a_merged_shard_waits_for_both_parents() -> None:
    stream = ScriptedStream(2)
    for shard in list(stream.shards):
        for number in range(6):
            stream.put("x", f"{shard}-{number}", shard)
    child = stream.merge("shardId-000000000000", "shardId-000000000001")
    stream.put("x", "child", child)
    spark = query(stream, max_records=4)
    spark.drain()
    assert spark.values[-1] == "child"
    assert len(spark.values) == 13


def test_several_reshards_while_the_job_is_down_lose_nothing() -> None:
    stream = ScriptedStream(1)
    spark = query(stream)
    wanted = put(stream, 5)
    spark.drain()
    wanted += put(stream, 5, begin=5)
    left, _ = stream.split("shardId-000000000000")
    wanted += put(stream, 5, begin=10)
    stream.split(left)
    wanted += put(stream, 5, begin=15)
    spark.restart()
    spark.drain()
    assert sorted(spark.values) == wanted


def test_a_closed_shard_leaves_the_offset_only_when_aws_no_longer_lists_it() -> None:
    stream = ScriptedStream(1)
    put(stream, 5)
    stream.split("shardId-000000000000")
    spark = query(stream)
    spark.drain()
    assert parse_offset(spark.offsets[-1], "s").shards["shardId-000000000000"] == SHARD_END
    for turn in range(7):
        stream.now += DAY / 6
        put(stream, 1, begin=5 + turn)
        spark.drain()
    assert "shardId-000000000000" not in parse_offset(spark.offsets[-1], "s").shards
    assert len(spark.values) == 12


@pytest.mark.parametrize("with_start", [False, True])
def test_an_exact_cap_in_records_is_never_exceeded(with_start: bool) -> None:
    stream = ScriptedStream(2)
    for shard in list(stream.shards):
        for number in range(100):
            stream.put("x", f"{shard}-{number}", shard)
    spark = query(stream, max_records=30, exact_caps=True, with_start=with_start)
    spark.drain()
    assert max(len(rows) for rows in spark.rows.values()) <= 30
    assert len(spark.values) == 200


def test_an_exact_cap_in_bytes_is_never_exceeded() -> None:
    stream = ScriptedStream(1)
    for number in range(50):
        stream.put("x", "v" * 1000 + str(number))
    spark = query(stream, max_bytes=10_500, exact_caps=True)
    spark.drain()
    assert max(len(rows) for rows in spark.rows.values()) <= 10
    assert len(spark.values) == 50


def test_a_record_larger_than_the_cap_is_read_all_the_same() -> None:
    stream = ScriptedStream(1)
    for number in range(3):
        stream.put("x", "v" * 1000 + str(number))
    spark = query(stream, max_bytes=10)
    spark.drain()
    assert len(spark.values) == 3


def test_a_cap_in_seconds_takes_a_days_backlog_piece_by_piece() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 1000, every=60)
    spark = query(stream, max_seconds=3600)
    spark.drain()
    assert max(len(rows) for rows in spark.rows.values()) <= 62
    assert spark.values == wanted


def test_an_ending_is_not_passed_although_producers_go_on() -> None:
    stream = ScriptedStream(2)
    wanted = put(stream, 20, key="a") + put(stream, 20, key="b", begin=20)
    ending = query(stream).planner.tip()
    put(stream, 20, key="a", begin=40)
    for caps in ({}, {"max_records": 7}):
        spark = query(stream, ending=ending, **caps)
        spark.drain()
        put(stream, 5, key="b", begin=60)
        spark.drain()
        assert sorted(spark.values) == wanted


def test_a_query_that_ends_at_the_tip_finds_it_once_when_it_starts() -> None:
    stream = ScriptedStream(2)
    wanted = put(stream, 20, key="a") + put(stream, 20, key="b", begin=20)
    spark = query(stream, ends_at_tip=True, max_records=7)
    while spark.step():
        put(stream, 1, key="a", begin=40 + len(spark.offsets))
    assert sorted(spark.values) == wanted
    assert len(spark.offsets) >= 5


def test_an_ending_holds_when_the_shard_is_split_after_it() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 20)
    ending = query(stream).planner.tip()
    put(stream, 20, begin=20)
    stream.split("shardId-000000000000")
    put(stream, 20, begin=40)
    spark = query(stream, ending=ending)
    spark.drain()
    assert spark.values == wanted


def test_the_tip_of_a_resharded_stream_is_the_end_of_parents_and_the_tip_of_children() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 10)
    stream.split("shardId-000000000000")
    wanted += put(stream, 10, begin=10)
    ending = query(stream).planner.tip()
    assert ending.shards["shardId-000000000000"] == SHARD_END
    put(stream, 10, begin=20)
    spark = query(stream, ending=ending)
    spark.drain()
    assert spark.values == wanted


def test_an_idle_stream_makes_no_batches_but_for_one_now_and_then_as_a_proof() -> None:
    stream = ScriptedStream(1)
    put(stream, 1)
    spark = query(stream)
    spark.drain()
    for _ in range(24 * 60):
        stream.now += 60
        spark.step()
    assert 1 < len(spark.offsets) <= 6


def test_a_thousand_shards_are_planned_with_two_or_three_calls_each() -> None:
    stream = ScriptedStream(1000)
    for shard in list(stream.shards):
        stream.put("x", "1", shard)
        stream.now += 0.001
        stream.put("x", "2", shard)
    spark = query(stream)
    assert spark.plan()
    calls = sum(count for name, count in spark.client.calls.items() if name.startswith("shardId"))
    assert calls <= 2.5 * 1000
    assert len(spark.reader.partitions(json.loads(spark.start_of(0)), json.loads(spark.offsets[0]))) < 10


def test_small_ranges_share_a_task_in_order_and_large_ones_do_not() -> None:
    sizes = [10, 10, 500, 95, 10, None]
    parts = [ShardRange(f"shard-{place}", TRIM_HORIZON, after("5"), bytes=size) for place, size in enumerate(sizes)]
    tasks = group_ranges(parts, 100)
    assert sorted(part.shard_id for task in tasks for part in task) == [part.shard_id for part in parts]
    assert sorted(len(task) for task in tasks) == [1, 1, 2, 2] or sorted(len(task) for task in tasks) == [1, 1, 1, 1, 2]
    assert all(sum(part.bytes or 0 for part in task) <= 100 or len(task) == 1 for task in tasks)
    assert [len(task) for task in group_ranges(parts, 0)] == [1] * 6


def test_the_small_ranges_of_a_drained_run_share_a_task() -> None:
    stream = ScriptedStream(4)
    for shard in stream.shards:
        for number in range(20):
            stream.put("x", f"{number}", shard)
    ending = query(stream).planner.tip()
    for shard in stream.shards:
        stream.put("x", "later", shard)
    spark = query(stream, ending=ending)
    assert spark.plan()
    (task,) = spark.reader.partitions(json.loads(spark.start_of(0)), json.loads(spark.offsets[0]))
    assert [part.records for part in task.ranges] == [20] * 4
    assert all(part.bytes for part in task.ranges)
    assert "later" not in spark.run_batch()


def test_a_child_listed_with_a_parent_that_has_expired_is_readable() -> None:
    graph = ShardGraph([Shard("c", parents=("gone",)), Shard("d", parents=("c",))])
    assert graph.readable({"c": TRIM_HORIZON, "d": TRIM_HORIZON}) == ("c",)
    assert graph.readable({"c": SHARD_END, "d": TRIM_HORIZON}) == ("d",)
    assert graph.joining({"d": TRIM_HORIZON}) == ()


def test_a_capped_backlog_is_planned_without_reading_it_twice() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 40_000, every=0.01)
    stream.now += 5
    spark = query(stream, max_records=1000)
    headers = 0
    original = spark.client.headers

    def counted(iterator: str, limit: int) -> Any:
        nonlocal headers
        page = original(iterator, limit)
        headers += len(page.records)
        return page

    spark.client.headers = counted  # type: ignore[method-assign]
    spark.drain()
    assert spark.values == wanted
    assert headers < 0.2 * 40_000
    sizes = [len(rows) for rows in spark.rows.values()]
    assert max(sizes) <= 1_200
    assert len(sizes) <= 45
