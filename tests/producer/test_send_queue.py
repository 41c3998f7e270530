"""The send queue under every order of outcomes: no record lost or duplicated, each key's order kept."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.put_records import THROTTLED, PutResult
from producer.record_encoder import PutRecordsEntry, size_of
from producer.send_queue import SendQueue
from producer.shard_rates import ShardRates
from tests.helpers.examples import examples

OK = PutResult("1", "shardId-0")


def record(key: str, number: int, size: int = 10) -> PutRecordsEntry:
    return PutRecordsEntry(str(number).encode().rjust(size), key)


def send_queue(**arguments: Any) -> SendQueue[str]:
    return SendQueue(jitter=random.Random(1), **arguments)


def drain(queue: SendQueue[str], now: float = 0.0) -> list[list[PutRecordsEntry]]:
    """Completes requests until the queue returns none; returns their records."""
    requests = []
    while (request := queue.next_request(now)) is not None:
        requests.append(list(request.records))
        queue.complete(request)
    return requests


def test_records_that_were_added_together_are_one_request() -> None:
    queue = send_queue()
    records = [record(str(number), number) for number in range(500)]
    queue.add(records, "owner")
    request = queue.next_request(0)
    assert (request.records, request.owners) == (records, ["owner"] * 500)
    assert queue.next_request(0) is None
    assert not queue.empty
    assert queue.complete(request) == ["owner"] * 500
    assert queue.empty


def test_records_of_one_key_are_never_in_one_request_nor_in_two_at_once() -> None:
    queue = send_queue()
    queue.add([record("a", 1), record("b", 1), record("a", 2)], "x")
    queue.add([record("a", 3), record("c", 1)], "x")
    first, second = queue.next_request(0), queue.next_request(0)
    assert [one.PartitionKey for one in first.records] == ["a", "b", "c"]
    assert second is None
    queue.complete(first)
    assert [[int(one.Data) for one in request] for request in drain(queue)] == [[2], [3]]


@pytest.mark.parametrize("outcome", ["complete", "complete_each", "retry", "retry_unknown", "discard"])
def test_the_keys_of_the_only_request_in_flight_are_busy_until_its_outcome(outcome: str) -> None:
    queue = send_queue()
    queue.add([record("a", 1)], "x")
    alone = queue.next_request(0)
    queue.add([record("a", 2)], "x")
    queue.add([record("b", 1)], "x")
    assert [one.PartitionKey for one in queue.next_request(0).records] == ["b"]
    if outcome == "complete_each":
        queue.complete_each(alone, [PutResult(error="InternalFailure")], 0)
    elif outcome in ("retry", "retry_unknown"):
        getattr(queue, outcome)(alone, 0)
    else:
        getattr(queue, outcome)(alone)
    again = [] if outcome in ("complete", "discard") else [[1]]
    assert [[int(one.Data) for one in request] for request in drain(queue, 1)] == [*again, [2]]


@pytest.mark.parametrize("failure", ["retry", "retry_unknown"])
def test_the_only_request_in_flight_is_retried_before_later_records_of_its_keys(failure: str) -> None:
    queue = send_queue()
    queue.add([record("a", 1)], "x")
    getattr(queue, failure)(queue.next_request(0), 0)
    queue.add([record("a", 2)], "x")
    assert queue.next_request(0) is None
    assert [[int(one.Data) for one in request] for request in drain(queue, 1)] == [[1], [2]]


def test_without_keep_order_requests_are_full() -> None:
    queue = send_queue(keep_order=False)
    queue.add([record("a", number) for number in range(700)], "x")
    assert [len(request) for request in drain(queue)] == [500, 200]


def test_a_failed_record_is_retried_before_later_records_of_its_key() -> None:
    queue = send_queue()
    queue.add([record("a", 1), record("b", 1)], "x")
    queue.add([record("a", 2)], "x")
    request = queue.next_request(0)
    assert queue.complete_each(request, [PutResult(error="InternalFailure"), OK], 0) == ["x"]
    assert queue.next_request(0) is None, "the back-off is not over"
    due = queue.next_due(0)
    assert 0 < due <= 0.1
    assert [[int(one.Data) for one in request] for request in drain(queue, due)] == [[1], [2]]


def test_the_back_off_grows_with_each_failure_up_to_a_limit() -> None:
    queue = send_queue()
    queue.add([record("a", 1)], "x")
    now, waits = 0.0, []
    for _ in range(12):
        queue.retry(queue.next_request(now), now)
        waits.append(queue.next_due(now) - now)
        now += waits[-1]
    assert all(0.01 <= wait <= 5 for wait in waits)
    assert sum(waits[-3:]) > sum(waits[:3])
    assert queue.counts.retried == 12


def test_requests_stay_below_max_bytes_and_a_larger_record_is_sent_alone() -> None:
    queue = send_queue(max_bytes=100)
    queue.add(
        [record(str(number), number, 40) for number in range(4)] + [record("big", 9, 400), record("x", 1, 1)], "x"
    )
    requests = drain(queue)
    assert [len(request) for request in requests] == [2, 2, 1, 1]
    assert all(size_of(request) <= 100 or len(request) == 1 for request in requests)


def test_only_a_request_with_unknown_outcome_counts_as_possible_duplicates() -> None:
    queue = send_queue()
    queue.add([record("a", 1), record("b", 1)], "x")
    queue.retry(queue.next_request(0), 0)
    assert queue.counts.possible_duplicates == 0
    queue.retry_unknown(queue.next_request(9), 9)
    assert queue.counts.possible_duplicates == 2
    queue.complete(queue.next_request(20))
    assert (queue.counts.accepted, queue.empty) == (2, True)


def test_only_the_shard_that_throttles_is_slowed_down() -> None:
    class Halves(ShardRates):
        def shard_of(self, key: str) -> str:
            return key[0]

    queue = send_queue(rates=Halves())
    queue.add([record(f"a{n}", n) for n in range(250)] + [record(f"b{n}", n) for n in range(250)], "x")
    request = queue.next_request(0)
    queue.complete_each(request, [PutResult(error=THROTTLED)] * 250 + [OK] * 250, 0)
    queue.add([record(f"b{n}", n) for n in range(250)] + [record(f"a{n}", n) for n in range(250)], "x")

    assert {one.PartitionKey[0] for one in queue.next_request(0.001).records} == {"b"}
    at = {}
    for tick in range(2, 2000):
        if (request := queue.next_request(tick / 1000)) is not None:
            at[tick / 1000] = len(request.records)
            queue.complete(request)
    # 500 records of the shard at 1,000/s take half a second.
    assert sum(at.values()) == 500
    assert 0.3 < max(at) < 0.8
    assert queue.counts.throttled == 250


def test_a_throttled_request_delays_all_records() -> None:
    queue = send_queue()
    queue.add([record("a", 1)], "x")
    queue.add([record("b", 1)], "x")
    queue.retry(queue.next_request(0), 0, throttled=True)
    assert queue.next_request(0.001) is None
    due = queue.next_due(0.001)
    assert 0.01 <= due <= 0.1
    assert len(drain(queue, due)) == 1


@settings(max_examples=examples(200), deadline=None)
@given(
    keys=st.lists(st.sampled_from("abcdefg"), max_size=60),
    chunk=st.integers(1, 20),
    max_records=st.integers(1, 10),
    max_bytes=st.integers(10, 200),
    max_in_flight=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_every_record_arrives_once_and_each_key_in_order_whatever_fails(
    keys: list[str], chunk: int, max_records: int, max_bytes: int, max_in_flight: int, seed: int
) -> None:
    chance = random.Random(seed)
    queue = send_queue(max_records=max_records, max_bytes=max_bytes)
    records = [record(key, number) for number, key in enumerate(keys)]
    for start in range(0, len(records), chunk):
        queue.add(records[start : start + chunk], f"owner {start}")

    arrived: list[PutRecordsEntry] = []
    owners: list[str] = []
    in_flight = []
    now = 0.0
    for _ in range(5000):
        if queue.empty:
            break
        now += chance.uniform(0, 0.5)
        if len(in_flight) < max_in_flight and (request := queue.next_request(now)) is not None:
            assert len(request.records) <= max_records
            assert size_of(request.records) <= max_bytes or len(request.records) == 1
            busy = {one.PartitionKey for other in in_flight for one in other.records}
            assert busy.isdisjoint(one.PartitionKey for one in request.records)
            in_flight.append(request)
            continue
        if not in_flight:
            now = max(now, queue.next_due(now) or now)
            continue
        request = in_flight.pop(chance.randrange(len(in_flight)))
        outcome = chance.random()
        if outcome < 0.2:
            queue.retry(request, now, throttled=chance.random() < 0.5)
        elif outcome < 0.5:
            results = [OK if chance.random() < 0.6 else PutResult(error=THROTTLED) for _ in request.records]
            arrived += [one for one, result in zip(request.records, results, strict=True) if result.error is None]
            owners += queue.complete_each(request, results, now)
        else:
            arrived += request.records
            owners += queue.complete(request)

    assert queue.empty
    assert sorted(int(one.Data) for one in arrived) == list(range(len(keys)))
    for key in set(keys):
        of_key = [int(one.Data) for one in arrived if one.PartitionKey == key]
        assert of_key == sorted(of_key)
    assert owners == [f"owner {int(one.Data) // chunk * chunk}" for one in arrived]


@pytest.mark.parametrize("rate", [200.0, 1000.0])
def test_the_rate_of_a_shard_converges_to_its_limit(rate: float) -> None:
    rates = ShardRates()
    tokens, accepted, failed = rate, 0, 0
    for tick in range(3000):
        now = tick * 0.02
        tokens = min(rate, tokens + 0.02 * rate)
        sent = next(count for count in range(501) if count == 500 or not rates.admit("s", now))
        passed = min(sent, int(tokens))
        tokens -= passed
        accepted += passed
        failed += sent - passed
        if sent > passed:
            rates.throttled("s", (sent - passed) / sent, 400, now)
    assert accepted > 0.85 * rate * 60
    assert failed < 0.25 * accepted
