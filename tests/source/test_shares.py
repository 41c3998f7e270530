"""A shard's 2 MB/s and 5 calls/s, and a batch's cap: what the planner and each reader take of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from jobs.source.kinesis.client import Head, Page
from tests.source.scripted import ScriptedStream
from tests.source.test_planning import put, query

SHARD = "shardId-000000000000"


# What is read twice: by the planner, to find the tip, and by the readers


@dataclass
class Planned:
    """What planning cost, and what it found, over some triggers."""

    read_bytes: int = 0
    put_bytes: int = 0
    calls: int = 0
    estimated_bytes: int = 0


def steady(
    *, trigger: float, rate: float, triggers: int = 8, size: int = 900, silent: bool = False, late: float = 0.137
) -> Planned:
    """A stream of `rate` records a second, planned every `trigger` seconds; `late` moves the trigger in its second."""
    stream = ScriptedStream(1)
    put(stream, 10)
    spark = query(stream)
    spark.client.silent = silent
    spark.drain()
    found = Planned()
    original = spark.client.heads

    def counted(iterator: str, limit: int) -> Page[Head]:
        page = original(iterator, limit)
        found.read_bytes += page.body_bytes
        return page

    spark.client.heads = counted  # type: ignore[method-assign]
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
    assert steady(trigger=5, rate=rate, silent=True).calls <= 3 * 7
