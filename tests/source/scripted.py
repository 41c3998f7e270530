"""A Kinesis stream in memory that behaves as AWS documents, on a clock that the test moves.

56-digit sequence numbers with gaps; iterators that expire after 5 minutes; null iterators at a closed shard's
end; empty and partial answers with data ahead; records that expire silently; faults on demand.
"""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import md5

import msgspec

from jobs.contract.errors import TransientError
from jobs.source.kinesis.client import (
    ExpiredIteratorError,
    Head,
    Page,
    PositionGoneError,
    Record,
    StreamSummary,
    ThrottledError,
)
from jobs.source.kinesis.position import Kind, Position
from jobs.source.kinesis.shards import Shard

FIRST_SEQUENCE = 49680503127535665729593405367196750428598015925342437378
HASHES = 2**128


@dataclass
class Stored:
    number: int
    arrival: float
    key: str
    data: bytes


@dataclass
class ScriptedShard:
    shard_id: str
    low: int
    high: int
    parents: tuple[str, ...]
    starting: int
    records: list[Stored] = field(default_factory=list)
    ending: int | None = None
    closed_at: float | None = None


class ScriptedStream:
    """The stream itself: what producers and operators do to it. `seed` decides gaps and partial answers."""

    def __init__(
        self, shards: int = 2, *, seed: int = 0, start: float = 1_764_000_000.0, retention_hours: int = 24
    ) -> None:
        self.now = start
        self.created_at = start
        self.retention_hours = retention_hours
        self.random = random.Random(seed)
        self.shards: dict[str, ScriptedShard] = {}
        self._next = FIRST_SEQUENCE
        for number in range(shards):
            self._add(HASHES * number // shards, HASHES * (number + 1) // shards - 1, ())

    def _number(self) -> int:
        self._next += self.random.randint(1, 2**40)
        return self._next

    def _add(self, low: int, high: int, parents: tuple[str, ...]) -> ScriptedShard:
        shard = ScriptedShard(f"shardId-{len(self.shards):012}", low, high, parents, self._number())
        self.shards[shard.shard_id] = shard
        return shard

    @property
    def open(self) -> list[ScriptedShard]:
        return sorted((each for each in self.shards.values() if each.ending is None), key=lambda each: each.low)

    def put(self, key: str, value: str, shard_id: str | None = None) -> Stored:
        place = int.from_bytes(md5(key.encode(), usedforsecurity=False).digest())
        shard = (
            self.shards[shard_id] if shard_id else next(each for each in self.open if each.low <= place <= each.high)
        )
        assert shard.ending is None
        record = Stored(self._number(), self.now, key, value.encode())
        shard.records.append(record)
        self.now += 0.001
        return record

    def split(self, shard_id: str) -> tuple[str, str]:
        shard = self.shards[shard_id]
        self._close(shard)
        middle = (shard.low + shard.high) // 2
        left = self._add(shard.low, middle, (shard_id,))
        right = self._add(middle + 1, shard.high, (shard_id,))
        return left.shard_id, right.shard_id

    def merge(self, left_id: str, right_id: str) -> str:
        left, right = self.shards[left_id], self.shards[right_id]
        assert left.high + 1 == right.low
        self._close(left)
        self._close(right)
        return self._add(left.low, right.high, (left_id, right_id)).shard_id

    def _close(self, shard: ScriptedShard) -> None:
        assert shard.ending is None
        shard.ending = self._number()
        shard.closed_at = self.now

    @property
    def trimmed_before(self) -> float:
        return self.now - self.retention_hours * 3600

    def left(self, shard: ScriptedShard) -> list[Stored]:
        return [record for record in shard.records if record.arrival >= self.trimmed_before]

    def listed(self) -> list[ScriptedShard]:
        return [
            shard for shard in self.shards.values() if shard.closed_at is None or shard.closed_at >= self.trimmed_before
        ]


@dataclass
class _Iterator:
    shard_id: str
    after: int
    opened_at: float


class ScriptedClient:
    """A `StreamClient` on a `ScriptedStream`.

    calls      GetRecords calls by shard, GetShardIterator under `iterator`, the others under their names
    faults     exceptions to raise, one for each coming call, before it does anything; None lets a call pass
    ragged     answers are partial and now and then empty although data is ahead, as AWS allows
    silent     MillisBehindLatest is always 0, as kinesalite answers
    strict     GetShardIterator refuses a sequence number that has expired (else: silently the oldest record)
    """

    def __init__(
        self, stream: ScriptedStream, *, ragged: bool = False, strict: bool = False, silent: bool = False
    ) -> None:
        self.stream = stream
        self.ragged = ragged
        self.strict = strict
        self.silent = silent
        self.calls: dict[str, int] = {}
        self.answered = 0
        self.faults: list[Exception | None] = []
        self.after_call: Callable[[str], None] = lambda _name: None
        self._iterators: dict[str, _Iterator] = {}

    def _called(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.after_call(name)

    def list_shards(self) -> list[Shard]:
        self._called("list_shards")
        return [
            Shard(
                each.shard_id,
                tuple(parent for parent in each.parents),
                str(each.starting),
                None if each.ending is None else str(each.ending),
            )
            for each in self.stream.listed()
        ]

    def summary(self) -> StreamSummary:
        self._called("summary")
        return StreamSummary(self.stream.retention_hours, as_time(self.stream.created_at))

    def iterator(self, shard_id: str, position: Position, *, inclusive: bool = False) -> str:
        self._called("iterator")
        if shard_id not in {each.shard_id for each in self.stream.listed()}:
            raise PositionGoneError(f"Shard {shard_id} does not exist")
        shard = self.stream.shards[shard_id]
        after = 0
        if position.kind is Kind.AFTER:
            gone = [each for each in shard.records if each.arrival < self.stream.trimmed_before]
            if self.strict and gone and position.number <= gone[-1].number:
                raise PositionGoneError("StartingSequenceNumber is invalid")
            after = position.number - inclusive
        elif position.kind is Kind.AT_TIMESTAMP and position.moment is not None:
            moment = float(int(position.moment.timestamp()))
            assert moment <= self.stream.now, "AT_TIMESTAMP lies in the future"
            first = next((each for each in shard.records if each.arrival >= moment), None)
            last = shard.records[-1].number if shard.records else 0
            after = last if first is None else first.number - 1
        else:
            assert position.kind is Kind.TRIM_HORIZON
        return self._open(shard_id, after)

    def _open(self, shard_id: str, after: int) -> str:
        name = f"iterator-{len(self._iterators)}"
        self._iterators[name] = _Iterator(shard_id, after, self.stream.now)
        return name

    def records(self, iterator: str, limit: int) -> Page[Record]:
        found, following, behind, full = self._get(iterator, limit)
        records = [Record(str(each.number), each.key, each.arrival, each.data) for each in found]
        return Page(
            records, following, behind, float(int(self.stream.now)), sum(len(each.data) for each in found), full
        )

    def heads(self, iterator: str, limit: int) -> Page[Head]:
        found, following, behind, full = self._get(iterator, limit)
        heads = [
            Head(str(each.number), each.arrival, msgspec.Raw(b'"' + b64encode(each.data) + b'"')) for each in found
        ]
        return Page(heads, following, behind, float(int(self.stream.now)), sum(len(each.data) for each in found), full)

    def _get(self, iterator: str, limit: int) -> tuple[list[Stored], str | None, int, bool]:
        at = self._iterators[iterator]
        self._called(at.shard_id)
        if self.stream.now - at.opened_at > 300:
            raise ExpiredIteratorError("the iterator has expired")
        shard = self.stream.shards[at.shard_id]
        ahead = [each for each in self.stream.left(shard) if each.number > at.after]
        count = min(limit, len(ahead), 10_000)
        if self.ragged and ahead:
            self.answered += 1
            # At most two in a row are empty, as a sparse stretch of a shard would answer.
            count = (
                0 if self.answered % 3 and self.stream.random.random() < 0.4 else self.stream.random.randint(1, count)
            )
        found = ahead[:count]
        after = found[-1].number if found else at.after
        more = len(ahead) > count
        behind = 0
        if more:
            reference = found[-1].arrival if found else ahead[0].arrival
            behind = max(1, int((self.stream.now - reference) * 1000))
        if self.silent:
            behind = 0
        if not more and shard.ending is not None:
            return found, None, 0, count >= limit
        return found, self._open(at.shard_id, after), behind, count >= limit


def throttled() -> ThrottledError:
    return ThrottledError("ProvisionedThroughputExceededException: rate exceeded")


def broken() -> TransientError:
    return TransientError("InternalFailureException")


def as_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
