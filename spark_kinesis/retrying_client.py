"""Retries the calls to Kinesis that failed transiently: throttling, 5xx, resets and time-outs.

Sits between `planner` or `reader` and `boto_client`, so both retry alike on AWS and in tests. A call that still fails
when its time is up raises a TransientSourceError that says how often it was tried.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NoReturn, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from spark_kinesis.client import Page, Record, RecordHeader, Shard, StreamClient, StreamSummary
from spark_kinesis.errors import ExpiredIteratorError, ThrottledError, TransientSourceError
from spark_kinesis.offset import Position

T = TypeVar("T")

# AWS: a shard serves 5 GetRecords calls a second, and after a 10 MB answer throttles for up to 5 seconds.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
FULL_JITTER = wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)


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
    """An expired iterator never works again: its owner opens another."""
    return isinstance(error, TransientSourceError) and not isinstance(error, ExpiredIteratorError)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
