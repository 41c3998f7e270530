"""Decides which records go into the next PutRecords request, and when a failed record is sent again.

In: records with their owners, and the outcome of each request. Out: `OutgoingRequest`s, for `sender` and `api_batcher`.
The queue does no I/O, starts no threads and gets the time from its caller, so tests can try every order of outcomes.

PutRecords does not keep the order within a request: it may accept a record and reject an earlier one of the same
partition key. With `keep_order` a key is therefore busy from the moment one of its records is in a request until that
record is accepted. Later records of the key wait; records of other keys overtake them.
Source: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
"""

from __future__ import annotations

import heapq
import itertools
import operator
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from producer.put_records import MAX_RECORDS, PutResult, is_throttle
from producer.record_encoder import MAX_KEY_CHARACTERS, PutRecordsEntry
from producer.shard_rates import ShardRates

Owner = TypeVar("Owner")

# A character is at most 4 bytes of UTF-8.
_MAX_KEY_BYTES = 4 * MAX_KEY_CHARACTERS
_FIRST_BACK_OFF_SECONDS = 0.1
_MAX_BACK_OFF_SECONDS = 5.0


@dataclass(slots=True)
class OutgoingRequest(Generic[Owner]):
    """The records of one request, the owner of each record, and the number of earlier attempts."""

    records: list[PutRecordsEntry]
    owners: list[Owner]
    attempts: int = 0
    # Set once they are known: the distinct partition keys, and the size of the data.
    keys: set[str] | None = None
    data_bytes: int | None = None


@dataclass(slots=True)
class SendCounts:
    """Counts of records (`requests`: of requests) since the start of the queue.

    `retried` counts each further attempt of a record; `possible_duplicates` are the retries after a request whose
    outcome is unknown.
    """

    accepted: int = 0
    accepted_bytes: int = 0
    requests: int = 0
    throttled: int = 0
    retried: int = 0
    possible_duplicates: int = 0


class _Entry(NamedTuple):
    record: PutRecordsEntry
    owner: Any
    attempts: int


@dataclass(order=True, slots=True)
class _Retry:
    due: float
    number: int
    entries: list[_Entry] = field(compare=False)


