"""Drives an queue: takes batches, sends them from a few threads, settles the answers with it.

From: `queue`. Next: `put_request`.

One thread (the caller's) owns the queue; the others only send. There are no others until the endpoint turns out
to be slow to answer: against one that is not, the interpreter's lock makes four threads slower than one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic

from jobs.common.errors import MovementError, TransientError
from producer.put_records import NotAcceptedError, OutcomeUnknownError, PutClient, PutResult
from producer.send_queue import OutgoingRequest, Owner, SendQueue
from producer.stream_info import ShardMap

# An answer that is waited for longer than this is worth a thread that does the waiting.
_SLOW_ANSWER_SECONDS = 0.003
# A thread that has its answer should not wait the usual 5 ms for one that reads rows to let go of the interpreter.
_SWITCH_SECONDS = 0.0005
_WEIGHT_OF_THE_LATEST = 0.3

_Answer = list[PutResult] | None | NotAcceptedError | OutcomeUnknownError


class Sender(Generic[Owner]):
    """Sends what the queue holds. `done` is told the owners of accepted records, one a record.

    `max_in_flight` is how many requests may be under way at once; `find_shards` looks the stream's shards up, once
    there is a throttle to pace by. A context manager; leaving it waits for requests that are under way.
    """

    def __init__(
        self,
        queue: SendQueue[Owner],
        puts: PutClient,
        done: Callable[[list[Owner]], None],
        *,
        max_in_flight: int = 1,
        delivery_timeout_seconds: float = 300,
        find_shards: Callable[[], ShardMap] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._queue, self._puts, self._done = queue, puts, done
        self._limit = max_in_flight
        self._delivery_timeout_seconds = delivery_timeout_seconds
        self._find_shards = find_shards
        self._clock, self._sleep = clock, sleep
        self._threads: ThreadPoolExecutor | None = None
        self._answer_seconds = 0.0
        self._switch_before = sys.getswitchinterval()
        self._under_way: dict[Future[_Answer], OutgoingRequest[Owner]] = {}
        self._last_success = clock()
        self._last_error = "no answer"

    def __enter__(self) -> Sender[Owner]:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._settle_what_arrived()
            sys.setswitchinterval(self._switch_before)

    @property
    def full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return len(self._under_way) >= self._limit

    def step(self, block: bool) -> bool:
        """Settles what was answered and sends what may be sent; False where there was nothing to do.

        With `block` it waits for an answer or for the next retry instead of returning at once. Raises
        AwsAccessError where a request is refused for good, and TransientError where nothing was accepted for
        `delivery_timeout_seconds`.
        """
        worked = self._settle_answered(0)
        while not self.full and (batch := self._queue.take(self._clock())) is not None:
            worked = True
            if self._threads is None:
                self._settle(batch, self._attempt_here(batch))
                break
            self._under_way[self._threads.submit(self._attempt, batch)] = batch
        if not worked and block and not self._queue.empty:
            self._wait()
        return worked

    def _wait(self) -> None:
        now = self._clock()
        due = None if self.full else self._queue.next_time(now)
        seconds = None if due is None else max(0.001, due - now)
        if self._under_way:
            self._settle_answered(seconds)
        elif seconds is not None:
            self._sleep(min(seconds, 1.0))

    def _settle_answered(self, seconds: float | None) -> bool:
        if not self._under_way:
            return False
        answered, _ = wait(self._under_way, seconds, FIRST_COMPLETED)
        for future in answered:
            self._settle(self._under_way.pop(future), future.result())
        return bool(answered)

    def _settle_what_arrived(self) -> None:
        """Counts what was accepted while the run ended with an error, so that a resumed one does not send it again."""
        for future, batch in self._under_way.items():
            answer = None if future.cancelled() else future.exception() or future.result()
            if isinstance(answer, list):
                self._done(self._queue.answered(batch, answer, self._clock()))
            elif answer is None and not future.cancelled():
                self._done(self._queue.accepted(batch))
        self._under_way.clear()

    def _attempt_here(self, batch: OutgoingRequest[Any]) -> _Answer:
        """Sends in this thread, and starts others where that takes long."""
        started, busy = self._clock(), time.thread_time()
        answer = self._attempt(batch)
        # Building and signing a request is work, not waiting, however long a busy machine takes for it.
        waited = (self._clock() - started) - (time.thread_time() - busy)
        self._answer_seconds += _WEIGHT_OF_THE_LATEST * (waited - self._answer_seconds)
        if self._limit > 1 and self._answer_seconds > _SLOW_ANSWER_SECONDS:
            sys.setswitchinterval(_SWITCH_SECONDS)
            self._threads = ThreadPoolExecutor(self._limit, thread_name_prefix="put-records")
        return answer

    def _attempt(self, batch: OutgoingRequest[Any]) -> _Answer:
        try:
            return self._puts.put(batch.records)
        except (NotAcceptedError, OutcomeUnknownError) as error:
            return error

    def _settle(self, batch: OutgoingRequest[Owner], answer: _Answer) -> None:
        now = self._clock()
        if answer is None:
            self._last_success = now
            self._done(self._queue.accepted(batch))
            return
        if isinstance(answer, MovementError):
            self._last_error = str(answer)
            if isinstance(answer, NotAcceptedError):
                self._queue.refused(batch, now, throttled=answer.throttled)
            else:
                self._queue.unknown(batch, now)
        else:
            failed = next((where.error for where in answer if where.error), None)
            if failed is not None:
                self._last_error = f"records were refused: {failed}"
                self._look_up_shards()
            owners = self._queue.answered(batch, answer, now)
            if owners:
                self._last_success = now
                self._done(owners)
        if now - self._last_success > self._delivery_timeout_seconds:
            raise TransientError(
                f"nothing was accepted for {self._delivery_timeout_seconds:g} s; last: {self._last_error}"
            )

    def _look_up_shards(self) -> None:
        rates = self._queue.rates
        if rates.shards is not None or self._find_shards is None:
            return
        find, self._find_shards = self._find_shards, None
        try:
            rates.shards = find()
        except MovementError as error:
            # Without the map the stream is paced as one: slower than need be, and nothing is lost.
            self._last_error = str(error)
