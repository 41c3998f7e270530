"""A shard's 2 MB/s and 5 calls/s, and a batch's cap: what the planner and each reader take of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from spark_kinesis.batch_limits import Cap
from spark_kinesis.client import Page, RecordHeader
from spark_kinesis.errors import StreamAccessError
from spark_kinesis.offset import TRIM_HORIZON, Position, ShardRange, after, at_timestamp
from spark_kinesis.options import KinesisOptions
from spark_kinesis.planner import Planner
from spark_kinesis.rate_limiter import RateLimiter
from tests.helpers.fake_spark import SHARD, FakeSpark, put, query, reader, values
from tests.helpers.scripted import ScriptedClient, ScriptedStream, as_time

# What is read twice: by the planner, to find the tip, and by the readers


@dataclass
class Planned:
    """What planning cost, and what it found, over some triggers."""

    read_bytes: int = 0
    put_bytes: int = 0
    calls: int = 0
    estimated_bytes: int = 0


def steady(
    *, trigger: float, rate: float, triggers: int = 8, size: int = 900, lag_unknown: bool = False, late: float = 0.137
) -> Planned:
    """A stream of `rate` records a second, planned every `trigger` seconds; `late` moves the trigger in its second."""
    stream = ScriptedStream(1)
    put(stream, 10)
    spark = query(stream)
    spark.client.lag_unknown = lag_unknown
    spark.drain()
    found = Planned()
    original = spark.client.headers

    def counted(iterator: str, limit: int) -> Page[RecordHeader]:
        page = original(iterator, limit)
        found.read_bytes += page.body_bytes
        return page

    spark.client.headers = counted  # type: ignore[method-assign]
    for turn in range(triggers):
        if turn == 1:  # the first one has yet to learn what the stream is like
            found.read_bytes = found.put_bytes = found.calls = 0
        count = int((trigger + late) * rate)
        for _ in range(count):
            stream.put("k", "v" * size)
            stream.now += 1 / rate - 0.001
        calls = spark.client.calls[SHARD]
        assert spark.plan()
        found.calls += spark.client.calls[SHARD] - calls
        found.put_bytes += count * size
        found.estimated_bytes = json.loads(spark.offsets[-1])["bytes"][SHARD]
        assert len(spark.run_batch()) == count, "the batch ends at the tip"
        spark.commit()
    return found


@pytest.mark.parametrize(("trigger", "rate"), [(1, 500), (2, 300), (5, 50), (5, 500), (8, 200), (12, 200)])
def test_of_a_steady_stream_the_planner_reads_about_half_a_second_a_trigger(trigger: int, rate: int) -> None:
    found = steady(trigger=trigger, rate=rate)
    assert found.read_bytes <= 0.65 / trigger * found.put_bytes
    assert found.calls <= 2.3 * 7


def test_at_any_place_in_its_second_a_trigger_reads_no_more_than_that_second() -> None:
    for late in (0.0, 0.25, 0.5, 0.95):
        found = steady(trigger=5 - late, rate=500, late=late, triggers=3)
        assert found.read_bytes <= 0.21 * found.put_bytes


def test_a_trickle_is_planned_with_one_call_a_trigger() -> None:
    found = steady(trigger=5, rate=4)
    assert found.calls == 7


def test_what_a_batch_holds_is_estimated_by_the_rate_near_the_tip() -> None:
    for trigger in (5, 30):
        found = steady(trigger=trigger, rate=200, triggers=3)
        actual = int((trigger + 0.137) * 200) * 900
        assert 0.7 * actual <= found.estimated_bytes <= 1.4 * actual


@pytest.mark.parametrize("rate", [4, 100])
def test_where_the_server_does_not_say_how_far_it_is_behind_the_tip_takes_few_calls_too(rate: int) -> None:
    assert steady(trigger=5, rate=rate, lag_unknown=True).calls <= 3 * 7


class Strict(ScriptedClient):
    """Tells no lag, and refuses a sequence number that is not a record's own, as kinesis-mock does."""

    def iterator(self, shard_id: str, position: Position, *, inclusive: bool = False) -> str:
        numbers = {record.number for record in self.stream.shards[shard_id].records}
        if position.is_record and position.number not in numbers:
            raise StreamAccessError("ResourceNotFoundException: Record for provided SequenceNumber not found")
        return super().iterator(shard_id, position, inclusive=inclusive)