class SendQueue(Generic[Owner]):
    """Records that wait, are in flight, or are due for a retry. Not thread-safe.

    `next_request` returns every added record until it is accepted. For each request the caller reports the outcome
    with exactly one of `complete`, `complete_each`, `retry`, `retry_unknown` or `discard`. A record is dropped
    before it is sent if `is_cancelled` is true of its owner. Times are seconds of any one monotonic clock.
    """

    def __init__(
        self,
        *,
        keep_order: bool = True,
        max_bytes: int = 5 * 1024 * 1024,
        max_records: int = MAX_RECORDS,
        rates: ShardRates | None = None,
        jitter: random.Random | None = None,
        is_cancelled: Callable[[Owner], bool] | None = None,
    ) -> None:
        self.counts = SendCounts()
        self.rates = rates or ShardRates()
        # Records that are not in flight.
        self.waiting = 0
        self._in_flight = 0
        self._paused_until = 0.0
        self._keep_order = keep_order
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._jitter = jitter or random.Random()  # noqa: S311  (spreads retries; guards nothing)
        self._is_cancelled = is_cancelled
        self._retry_numbers = itertools.count()

        # New records: as they were added, then one by one.
        self._added: deque[OutgoingRequest[Owner]] = deque()
        self._new: deque[_Entry] = deque()
        # The keys that one record holds, which is in flight or in one of the next four collections.
        self._busy_keys: set[str] = set()
        # The only request in flight. Its keys are not in `_busy_keys` until another record could conflict with them.
        self._lone_request: OutgoingRequest[Owner] | None = None
        self._unblocked: deque[_Entry] = deque()
        self._rate_limited: dict[str, deque[_Entry]] = {}
        self._ready: deque[_Entry] = deque()
        self._retries: list[_Retry] = []
        # Later records of a busy key, in their order.
        self._waiting_for_key: dict[str, deque[_Entry]] = {}

    @property
    def empty(self) -> bool:
        """Whether every added record was accepted, cancelled or discarded."""
        return self.waiting == 0 and self._in_flight == 0

    def add(self, records: Sequence[PutRecordsEntry], owner: Owner) -> None:
        """Adds records in the order in which they are to be sent. The queue returns `owner` with each of them."""
        self.add_each(records, [owner] * len(records))

    def add_each(self, records: Sequence[PutRecordsEntry], owners: Sequence[Owner]) -> None:
        """Adds records that have one owner each."""
        if records:
            self._added.append(OutgoingRequest(list(records), list(owners)))
            self.waiting += len(records)

    def next_request(self, now: float) -> OutgoingRequest[Owner] | None:
        """The next request to send; None if no record may be sent yet (see `next_due`) or none is left."""
        if now < self._paused_until:
            return None
        request = self._take_added() or self._build_request(now)
        if request is not None:
            self.waiting -= len(request.records)
            self._in_flight += len(request.records)
            self.counts.requests += 1
        return request

    def _take_added(self) -> OutgoingRequest[Owner] | None:
        """Records as they were added, if they can be one request unchanged. This fast path serves most records."""
        others = self._unblocked or self._ready or self._new or self._retries or self.rates.active or self._is_cancelled
        if others or not self._added:
            return None
        request = self._added[0]
        if request.data_bytes is None:
            request.data_bytes = sum(map(len, map(_data, request.records)))
        count = len(request.records)
        if count > self._max_records or request.data_bytes + count * _MAX_KEY_BYTES > self._max_bytes:
            return None
        if self._keep_order:
            keys = request.keys or set(map(_key, request.records))
            request.keys = keys
            if len(keys) < len(request.records):
                return None
            if not (self._busy_keys or self._in_flight):
                self._lone_request = request
            else:
                self._mark_lone_keys_busy()
                if not keys.isdisjoint(self._busy_keys):
                    return None
                self._busy_keys |= keys
        return self._added.popleft()

    def _mark_lone_keys_busy(self) -> None:
        """Must run before `_busy_keys` is read or changed for another request."""
        if self._lone_request is not None:
            self._busy_keys |= self._lone_request.keys or set()
            self._lone_request = None

    def _build_request(self, now: float) -> OutgoingRequest[Owner] | None:
        """A request that is filled record by record: first the records that had to wait, then new ones."""
        self._mark_lone_keys_busy()
        while self._retries and self._retries[0].due <= now:
            self._unblocked.extend(heapq.heappop(self._retries).entries)
        for shard, entries in list(self._rate_limited.items()):
            while entries and self.rates.admit(shard, now):
                self._ready.append(entries.popleft())
            if not entries:
                del self._rate_limited[shard]

        request: OutgoingRequest[Owner] = OutgoingRequest([], [])
        size = 0
        while len(request.records) < self._max_records:
            entry = self._next_entry(now)
            if entry is None:
                break
            size += len(entry.record.Data) + len(entry.record.PartitionKey.encode())
            if size > self._max_bytes and request.records:
                self._ready.appendleft(entry)
                break
            request.records.append(entry.record)
            request.owners.append(entry.owner)
            request.attempts = max(request.attempts, entry.attempts)
        return request if request.records else None

    def _next_entry(self, now: float) -> _Entry | None:
        """The next record that may be sent now. Drops cancelled records and sets those of a slow shard aside."""
        if self._ready:
            return self._ready.popleft()
        while (entry := self._unblocked.popleft() if self._unblocked else self._next_new_entry()) is not None:
            if self._is_cancelled is not None and self._is_cancelled(entry.owner):
                self.waiting -= 1
                self._release_keys([entry.record])
                continue
            if not self.rates.active:
                return entry
            shard = self.rates.shard_of(entry.record.PartitionKey)
            if shard not in self._rate_limited and self.rates.admit(shard, now):
                return entry
            self._rate_limited.setdefault(shard, deque()).append(entry)
        return None

    def _next_new_entry(self) -> _Entry | None:
        """The next new record whose key is not busy. Marks its key as busy."""
        while True:
            if not self._new:
                if not self._added:
                    return None
                added = self._added.popleft()
                self._new.extend(map(_Entry, added.records, added.owners, itertools.repeat(0)))
            entry = self._new.popleft()
            key = entry.record.PartitionKey
            if not self._keep_order:
                return entry
            if key not in self._busy_keys:
                self._busy_keys.add(key)
                return entry
            self._waiting_for_key.setdefault(key, deque()).append(entry)

    def next_due(self, now: float) -> float | None:
        """The time from which `next_request` may return a request without a further outcome; None if never."""
        times = [self._retries[0].due] if self._retries else []
        times += [self.rates.ready_at(shard, now) for shard in self._rate_limited]
        if self.waiting and now < self._paused_until:
            return self._paused_until
        return min(times) if times else None

    def complete(self, request: OutgoingRequest[Owner]) -> list[Owner]:
        """Kinesis accepted every record. Returns the owners, one for each record."""
        self._in_flight -= len(request.records)
        self.counts.accepted += len(request.records)
        if request.data_bytes is None:
            request.data_bytes = sum(map(len, map(_data, request.records)))
        self.counts.accepted_bytes += request.data_bytes
        if request is self._lone_request:
            self._lone_request = None
        elif request.keys is not None and not self._waiting_for_key:
            self._busy_keys -= request.keys
        else:
            self._release_keys(request.records)
        return request.owners

    def complete_each(self, request: OutgoingRequest[Owner], results: Sequence[PutResult], now: float) -> list[Owner]:
        """Kinesis answered with one result a record. Schedules the failed ones again.

        Returns the owners of the accepted records only: of 500 records with 3 failures, 497 owners.
        """
        accepted = [index for index, result in enumerate(results) if result.error is None]
        failed = [index for index, result in enumerate(results) if result.error is not None]
        self._slow_down_shards(request.records, [index for index in failed if is_throttle(results[index].error)], now)
        self._count_accepted([request.records[index] for index in accepted])
        self._schedule_retry(request, failed, now)
        return [request.owners[index] for index in accepted]

    def retry(self, request: OutgoingRequest[Owner], now: float, *, throttled: bool = False) -> None:
        """The request failed and none of its records is on the stream. Schedules all of them again.

        `throttled`: Kinesis throttled the whole request, so the other records wait for the same time.
        """
        due = self._schedule_retry(request, range(len(request.records)), now)
        if throttled:
            self.counts.throttled += len(request.records)
            self._paused_until = max(self._paused_until, due)

    def retry_unknown(self, request: OutgoingRequest[Owner], now: float) -> None:
        """The request failed and its records may be on the stream. Schedules all again; duplicates are possible."""
        self.counts.possible_duplicates += len(request.records)
        self._schedule_retry(request, range(len(request.records)), now)

    def discard(self, request: OutgoingRequest[Owner]) -> None:
        """Gives the records up. The caller tells their owners."""
        self._in_flight -= len(request.records)
        self._release_keys(request.records)

    def _slow_down_shards(self, records: Sequence[PutRecordsEntry], throttled: Sequence[int], now: float) -> None:
        if not throttled:
            return
        self.counts.throttled += len(throttled)
        average = sum(map(len, map(_data, records))) / len(records)
        failed = Counter(self.rates.shard_of(records[index].PartitionKey) for index in throttled)
        sent = Counter(self.rates.shard_of(record.PartitionKey) for record in records)
        for shard, count in failed.items():
            self.rates.throttled(shard, count / sent[shard], average, now)

    def _count_accepted(self, records: Sequence[PutRecordsEntry]) -> None:
        self._in_flight -= len(records)
        self.counts.accepted += len(records)
        self.counts.accepted_bytes += sum(map(len, map(_data, records)))
        self._release_keys(records)

    def _release_keys(self, records: Sequence[PutRecordsEntry]) -> None:
        """Passes each record's key to the next record that waits for it, if there is one."""
        if not self._keep_order:
            return
        self._mark_lone_keys_busy()
        keys = list(map(_key, records))
        if not self._waiting_for_key:
            self._busy_keys.difference_update(keys)
            return
        for key in keys:
            waiting = self._waiting_for_key.get(key)
            if waiting is None:
                self._busy_keys.discard(key)
                continue
            self._unblocked.append(waiting.popleft())
            if not waiting:
                del self._waiting_for_key[key]

    def _schedule_retry(self, request: OutgoingRequest[Owner], indexes: Sequence[int], now: float) -> float:
        """Schedules these records of the request for one later attempt. Returns its time."""
        self._mark_lone_keys_busy()
        if not indexes:
            return now
        self.counts.retried += len(indexes)
        self._in_flight -= len(indexes)
        self.waiting += len(indexes)
        # Full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
        longest = min(_MAX_BACK_OFF_SECONDS, _FIRST_BACK_OFF_SECONDS * 2 ** min(request.attempts, 10))
        due = now + self._jitter.uniform(longest / 10, longest)
        entries = [_Entry(request.records[index], request.owners[index], request.attempts + 1) for index in indexes]
        heapq.heappush(self._retries, _Retry(due, next(self._retry_numbers), entries))
        return due


_data = operator.attrgetter("Data")
_key = operator.attrgetter("PartitionKey")
