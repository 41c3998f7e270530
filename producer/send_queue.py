"""What is to be sent and in which order: batches out, outcomes in. Between `records` and `put_request`.

Pure decisions: no I/O, no threads, no clock of its own, so that every order of answers can be tested.

PutRecords gives no order within a request: one record may fail while a later one of the same partition key is
taken. So with `keep_order` a key is busy from the moment a record of it is handed out until that record is
accepted, and later records of the key wait. Records of other keys pass them by.
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
from producer.record_encoder import MAX_KEY_CHARACTERS, Record
from producer.shard_rates import ShardRates

Owner = TypeVar("Owner")

# A character of a key is at most 4 bytes of UTF-8.
_KEY_BYTES_AT_MOST = 4 * MAX_KEY_CHARACTERS
_BACK_OFF_FIRST = 0.1
_BACK_OFF_LONGEST = 5.0


@dataclass(slots=True)
class OutgoingRequest(Generic[Owner]):
    """Records for one request, who wants to know of each, and how often they have been tried before."""

    records: list[Record]
    owners: list[Owner]
    attempts: int = 0
    # Known where it was needed already: the distinct keys, and the bytes of data.
    keys: set[str] | None = None
    data_bytes: int | None = None


@dataclass(slots=True)
class SendCounts:
    """What happened so far. `possible_duplicates`: sent again after a request whose outcome is unknown."""

    accepted: int = 0
    accepted_bytes: int = 0
    requests: int = 0
    throttled: int = 0
    retried: int = 0
    possible_duplicates: int = 0


class _Entry(NamedTuple):
    record: Record
    owner: Any
    attempts: int


@dataclass(order=True, slots=True)
class _Retry:
    due: float
    turn: int
    entries: list[_Entry] = field(compare=False)


class SendQueue(Generic[Owner]):
    """Records that wait, are under way, or are to be tried again.

    Every record that `add` was given is handed out by `take` until it is accepted; whoever takes a batch tells what
    came of it by one of `accepted`, `answered`, `refused`, `unknown` or `dropped`. A record whose owner is no longer
    `wanted` is left out when its turn comes.
    """

    def __init__(
        self,
        *,
        keep_order: bool = True,
        max_bytes: int = 5 * 1024 * 1024,
        max_records: int = MAX_RECORDS,
        rates: ShardRates | None = None,
        jitter: random.Random | None = None,
        wanted: Callable[[Owner], bool] | None = None,
    ) -> None:
        self.counts = SendCounts()
        self.rates = rates or ShardRates()
        # Records that are not under way: new, held back, or to be tried again.
        self.waiting = 0
        self._under_way = 0
        self._paused_until = 0.0
        self._keep_order = keep_order
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._jitter = jitter or random.Random()  # noqa: S311  (spreads retries; guards nothing)
        self._wanted = wanted
        self._turns = itertools.count()
        self._segments: deque[OutgoingRequest[Owner]] = deque()
        self._fresh: deque[_Entry] = deque()
        # A key in `_busy` belongs to one record, which is under way or in one of the four places below. The keys of
        # `_alone`, a batch that is the only one under way, are added once another record might meet them.
        self._busy: set[str] = set()
        self._alone: OutgoingRequest[Owner] | None = None
        self._ready: deque[_Entry] = deque()
        self._admitted: deque[_Entry] = deque()
        self._held: dict[str, deque[_Entry]] = {}
        self._retries: list[_Retry] = []
        # Later records of a busy key, in order.
        self._behind: dict[str, deque[_Entry]] = {}

    @property
    def empty(self) -> bool:
        """Whether every record that was added has been accepted."""
        return self.waiting == 0 and self._under_way == 0

    def add(self, records: Sequence[Record], owner: Owner) -> None:
        """Takes records to be sent, in order; `owner` comes back with each."""
        self.add_each(records, [owner] * len(records))

    def add_each(self, records: Sequence[Record], owners: Sequence[Owner]) -> None:
        """`add` of records that have an owner each."""
        if records:
            self._segments.append(OutgoingRequest(list(records), list(owners)))
            self.waiting += len(records)

    def take(self, now: float) -> OutgoingRequest[Owner] | None:
        """The next request's records; None where nothing may be sent yet (see `next_time`) or nothing is left."""
        if now < self._paused_until:
            return None
        batch = self._take_segment() or self._collect(now)
        if batch is not None:
            self.waiting -= len(batch.records)
            self._under_way += len(batch.records)
            self.counts.requests += 1
        return batch

    def _take_segment(self) -> OutgoingRequest[Owner] | None:
        """A segment as it was added, where it can be a request as it stands: the way of nearly every record."""
        special = self._ready or self._admitted or self._fresh or self._retries or self.rates.active or self._wanted
        if special or not self._segments:
            return None
        segment = self._segments[0]
        if segment.data_bytes is None:
            segment.data_bytes = sum(map(len, map(_data, segment.records)))
        count = len(segment.records)
        if count > self._max_records or segment.data_bytes + count * _KEY_BYTES_AT_MOST > self._max_bytes:
            return None
        if self._keep_order:
            keys = segment.keys or set(map(_key, segment.records))
            segment.keys = keys
            if len(keys) < len(segment.records):
                return None
            if not (self._busy or self._under_way):
                self._alone = segment
            else:
                self._not_alone()
                if not keys.isdisjoint(self._busy):
                    return None
                self._busy |= keys
        return self._segments.popleft()

    def _not_alone(self) -> None:
        """Marks the keys of the batch that is under way alone as busy, before anything else is done with keys."""
        if self._alone is not None:
            self._busy |= self._alone.keys or set()
            self._alone = None

    def _collect(self, now: float) -> OutgoingRequest[Owner] | None:
        """A request put together record by record: those tried before or held back first, then new ones."""
        self._not_alone()
        while self._retries and self._retries[0].due <= now:
            self._ready.extend(heapq.heappop(self._retries).entries)
        for shard, lane in list(self._held.items()):
            while lane and self.rates.admit(shard, now):
                self._admitted.append(lane.popleft())
            if not lane:
                del self._held[shard]

        batch: OutgoingRequest[Owner] = OutgoingRequest([], [])
        size = 0
        while len(batch.records) < self._max_records:
            entry = self._next(now)
            if entry is None:
                break
            size += len(entry.record.Data) + len(entry.record.PartitionKey.encode())
            if size > self._max_bytes and batch.records:
                self._admitted.appendleft(entry)
                break
            batch.records.append(entry.record)
            batch.owners.append(entry.owner)
            batch.attempts = max(batch.attempts, entry.attempts)
        return batch if batch.records else None

    def _next(self, now: float) -> _Entry | None:
        """The next record that may be sent now; those that may not are put where they wait."""
        if self._admitted:
            return self._admitted.popleft()
        while (entry := self._ready.popleft() if self._ready else self._next_fresh()) is not None:
            if self._wanted is not None and not self._wanted(entry.owner):
                self.waiting -= 1
                self._free([entry.record])
                continue
            if not self.rates.active:
                return entry
            shard = self.rates.shard_of(entry.record.PartitionKey)
            if shard not in self._held and self.rates.admit(shard, now):
                return entry
            self._held.setdefault(shard, deque()).append(entry)
        return None

    def _next_fresh(self) -> _Entry | None:
        """The next new record whose key is free; takes the key."""
        while True:
            if not self._fresh:
                if not self._segments:
                    return None
                segment = self._segments.popleft()
                self._fresh.extend(map(_Entry, segment.records, segment.owners, itertools.repeat(0)))
            entry = self._fresh.popleft()
            key = entry.record.PartitionKey
            if not self._keep_order:
                return entry
            if key not in self._busy:
                self._busy.add(key)
                return entry
            self._behind.setdefault(key, deque()).append(entry)

    def next_time(self, now: float) -> float | None:
        """When `take` may have something again though nothing is answered until then; None: only an answer helps."""
        times = [self._retries[0].due] if self._retries else []
        times += [self.rates.ready_at(shard, now) for shard in self._held]
        if self.waiting and now < self._paused_until:
            return self._paused_until
        return min(times) if times else None

    def accepted(self, batch: OutgoingRequest[Owner]) -> list[Owner]:
        """Every record of the batch is on the stream. Returns the owners, one a record."""
        self._under_way -= len(batch.records)
        self.counts.accepted += len(batch.records)
        if batch.data_bytes is None:
            batch.data_bytes = sum(map(len, map(_data, batch.records)))
        self.counts.accepted_bytes += batch.data_bytes
        if batch is self._alone:
            self._alone = None
        elif batch.keys is not None and not self._behind:
            self._busy -= batch.keys
        else:
            self._free(batch.records)
        return batch.owners

    def answered(self, batch: OutgoingRequest[Owner], placed: Sequence[PutResult], now: float) -> list[Owner]:
        """Some may have failed: `placed` says which. Returns the owners of those that are on the stream."""
        done = [index for index, where in enumerate(placed) if where.error is None]
        failed = [index for index, where in enumerate(placed) if where.error is not None]
        self._learn(batch.records, [index for index in failed if is_throttle(placed[index].error)], now)
        self._settle([batch.records[index] for index in done])
        self._try_again(batch, failed, now)
        return [batch.owners[index] for index in done]

    def refused(self, batch: OutgoingRequest[Owner], now: float, *, throttled: bool = False) -> None:
        """The request failed, and surely none of its records is on the stream.

        `throttled`: the stream or the account as a whole was asked too much, so everything else waits as well.
        """
        due = self._try_again(batch, range(len(batch.records)), now)
        if throttled:
            self.counts.throttled += len(batch.records)
            self._paused_until = max(self._paused_until, due)

    def unknown(self, batch: OutgoingRequest[Owner], now: float) -> None:
        """The request failed, and its records may be on the stream: sent again, they may stand there twice."""
        self.counts.possible_duplicates += len(batch.records)
        self._try_again(batch, range(len(batch.records)), now)

    def dropped(self, batch: OutgoingRequest[Owner]) -> None:
        """The batch is given up; whoever took it tells the owners."""
        self._under_way -= len(batch.records)
        self._free(batch.records)

    def _learn(self, records: Sequence[Record], throttled: Sequence[int], now: float) -> None:
        if not throttled:
            return
        self.counts.throttled += len(throttled)
        average = sum(map(len, map(_data, records))) / len(records)
        refused = Counter(self.rates.shard_of(records[index].PartitionKey) for index in throttled)
        sent = Counter(self.rates.shard_of(record.PartitionKey) for record in records)
        for shard, count in refused.items():
            self.rates.throttled(shard, count / sent[shard], average, now)

    def _settle(self, records: Sequence[Record]) -> None:
        self._under_way -= len(records)
        self.counts.accepted += len(records)
        self.counts.accepted_bytes += sum(map(len, map(_data, records)))
        self._free(records)

    def _free(self, records: Sequence[Record]) -> None:
        """The records' keys are free: for the next record of each that waits behind it, or altogether."""
        if not self._keep_order:
            return
        self._not_alone()
        keys = list(map(_key, records))
        if not self._behind:
            self._busy.difference_update(keys)
            return
        for key in keys:
            lane = self._behind.get(key)
            if lane is None:
                self._busy.discard(key)
                continue
            self._ready.append(lane.popleft())
            if not lane:
                del self._behind[key]

    def _try_again(self, batch: OutgoingRequest[Owner], indexes: Sequence[int], now: float) -> float:
        """Puts records back for a later attempt; returns when that is due."""
        self._not_alone()
        if not indexes:
            return now
        self.counts.retried += len(indexes)
        self._under_way -= len(indexes)
        self.waiting += len(indexes)
        # Full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
        longest = min(_BACK_OFF_LONGEST, _BACK_OFF_FIRST * 2 ** min(batch.attempts, 10))
        due = now + self._jitter.uniform(longest / 10, longest)
        entries = [_Entry(batch.records[index], batch.owners[index], batch.attempts + 1) for index in indexes]
        heapq.heappush(self._retries, _Retry(due, next(self._turns), entries))
        return due


_data = operator.attrgetter("Data")
_key = operator.attrgetter("PartitionKey")