@pytest.mark.parametrize("cap", [{}, {"max_records": 120}, {"max_seconds": 100}])
def test_a_server_that_tells_no_lag_and_knows_only_records_own_numbers_is_read(cap: dict[str, int]) -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 400, every=1)
    options = KinesisOptions(stream="s", initial="TRIM_HORIZON", records_per_call=50, **cap)  # type: ignore[arg-type]
    spark = FakeSpark(options, Strict(stream, lag_unknown=True), with_start=False)
    spark.drain()
    assert spark.values == wanted
    assert max(len(rows) for rows in spark.rows.values()) <= min(cap.values(), default=400)


# Calls


def test_the_planner_makes_at_most_three_calls_in_any_second_and_two_in_the_long_run() -> None:
    now, calls = [100.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    limiter = RateLimiter(2.0, clock=lambda: now[0], sleep=sleep)
    for pause in [0.0] * 12 + [30.0] + [0.0] * 5 + [0.7, 0.1, 0.0, 0.0, 0.3, 0.0, 0.0]:
        now[0] += pause
        limiter.wait("shard")
        calls.append(now[0])
    assert max(sum(1 for call in calls if begin <= call < begin + 1) for begin in calls) == 3
    assert calls[2] == calls[0], "a trigger's first three calls need not wait"
    assert calls[11] - calls[0] >= (12 - 3) / 2.0


def test_each_shard_has_a_rate_of_its_own_and_the_option_sets_it() -> None:
    waited: list[float] = []
    limiter = RateLimiter(1000.0, clock=lambda: 0.0, sleep=waited.append)
    for _ in range(500):
        limiter.wait("a")
    slow = RateLimiter(0.5, clock=lambda: 0.0, sleep=waited.append)
    slow.wait("a")
    slow.wait("b")
    assert waited == []
    slow.wait("a")
    slow.wait("a")
    assert waited == [2.0]


def test_a_planner_keeps_to_its_rate() -> None:
    stream = ScriptedStream(1)
    put(stream, 20_000, every=0.1)
    client = ScriptedClient(stream)
    times: list[float] = []
    client.after_call = lambda name: times.append(stream.now) if name == SHARD else None
    options = KinesisOptions(stream="s", initial="TRIM_HORIZON", max_records=9_000, records_per_call=1_000)

    def sleep(seconds: float) -> None:
        stream.now += seconds

    planner = Planner(
        options, client, clock=lambda: stream.now, limiter=RateLimiter(2.0, clock=lambda: stream.now, sleep=sleep)
    )
    planner.latest(options.initial_offset, cap=Cap(records=9_000))
    planner.close()
    assert len(times) >= 9
    assert max(sum(1 for call in times if begin <= call < begin + 1) for begin in times) == 3


class Sparse(ScriptedClient):
    """A shard whose first answers are empty although records are ahead, as AWS gives them in a sparse stretch."""

    empty = 40

    def _get(self, iterator: str, limit: int) -> Any:
        if self.calls.get(SHARD, 0) < self.empty:
            self._called(SHARD)
            return [], iterator, 5000, False
        return super()._get(iterator, limit)


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_reader_makes_at_most_four_calls_a_second_where_answers_are_empty(prefetch: bool) -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 30)
    client = Sparse(stream)
    times: list[float] = []
    client.after_call = lambda name: times.append(stream.now) if name == SHARD else None
    last = stream.shards[SHARD].records[-1]
    part = ShardRange(SHARD, TRIM_HORIZON, after(str(last.number)))
    assert values(reader(client, prefetch=prefetch).read(part)) == wanted
    assert len(times) == 41
    assert max(sum(1 for call in times if begin <= call < begin + 1) for begin in times) <= 4


def test_a_reader_does_not_wait_where_pages_hold_records() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 300)
    begin = stream.now
    last = stream.shards[SHARD].records[-1]
    part = ShardRange(SHARD, TRIM_HORIZON, after(str(last.number)))
    assert values(reader(ScriptedClient(stream), records_per_call=7).read(part)) == wanted
    assert stream.now == begin


