"""A Kinesis stream in memory that behaves as AWS documents, on a clock that the test moves.

56-digit sequence numbers with gaps; iterators that expire after 5 minutes; null iterators and `ChildShards` at a
closed shard's end; empty and partial answers with data ahead, long runs of them in a sparse shard; records that
expire silently; faults on demand. Its answers pass through the decoders that read AWS's own.
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

from spark_kinesis.boto_client import decode_headers, decode_records
from spark_kinesis.client import Page, Record, RecordHeader, Shard, StreamSummary
from spark_kinesis.errors import (
    ExpiredIteratorError,
    FutureTimeError,
    PositionGoneError,
    ThrottledError,
    TransientSourceError,
)
from spark_kinesis.offset import Kind, Position

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
    opened_at: float = 0.0
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

    def created_again(self, shards: int, after_seconds: float) -> ScriptedStream:
        """Another stream of the same name, created `after_seconds` after this one's last event.

        Its sequence numbers are later ones, as on AWS.
        """
        new = ScriptedStream(0, seed=self.random.randrange(2**16), start=self.now + after_seconds)
        new._next = self._next + 2**100
        for number in range(shards):
            new._add(HASHES * number // shards, HASHES * (number + 1) // shards - 1, ())
        return new

    def _number(self) -> int:
        self._next += self.random.randint(1, 2**40)
        return self._next

    def _add(self, low: int, high: int, parents: tuple[str, ...]) -> ScriptedShard:
        shard = ScriptedShard(f"shardId-{len(self.shards):012}", low, high, parents, self._number(), self.now)
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
    place: float


class ScriptedClient:
    """A `StreamClient` on a `ScriptedStream`.

    calls      GetRecords calls by shard, GetShardIterator under `iterator`, the others under their names
    faults     exceptions to raise, one for each coming call, before it does anything; None lets a call pass
    ragged     answers are partial and now and then empty although data is ahead, as AWS allows
    lag_unknown
               MillisBehindLatest is always 0, as kinesalite answers. It never answers an AT_TIMESTAMP after the shard's
               last record: here that fails the test, except at the times in `start_times`
    span       the most seconds of the shard's time that one answer covers: a stretch without records takes several
               empty answers; 0: no limit
    strict     GetShardIterator refuses a sequence number that has expired (else: silently the oldest record)
    slow_clock by how many seconds the clock behind GetShardIterator is slow
    """

    def __init__(
        self,
        stream: ScriptedStream,
        *,
        ragged: bool = False,
        strict: bool = False,
        lag_unknown: bool = False,
        span: float = 0,
    ) -> None:
        self.stream = stream
        self.ragged = ragged
        self.strict = strict
        self.lag_unknown = lag_unknown
        self.slow_clock = 0.0
        self.start_times: set[float] = set()
        self.span = span
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
                (each.low, each.high),
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
        place = max(shard.opened_at, self.stream.trimmed_before)
        if position.kind is Kind.AFTER:
            gone = [each for each in shard.records if each.arrival < self.stream.trimmed_before]
            if self.strict and gone and position.number <= gone[-1].number:
                raise PositionGoneError("StartingSequenceNumber is invalid")
            after = position.number - inclusive
            passed = [each.arrival for each in shard.records if each.number <= position.number]
            place = max(place, passed[-1] if passed else place)
        elif position.kind is Kind.AT_TIMESTAMP and position.moment is not None:
            moment = float(int(position.moment.timestamp()))
            if moment > self.stream.now - self.slow_clock:
                raise FutureTimeError("Timestamp is in the future")
            first = next((each for each in shard.records if each.arrival >= moment), None)
            if self.lag_unknown and moment not in self.start_times:
                assert first is not None, "an AT_TIMESTAMP after the last record, which kinesalite never answers"
            last = shard.records[-1].number if shard.records else 0
            after = last if first is None else first.number - 1
            place = max(place, moment)
        else:
            assert position.kind is Kind.TRIM_HORIZON
        return self._open(shard_id, after, place)

    def _open(self, shard_id: str, after: int, place: float) -> str:
        name = f"iterator-{len(self._iterators)}"
        self._iterators[name] = _Iterator(shard_id, after, self.stream.now, place)
        return name

    def records(self, iterator: str, limit: int) -> Page[Record]:
        return self._page(decode_records, iterator, limit)

    def headers(self, iterator: str, limit: int) -> Page[RecordHeader]:
        return self._page(decode_headers, iterator, limit)

    def _page(self, decode: Any, iterator: str, limit: int) -> Page[Any]:
        found, following, behind, full = self._get(iterator, limit)
        answer: dict[str, Any] = {
            "Records": [
                {
                    "ApproximateArrivalTimestamp": each.arrival,
                    "Data": b64encode(each.data).decode(),
                    "PartitionKey": each.key,
                    "SequenceNumber": str(each.number),
                }
                for each in found
            ],
            "MillisBehindLatest": behind,
            "NextShardIterator": following,
        }
        if following is None:
            shard_id = self._iterators[iterator].shard_id
            answer["ChildShards"] = [
                {"ShardId": each.shard_id, "ParentShards": list(each.parents), "HashKeyRange": {}}
                for each in self.stream.shards.values()
                if shard_id in each.parents
            ]
        body = json.dumps(answer).encode()
        page = decode(body)
        return Page(
            page.records,
            page.next_shard_iterator,
            page.millis_behind_latest,
            float(int(self.stream.now)),
            sum(len(each.data) for each in found),
            full,
        )

    def _get(self, iterator: str, limit: int) -> tuple[list[Stored], str | None, int, bool]:
        at = self._iterators[iterator]
        self._called(at.shard_id)
        if self.stream.now - at.opened_at > 300:
            raise ExpiredIteratorError("the iterator has expired")
        shard = self.stream.shards[at.shard_id]
        ahead = [each for each in self.stream.left(shard) if each.number > at.after]
        reach = at.place + self.span if self.span else self.stream.now
        count = min(limit, sum(each.arrival <= reach for each in ahead), 10_000)
        if self.ragged and count:
            self.answered += 1
            # At most two in a row are empty, as a sparse stretch of a shard would answer.
            count = (
                0 if self.answered % 3 and self.stream.random.random() < 0.4 else self.stream.random.randint(1, count)
            )
        found = ahead[:count]
        after = found[-1].number if found else at.after
        end = self.stream.now if shard.closed_at is None else shard.closed_at
        more = len(ahead) > count or reach < end
        behind, place = 0, end
        if more:
            place = found[-1].arrival if found else ahead[0].arrival if not self.span else reach
            behind = max(1, int((self.stream.now - place) * 1000))
        if self.lag_unknown:
            behind = 0
        if not more and shard.ending is not None:
            return found, None, 0, count >= limit
        return found, self._open(at.shard_id, after, place), behind, count >= limit


def throttled() -> ThrottledError:
    return ThrottledError("ProvisionedThroughputExceededException: rate exceeded")


def broken() -> TransientSourceError:
    return TransientSourceError("InternalFailureException")


def as_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
