"""Sends a queue's requests from a few threads and reports their outcomes to the queue.

In: a `SendQueue`, and a `PutClient` that sends one request. Out: the owners of accepted records. The caller's thread
owns the queue; other threads only send. They start once the endpoint turns out to be slow, because against a fast one
the interpreter's lock makes four threads slower than one.
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

# Threads start once the average wait for an answer exceeds this.
_SLOW_ANSWER_SECONDS = 0.003
# A thread that has its answer must not wait the default 5 ms for the thread that reads rows.
_SWITCH_INTERVAL_SECONDS = 0.0005
_WEIGHT_OF_LATEST = 0.3

_Outcome = list[PutResult] | None | NotAcceptedError | OutcomeUnknownError


class Sender(Generic[Owner]):
    """Sends the queue's records. Calls `on_accepted` with the owners of accepted records, one for each record.

    At most `max_in_flight` requests are in flight. `find_shards` is called once, at the first failed record, so that
    the queue can limit each shard by itself. A context manager; its exit waits for the requests in flight.
    """

    def __init__(
        self,
        queue: SendQueue[Owner],
        put_client: PutClient,
        on_accepted: Callable[[list[Owner]], None],
        *,
        max_in_flight: int = 1,
        delivery_timeout_seconds: float = 300,
        find_shards: Callable[[], ShardMap] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._queue, self._put_client, self._on_accepted = queue, put_client, on_accepted
        self._max_in_flight = max_in_flight
        self._delivery_timeout_seconds = delivery_timeout_seconds
        self._find_shards = find_shards
        self._clock, self._sleep = clock, sleep
        self._threads: ThreadPoolExecutor | None = None
        self._average_wait = 0.0
        self._switch_interval_before = sys.getswitchinterval()
        self._in_flight: dict[Future[_Outcome], OutgoingRequest[Owner]] = {}
        self._last_success = clock()
        self._last_error = "no answer"

    def __enter__(self) -> Sender[Owner]:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._count_last_answers()
            sys.setswitchinterval(self._switch_interval_before)

    @property
    def full(self) -> bool:
        """Whether `max_in_flight` requests are in flight."""
        return len(self._in_flight) >= self._max_in_flight

    def poll(self, block: bool) -> bool:
        """Handles the answers that arrived and sends the requests that are due. Returns whether it did either.

        With `block` it waits for the next answer or retry if there is nothing to do. Raises AwsAccessError if AWS
        rejects a request for a reason that a retry cannot change, and TransientError if no record was accepted for
        `delivery_timeout_seconds`.
        """
        worked = self._handle_answers(0)
        while not self.full and (request := self._queue.next_request(self._clock())) is not None:
            worked = True
            if self._threads is None:
                self._handle_outcome(request, self._put_in_this_thread(request))
                break
            self._in_flight[self._threads.submit(self._put, request)] = request
        if not worked and block and not self._queue.empty:
            self._wait()
        return worked

    def _wait(self) -> None:
        now = self._clock()
        due = None if self.full else self._queue.next_due(now)
        seconds = None if due is None else max(0.001, due - now)
        if self._in_flight:
            self._handle_answers(seconds)
        elif seconds is not None:
            self._sleep(min(seconds, 1.0))

    def _handle_answers(self, seconds: float | None) -> bool:
        """Waits up to `seconds` (None: without a limit) for an answer, and handles all that arrived."""
        if not self._in_flight:
            return False
        answered, _ = wait(self._in_flight, seconds, FIRST_COMPLETED)
        for future in answered:
            self._handle_outcome(self._in_flight.pop(future), future.result())
        return bool(answered)

    def _count_last_answers(self) -> None:
        """Counts the records accepted after the run failed, so that a resumed run does not send them again."""
        for future, request in self._in_flight.items():
            outcome = None if future.cancelled() else future.exception() or future.result()
            if isinstance(outcome, list):
                self._on_accepted(self._queue.complete_each(request, outcome, self._clock()))
            elif outcome is None and not future.cancelled():
                self._on_accepted(self._queue.complete(request))
        self._in_flight.clear()

    def _put_in_this_thread(self, request: OutgoingRequest[Any]) -> _Outcome:
        """Sends in the caller's thread, and starts the other threads if the answers are slow."""
        started, cpu_started = self._clock(), time.thread_time()
        outcome = self._put(request)
        # CPU time is spent on building and signing the request, not on waiting, even on a busy machine.
        waited = (self._clock() - started) - (time.thread_time() - cpu_started)
        self._average_wait += _WEIGHT_OF_LATEST * (waited - self._average_wait)
        if self._max_in_flight > 1 and self._average_wait > _SLOW_ANSWER_SECONDS:
            sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
            self._threads = ThreadPoolExecutor(self._max_in_flight, thread_name_prefix="put-records")
        return outcome

    def _put(self, request: OutgoingRequest[Any]) -> _Outcome:
        try:
            return self._put_client.put(request.records)
        except (NotAcceptedError, OutcomeUnknownError) as error:
            return error

    def _handle_outcome(self, request: OutgoingRequest[Owner], outcome: _Outcome) -> None:
        now = self._clock()
        if outcome is None:
            self._last_success = now
            self._on_accepted(self._queue.complete(request))
            return
        if isinstance(outcome, MovementError):
            self._last_error = str(outcome)
            if isinstance(outcome, NotAcceptedError):
                self._queue.retry(request, now, throttled=outcome.throttled)
            else:
                self._queue.retry_unknown(request, now)
        else:
            failed = next((result.error for result in outcome if result.error), None)
            if failed is not None:
                self._last_error = f"records failed: {failed}"
                self._look_up_shards()
            owners = self._queue.complete_each(request, outcome, now)
            if owners:
                self._last_success = now
                self._on_accepted(owners)
        if now - self._last_success > self._delivery_timeout_seconds:
            raise TransientError(
                f"nothing was accepted for {self._delivery_timeout_seconds:g} s "
                f"(producer.delivery_timeout_seconds); last error: {self._last_error}"
            )

    def _look_up_shards(self) -> None:
        rates = self._queue.rates
        if rates.shards is not None or self._find_shards is None:
            return
        find, self._find_shards = self._find_shards, None
        try:
            rates.shards = find()
        except MovementError as error:
            # Without the map one rate limits the whole stream: slower than necessary, but nothing is lost.
            self._last_error = str(error)