# A batch's cap


def loaded(shards: int, *, records: int, others: int = 0) -> ScriptedStream:
    """One shard with a backlog, and `others` records in each of the others."""
    stream = ScriptedStream(shards)
    for shard in list(stream.shards):
        for number in range(records if shard == SHARD else others):
            stream.put("x", f"{shard}-{number:06}", shard)
    stream.now += 100
    return stream


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("others", [0, 1, 6])
def test_shards_that_have_little_leave_the_cap_to_those_that_have_more(others: int, exact: bool) -> None:
    spark = query(loaded(20, records=3000, others=others), max_records=1000, exact_caps=exact)
    spark.drain()
    sizes = [len(rows) for rows in spark.rows.values()]
    assert sum(sizes) == 3000 + 19 * others
    assert min(sizes[:3]) >= 900
    assert max(sizes) <= 1000 or not exact


def test_one_loaded_shard_among_a_hundred_fills_the_batches_alone() -> None:
    spark = query(loaded(100, records=5000), max_records=1000)
    spark.drain()
    assert [len(rows) for rows in spark.rows.values()] == [1000] * 5
    assert spark.client.calls[SHARD] <= 4 * 5, "counted once up to the whole cap, not bit by bit"


def test_a_capped_shard_whose_iterator_has_expired_is_opened_again_where_its_density_does_not_reach() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 150)
    spark = query(stream, max_records=120)
    assert spark.step()
    stream.now += 400
    spark.drain()
    assert spark.values == wanted


def test_an_idle_shard_costs_one_call_a_trigger_while_another_is_drained() -> None:
    stream = loaded(3, records=5000)
    spark = query(stream, max_records=1000)
    while spark.step():
        stream.now += 5
    assert {spark.client.calls[f"shardId-00000000000{shard}"] for shard in (1, 2)} == {len(spark.offsets) + 1}


@pytest.mark.parametrize("cap", [{"max_records": 50}, {"max_bytes": 900}, {"max_records": 70, "max_bytes": 900}])
def test_exact_caps_hold_in_sum_over_unevenly_loaded_shards(cap: dict[str, int]) -> None:
    stream = ScriptedStream(8)
    for place, shard in enumerate(stream.shards):
        for number in range(3**place % 200):
            stream.put("x", f"{shard[-3:]}-{number:06}", shard)
            stream.now += 0.05
    spark = query(stream, exact_caps=True, **cap)
    spark.drain()
    batches = list(spark.rows.values())
    assert sum(len(rows) for rows in batches) == sum(3**place % 200 for place in range(8))
    assert max(len(rows) for rows in batches) <= cap.get("max_records", 10**9)
    assert max(sum(len(value) for _, _, value in rows) for rows in batches) <= cap.get("max_bytes", 10**9)


def test_an_exact_cap_holds_for_the_batch_that_starts_at_a_time() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 100)
    spark = query(stream, initial=str(at_timestamp(as_time(stream.now - 3600))), max_records=30, exact_caps=True)
    spark.drain()
    assert spark.values == wanted
    assert [len(rows) for rows in spark.rows.values()] == [30, 30, 30, 10]


@pytest.mark.parametrize("lag_unknown", [False, True])
@pytest.mark.parametrize("others", [{}, {"max_records": 40}])
def test_a_cap_in_seconds_holds_where_the_server_does_not_say_how_far_it_is_behind(
    lag_unknown: bool, others: dict[str, int]
) -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 300, every=60)
    spark = query(stream, max_seconds=3600, **others)
    spark.client.lag_unknown = lag_unknown
    spark.drain()
    assert spark.values == wanted
    assert max(len(rows) for rows in spark.rows.values()) <= others.get("max_records", 62)


def test_what_a_batch_of_so_many_seconds_holds_is_estimated_by_the_rate() -> None:
    stream = ScriptedStream(1)
    for _ in range(2000):
        stream.put("k", "v" * 900)
        stream.now += 0.5
    spark = query(stream, max_seconds=300)
    assert spark.plan()
    assert json.loads(spark.offsets[0])["bytes"][SHARD] == pytest.approx(600 * 900, rel=0.1)
    assert len(spark.run_batch()) == pytest.approx(600, rel=0.02)
