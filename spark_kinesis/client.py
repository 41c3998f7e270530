"""The source's view of Kinesis: five calls, their answers, and the client that retries them.

`planner` and `reader` know only the Protocol `StreamClient`. `boto_client` implements it with botocore, tests with a
scripted stream; `RetryingClient` wraps either, so both retry alike.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NoReturn, Protocol, TypeVar

import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from spark_kinesis.errors import ExpiredIteratorError, FutureTimeError, ThrottledError, TransientSourceError
from spark_kinesis.offset import Position

# AWS: a shard serves 5 GetRecords calls a second, and after a 10 MB answer throttles for up to 5 seconds.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
FULL_JITTER = wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)

T = TypeVar("T")


class Record(msgspec.Struct, rename="pascal", gc=False):
    """One record of a GetRecords answer. `approximate_arrival_timestamp` is in seconds since 1970 (UTC)."""

    sequence_number: str
    partition_key: str = ""
    approximate_arrival_timestamp: float = 0.0
    data: bytes = b""


class RecordHeader(msgspec.Struct, rename="pascal", gc=False):
    """A record whose payload stays undecoded (base64 in quotes). It is all that planning needs, and much cheaper."""

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
    full            the answer reached the limit that was asked for, or nearly the 10 MB that an answer may hold
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

    starting_sequence  no record of the shard has a lower number
    ending_sequence    set once the shard is closed: on AWS at least the number of its last record, on moto that number;
                       kinesis-mock lists 9223372036854775807 for every closed shard, which tells nothing
    hash_keys          the first and the last hash key whose records go to the shard; None if unknown
    """

    shard_id: str
    parents: tuple[str, ...] = ()
    starting_sequence: str = ""
    ending_sequence: str | None = None
    hash_keys: tuple[int, int] | None = None

    @property
    def is_closed(self) -> bool:
        return self.ending_sequence is not None

    @property
    def first_number(self) -> int:
        """`starting_sequence` as an integer; 0 if it is unknown."""
        return int(self.starting_sequence or 0)


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What DescribeStreamSummary says. Records older than `retention_hours` leave the stream."""

    retention_hours: int
    created_at: datetime | None = None


class StreamClient(Protocol):
    """One stream. Every call raises TransientSourceError, StreamAccessError, ExpiredIteratorError or PositionGoneError.

    Implementations do not retry (`RetryingClient` does). They are called from several threads.
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


class RetryingClient:
    """A `StreamClient` that retries a call for at most `seconds`. Thread-safe.

    The pauses are random, from 0 to min(5 s, 0.2 s * 2^n) ("full jitter"), so that tasks that were throttled together
    do not retry together.

    counters  counts the retries ("retries"), and how many of them followed a throttled call ("throttles")
    """

    def __init__(
        self,
        client: StreamClient,
        *,
        seconds: float,
        counters: Counter[str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[RetryCallState], float] = FULL_JITTER,
    ) -> None:
        self._client = client
        self._seconds = seconds
        self._counters: Counter[str] = Counter() if counters is None else counters
        self._sleep = sleep
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()

    def list_shards(self) -> list[Shard]:
        return self._retry(self._client.list_shards)

    def summary(self) -> StreamSummary:
        return self._retry(self._client.summary)

    def iterator(self, shard_id: str, position: Position, *, inclusive: bool = False) -> str:
        return self._retry(lambda: self._client.iterator(shard_id, position, inclusive=inclusive))

    def records(self, iterator: str, limit: int) -> Page[Record]:
        return self._retry(lambda: self._client.records(iterator, limit))

    def headers(self, iterator: str, limit: int) -> Page[RecordHeader]:
        return self._retry(lambda: self._client.headers(iterator, limit))

    def _retry(self, call: Callable[[], T]) -> T:
        deadline = self._clock() + self._seconds
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=self._wait,
            stop=lambda state: self._clock() + state.upcoming_sleep > deadline,
            sleep=self._sleep,
            before_sleep=self._count,
            retry_error_callback=self._give_up,
        )
        return retrying(call)

    def _count(self, state: RetryCallState) -> None:
        with self._lock:
            self._counters["retries"] += 1
            self._counters["throttles"] += isinstance(_error_of(state), ThrottledError)

    def _give_up(self, state: RetryCallState) -> NoReturn:
        error = _error_of(state)
        raise TransientSourceError(f"{error} (tried {state.attempt_number} times in {self._seconds:g} s)") from error


def _may_pass(error: BaseException) -> bool:
    """Whether the same call may work soon. For an expired iterator its caller opens another one; that a time is in the
    server's future tells its caller that nothing has arrived at that time yet."""
    return isinstance(error, TransientSourceError) and not isinstance(error, ExpiredIteratorError | FutureTimeError)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
