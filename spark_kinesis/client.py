"""The source's narrow view of Kinesis: four calls, their answers and their errors.

`planner` and `reader` know only the Protocol `StreamClient`; `boto_client` fulfils it with boto3, tests with a
scripted stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import msgspec

from spark_kinesis.offset import Position


class Record(msgspec.Struct, rename="pascal", gc=False):
    """One record as GetRecords answers it. `approximate_arrival_timestamp` is in seconds since 1970 (UTC)."""

    sequence_number: str
    partition_key: str = ""
    approximate_arrival_timestamp: float = 0.0
    data: bytes = b""


class RecordHeader(msgspec.Struct, rename="pascal", gc=False):
    """A record whose payload stays undecoded (base64 in quotes): what planning needs, at a fraction of the cost."""

    sequence_number: str
    approximate_arrival_timestamp: float = 0.0
    data: msgspec.Raw = msgspec.Raw(b'""')

    @property
    def number(self) -> int:
        return int(self.sequence_number)

    @property
    def arrival(self) -> float:
        return self.approximate_arrival_timestamp

    @property
    def payload_bytes(self) -> int:
        return (len(bytes(self.data)) - 2) * 3 // 4


R = TypeVar("R", Record, RecordHeader)


@dataclass(slots=True)
class Page(Generic[R]):
    """One answer of GetRecords.

    next_iterator   None once a closed shard has been read to its end
    millis_behind   MillisBehindLatest: on AWS the time between the last record returned and now, 0 at the tip
    served_at       the server's clock, in seconds since 1970 (its Date header)
    body_bytes      size of the answer, in bytes; 0 if unknown
    full            the answer holds as many records as were asked for, or nearly the 10 MB that an answer may hold
    """

    records: Sequence[R]
    next_iterator: str | None
    millis_behind: int
    served_at: float
    body_bytes: int = 0
    full: bool = False

    @property
    def caught_up(self) -> bool:
        """Whether the shard held nothing more after this page when it was served."""
        return self.next_iterator is None or (self.millis_behind == 0 and not self.full)

    @property
    def lag_unknown(self) -> bool:
        """Whether the server did not tell how much is left: kinesalite always says 0, moto rounds down to 0."""
        return self.next_iterator is not None and self.millis_behind == 0 and self.full


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as ListShards shows it.

    ending_sequence  set once the shard is closed; at least the number of its last record, but not always that number
    """

    shard_id: str
    parents: tuple[str, ...] = ()
    starting_sequence: str = ""
    ending_sequence: str | None = None

    @property
    def is_closed(self) -> bool:
        return self.ending_sequence is not None


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What DescribeStreamSummary says. Records older than `retention_hours` leave the stream."""

    retention_hours: int
    created_at: datetime | None = None


class StreamClient(Protocol):
    """One stream. Every call raises TransientSourceError, StreamAccessError, ExpiredIteratorError or PositionGoneError.

    Implementations need not retry: `retry.RetryingClient` does. They are called from several threads.
    """

    def list_shards(self) -> list[Shard]:
        """All shards that AWS lists, closed ones included."""
        ...

    def summary(self) -> StreamSummary: ...

    def iterator(self, shard_id: str, position: Position, *, inclusive: bool = False) -> str:
        """A shard iterator after `position`; with `inclusive`, at its record.

        AT_TIMESTAMP works to the whole second before `position.moment` (botocore cuts fractions off).
        """
        ...

    def records(self, iterator: str, limit: int) -> Page[Record]:
        """One page, payloads included."""
        ...

    def headers(self, iterator: str, limit: int) -> Page[RecordHeader]:
        """One page, payloads not decoded."""
        ...
