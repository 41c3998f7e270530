"""The queue under every order of answers: nothing lost, nothing doubled, each key's order kept."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.put_records import THROTTLED, PutResult
from producer.record_encoder import Record, size_of
from producer.send_queue import SendQueue
from producer.shard_rates import ShardRates

OK = PutResult("1", "shardId-0")


def record(key: str, number: int, size: int = 10) -> Record:
    return Record(str(number).encode().rjust(size), key)


def queue(**arguments) -> SendQueue[str]:
    return SendQueue(jitter=random.Random(1), **arguments)


def drain(box: SendQueue[str], now: float = 0.0) -> list[list[Record]]:
    """Takes and accepts batches until nothing is left."""
    batches = []
    while (batch := box.take(now)) is not None:
        batches.append(list(batch.records))
        box.accepted(batch)
    return batches


def test_a_chunk_goes_out_as_it_came():
    box = queue()
    records = [record(str(number), number) for number in range(500)]
    box.add(records, "owner")
    batch = box.take(0)
    assert (batch.records, batch.owners) == (records, ["owner"] * 500)
    assert box.take(0) is None
    assert not box.empty
    assert box.accepted(batch) == ["owner"] * 500
    assert box.empty


def test_records_of_one_key_are_never_in_one_request_nor_in_two_at_once():
    box = queue()
    box.add([record("a", 1), record("b", 1), record("a", 2)], "x")
    box.add([record("a", 3), record("c", 1)], "x")
    first, second = box.take(0), box.take(0)
    assert [one.PartitionKey for one in first.records] == ["a", "b", "c"]
    assert second is None
    box.accepted(first)
    assert [[int(one.Data) for one in batch] for batch in drain(box)] == [[2], [3]]


@pytest.mark.parametrize("outcome", ["accepted", "answered", "refused", "unknown", "dropped"])
def test_the_keys_of_the_only_batch_under_way_are_busy_until_its_outcome(outcome):
    box = queue()
    box.add([record("a", 1)], "x")
    alone = box.take(0)
    box.add([record("a", 2)], "x")
    box.add([record("b", 1)], "x")
    assert [one.PartitionKey for one in box.take(0).records] == ["b"]
    if outcome == "answered":
        box.answered(alone, [PutResult(error="InternalFailure")], 0)
    elif outcome in ("refused", "unknown"):
        getattr(box, outcome)(alone, 0)
    else:
        getattr(box, outcome)(alone)
    again = [] if outcome in ("accepted", "dropped") else [[1]]
    assert [[int(one.Data) for one in batch] for batch in drain(box, 1)] == [*again, [2]]


@pytest.mark.parametrize("failure", ["refused", "unknown"])
def test_a_batch_that_failed_alone_goes_before_later_records_of_its_keys(failure):
    box = queue()
    box.add([record("a", 1)], "x")
    getattr(box, failure)(box.take(0), 0)
    box.add([record("a", 2)], "x")
    assert box.take(0) is None
    assert [[int(one.Data) for one in batch] for batch in drain(box, 1)] == [[1], [2]]


def test_without_order_a_request_is_as_full_as_it_can_be():
    box = queue(keep_order=False)
    box.add([record("a", number) for number in range(700)], "x")
    assert [len(batch) for batch in drain(box)] == [500, 200]


def test_a_record_that_failed_goes_before_later_ones_of_its_key():
    box = queue()
    box.add([record("a", 1), record("b", 1)], "x")
    box.add([record("a", 2)], "x")
    batch = box.take(0)
    assert box.answered(batch, [PutResult(error="InternalFailure"), OK], 0) == ["x"]
    assert box.take(0) is None, "backed off"
    due = box.next_time(0)
    assert 0 < due <= 0.1
    assert [[int(one.Data) for one in batch] for batch in drain(box, due)] == [[1], [2]]


def test_back_off_grows_with_each_failure_up_to_a_bound():
    box = queue()
    box.add([record("a", 1)], "x")
    now, waits = 0.0, []
    for _ in range(12):
        box.refused(box.take(now), now)
        waits.append(box.next_time(now) - now)
        now += waits[-1]
    assert all(0.01 <= wait <= 5 for wait in waits)
    assert sum(waits[-3:]) > sum(waits[:3])
    assert box.counts.retried == 12


def test_requests_stay_under_the_limit_of_bytes_and_a_larger_record_goes_alone():
    box = queue(max_bytes=100)
    box.add([record(str(number), number, 40) for number in range(4)] + [record("big", 9, 400), record("x", 1, 1)], "x")
    batches = drain(box)
    assert [len(batch) for batch in batches] == [2, 2, 1, 1]
    assert all(size_of(batch) <= 100 or len(batch) == 1 for batch in batches)


def test_only_a_request_of_unknown_outcome_counts_as_possible_duplicates():
    box = queue()
    box.add([record("a", 1), record("b", 1)], "x")
    box.refused(box.take(0), 0)
    assert box.counts.possible_duplicates == 0
    box.unknown(box.take(9), 9)
    assert box.counts.possible_duplicates == 2
    box.accepted(box.take(20))
    assert (box.counts.accepted, box.empty) == (2, True)


def test_a_shard_that_throttles_is_slowed_down_and_the_others_are_not():
    class Halves(ShardRates):
        def shard_of(self, key: str) -> str:
            return key[0]

    box = queue(rates=Halves())
    box.add([record(f"a{n}", n) for n in range(250)] + [record(f"b{n}", n) for n in range(250)], "x")
    batch = box.take(0)
    box.answered(batch, [PutResult(error=THROTTLED)] * 250 + [OK] * 250, 0)
    box.add([record(f"b{n}", n) for n in range(250)] + [record(f"a{n}", n) for n in range(250)], "x")

    assert {one.PartitionKey[0] for one in box.take(0.001).records} == {"b"}
    at = {}
    for tick in range(2, 2000):
        if (batch := box.take(tick / 1000)) is not None:
            at[tick / 1000] = len(batch.records)
            box.accepted(batch)
    # 500 records of the shard at 1,000 a second: not at once, and not forever.
    assert sum(at.values()) == 500
    assert 0.3 < max(at) < 0.8
    assert box.counts.throttled == 250


def test_a_throttle_of_the_whole_stream_makes_everything_wait():
    box = queue()
    box.add([record("a", 1)], "x")
    box.add([record("b", 1)], "x")
    box.refused(box.take(0), 0, throttled=True)
    assert box.take(0.001) is None
    due = box.next_time(0.001)
    assert 0.01 <= due <= 0.1
    assert len(drain(box, due)) == 1


@settings(max_examples=200, deadline=None)
@given(
    keys=st.lists(st.sampled_from("abcdefg"), max_size=60),
    chunk=st.integers(1, 20),
    max_records=st.integers(1, 10),
    max_bytes=st.integers(10, 200),
    max_in_flight=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_whatever_fails_every_record_arrives_once_and_each_key_in_order(
    keys, chunk, max_records, max_bytes, max_in_flight, seed
):
    chance = random.Random(seed)
    box = queue(max_records=max_records, max_bytes=max_bytes)
    records = [record(key, number) for number, key in enumerate(keys)]
    for start in range(0, len(records), chunk):
        box.add(records[start : start + chunk], f"owner {start}")

    arrived: list[Record] = []
    owners: list[str] = []
    under_way = []
    now = 0.0
    for _ in range(5000):
        if box.empty:
            break
        now += chance.uniform(0, 0.5)
        if len(under_way) < max_in_flight and (batch := box.take(now)) is not None:
            assert len(batch.records) <= max_records
            assert size_of(batch.records) <= max_bytes or len(batch.records) == 1
            busy = {one.PartitionKey for other in under_way for one in other.records}
            assert busy.isdisjoint(one.PartitionKey for one in batch.records)
            under_way.append(batch)
            continue
        if not under_way:
            now = max(now, box.next_time(now) or now)
            continue
        batch = under_way.pop(chance.randrange(len(under_way)))
        what = chance.random()
        if what < 0.2:
            box.refused(batch, now, throttled=chance.random() < 0.5)
        elif what < 0.5:
            placed = [OK if chance.random() < 0.6 else PutResult(error=THROTTLED) for _ in batch.records]
            arrived += [one for one, where in zip(batch.records, placed, strict=True) if where.error is None]
            owners += box.answered(batch, placed, now)
        else:
            arrived += batch.records
            owners += box.accepted(batch)

    assert box.empty
    assert sorted(int(one.Data) for one in arrived) == list(range(len(keys)))
    for key in set(keys):
        of_key = [int(one.Data) for one in arrived if one.PartitionKey == key]
        assert of_key == sorted(of_key)
    assert owners == [f"owner {int(one.Data) // chunk * chunk}" for one in arrived]


@pytest.mark.parametrize("rate", [200.0, 1000.0])
def test_the_pace_of_a_shard_settles_near_what_it_takes(rate):
    rates = ShardRates()
    tokens, accepted, refused = rate, 0, 0
    for tick in range(3000):
        now = tick * 0.02
        tokens = min(rate, tokens + 0.02 * rate)
        sent = next(count for count in range(501) if count == 500 or not rates.admit("s", now))
        taken = min(sent, int(tokens))
        tokens -= taken
        accepted += taken
        refused += sent - taken
        if sent > taken:
            rates.throttled("s", (sent - taken) / sent, 400, now)
    assert accepted > 0.85 * rate * 60
    assert refused < 0.25 * accepted
