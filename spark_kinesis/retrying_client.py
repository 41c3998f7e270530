"""Retries of the calls to Kinesis: throttles, 5xx, resets and time-outs, with jittered back-off.

Stands between `planner`/`reader` and `boto_client`, so that both behave alike against AWS and against a
scripted stream. What is still failing when the time is up becomes a TransientError that says how often it was tried;
`planner` and `reader` add stream, shard and range.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.common.call_retries import Repeats
from jobs.common.errors import TransientError
from spark_kinesis.client import (
    ExpiredIteratorError,
    Page,
    Record,
    RecordHeader,
    StreamClient,
    StreamSummary,
    ThrottledError,
)
from spark_kinesis.offset import Position
from spark_kinesis.shards import Shard

T = TypeVar("T")

# AWS: a shard gives 5 GetRecords calls a second, and after a 10 MB answer throttles for up to 5 seconds.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0


class RetryingClient:
    """A `StreamClient` that repeats what failed transiently, for at most `seconds` a call.

    Pauses are drawn from 0 to min(5 s, 0.2 s · 2ⁿ) ("full jitter"), so that tasks which were throttled together
    do not come back together.
    """

    def __init__(
        self,
        client: StreamClient,
        *,
        seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._client = client
        self._seconds = seconds
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()
        self._repeats = Repeats()

    def repeats(self) -> Repeats:
        """The calls that were repeated since this was asked last."""
        with self._lock:
            found, self._repeats = self._repeats, Repeats()
        return found

    def list_shards(self) -> list[Shard]:
        return self._retried(self._client.list_shards)

    def summary(self) -> StreamSummary:
        return self._retried(self._client.summary)

    def iterator(self, shard_id: str, position: Position, *, inclusive: bool = False) -> str:
        return self._retried(lambda: self._client.iterator(shard_id, position, inclusive=inclusive))

    def records(self, iterator: str, limit: int) -> Page[Record]:
        return self._retried(lambda: self._client.records(iterator, limit))

    def headers(self, iterator: str, limit: int) -> Page[RecordHeader]:
        return self._retried(lambda: self._client.headers(iterator, limit))

    def _retried(self, call: Callable[[], T]) -> T:
        deadline = self._clock() + self._seconds
        attempt = 0
        while True:
            try:
                return call()
            except ExpiredIteratorError:
                raise  # the same iterator never works again: its owner opens another
            except TransientError as error:
                pause = self._jitter(0.0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))
                attempt += 1
                if self._clock() + pause > deadline:
                    raise TransientError(f"{error} (tried {attempt} times in {self._seconds:g} s)") from error
                with self._lock:
                    throttled = isinstance(error, ThrottledError)
                    self._repeats = Repeats(self._repeats.retries + 1, self._repeats.throttles + throttled)
                self._sleep(pause)
