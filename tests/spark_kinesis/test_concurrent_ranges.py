"""The ranges of one task, several fetched at once: their order, their latency and their memory."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from spark_kinesis import reader as reading
from spark_kinesis.concurrent_ranges import Source, fetch_concurrently
from spark_kinesis.offset import TRIM_HORIZON, ShardRange, after
from spark_kinesis.reader import MAX_CONCURRENT
from tests.helpers.fake_spark import reader, values
from tests.helpers.scripted import ScriptedClient, ScriptedStream


def numbers(count: int, made: Callable[[], object] = lambda: None) -> Source[int]:
    for number in range(count):
        made()
        yield number


def until_quiet(seen: Callable[[], int]) -> int:
    """The value of `seen` once it no longer changes."""
    before, since, deadline = -1, time.monotonic(), time.monotonic() + 60
    while time.monotonic() - since < 0.3:
        if seen() != before:
            before, since = seen(), time.monotonic()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return before


@pytest.mark.parametrize("most", [0, 1, 7, 10_000])
def test_items_come_in_their_sources_order_whatever_each_takes(most: int) -> None:
    chance = random.Random(most)
    counts = [chance.randint(0, 30) for _ in range(12)]

    def pause() -> None:
        time.sleep(chance.random() / 5000)

    got = list(
        fetch_concurrently(
            [numbers(count, pause) for count in counts], lambda item: item, max_concurrent=4, max_bytes=most
        )
    )
    assert got == [number for count in counts for number in range(count)]


def test_what_waits_is_bounded_however_much_each_source_has() -> None:
    made = []
    taken = fetch_concurrently(
        [numbers(1000, lambda: made.append(1)) for _ in range(10)], lambda _: 10, max_concurrent=4, max_bytes=200
    )
    for turn in range(3000):
        next(taken)
        if turn in (0, 1500, 2999):
            # 20 items that wait, one of the current source, and one each that three others fetched when there was room.
            assert until_quiet(lambda: len(made)) <= turn + 1 + 20 + 1 + 3
    taken.close()  # type: ignore[attr-defined]


def test_threads_end_when_nobody_wants_more() -> None:
    before = set(threading.enumerate())
    taken = fetch_concurrently([numbers(1000) for _ in range(10)], lambda _: 10, max_concurrent=4, max_bytes=200)
    next(taken)
    started = set(threading.enumerate()) - before
    assert len(started) == 4
    taken.close()  # type: ignore[attr-defined]
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()


def test_an_error_comes_in_its_sources_turn() -> None:
    def failing() -> Source[int]:
        yield 7
        raise ValueError("broken")

    taken = fetch_concurrently([numbers(2), failing(), numbers(2)], lambda _: 1, max_concurrent=4, max_bytes=100)
    assert [next(taken), next(taken), next(taken)] == [0, 1, 7]
    with pytest.raises(ValueError, match="broken"):
        next(taken)


def shards(count: int, records: int) -> tuple[ScriptedClient, list[ShardRange], list[str]]:
    stream = ScriptedStream(count)
    parts, wanted = [], []
    for place, (shard_id, shard) in enumerate(stream.shards.items()):
        for number in range(records):
            stream.put("x", f"{place:02}-{number:04}", shard_id)
            wanted.append(f"{place:02}-{number:04}")
        parts.append(ShardRange(shard_id, TRIM_HORIZON, after(str(shard.records[-1].number)), bytes=10))
    return ScriptedClient(stream), parts, wanted


def test_a_tasks_small_ranges_are_fetched_at_the_same_time() -> None:
    client, parts, wanted = shards(8, 3)
    barrier = threading.Barrier(MAX_CONCURRENT)
    client.after_call = lambda name: None if name == "iterator" else barrier.wait(60) and None
    assert values(reader(client).read_all(parts)) == wanted


def test_ranges_that_turn_out_large_are_not_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PREFETCH_BYTES", 5_000)
    client, parts, wanted = shards(6, 1000)
    pages: list[Any] = []
    client.after_call = lambda name: None if name == "iterator" else pages.append(name)
    batches = reader(client, records_per_call=10).read_all(parts)
    got = [next(batches)]
    page = got[0].nbytes
    # The pages that may wait, the current range's next page, and one that each other range fetched when there was room.
    assert until_quiet(lambda: len(pages)) <= 1 + 5_000 // page + 1 + (MAX_CONCURRENT - 1)
    assert values([*got, *batches]) == wanted
