"""Records of many HTTP requests, put together into few PutRecords. From: `api`. Next: `put_request`.

What databases call group commit: a record waits a few milliseconds for company, and every request is answered
once Kinesis has accepted its own records. One event loop owns the queue; threads only send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from jobs.common.errors import AwsAccessError, MovementError, TransientError
from producer.put_records import MAX_RECORDS, NotAcceptedError, OutcomeUnknownError, PutClient, PutResult
from producer.record_encoder import Record, size_of
from producer.send_queue import OutgoingRequest, SendQueue
from producer.stream_info import ShardMap


class OverloadedError(TransientError):
    """More records wait than may; the sender should come back later."""


@dataclass(slots=True)
class Waiting:
    """A request's records: where each was put so far, and a future that ends once all are (or with an error)."""

    placed: list[PutResult | None]
    open: int
    future: asyncio.Future[None]
    size: int = 0
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    waiting: Waiting
    index: int


@dataclass
class ApiBatcher:
    """Puts records; `put` may be called by any number of tasks of one event loop.

    `linger_seconds` is how long a record waits for others. `max_records` and `max_bytes` bound what waits.
    """

    puts: PutClient
    max_in_flight: int = 4
    linger_seconds: float = 0.003
    max_records: int = 20_000
    max_bytes: int = 64 * 1024 * 1024
    max_request_bytes: int = 5 * 1024 * 1024
    keep_order: bool = True
    find_shards: Callable[[], ShardMap] | None = None
    last_error: MovementError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.queue: SendQueue[_Place] = SendQueue(
            keep_order=self.keep_order,
            max_bytes=self.max_request_bytes,
            wanted=lambda place: not place.waiting.given_up,
        )
        self._pending_records: list[Record] = []
        self._pending_places: list[_Place] = []
        self._waiting_records = 0
        self._waiting_bytes = 0
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(self.max_in_flight, thread_name_prefix="put-records")

    @property
    def waiting_records(self) -> int:
        """Records that were handed in and are not accepted yet."""
        return self._waiting_records

    async def put(self, records: Sequence[Record], timeout_seconds: float) -> list[PutResult | None]:
        """Puts the records; returns where each was, with None for those that were not in time.

        A None may still have arrived: its request's outcome was not known in time. Raises OverloadedError where
        too much waits already, and AwsAccessError where AWS refuses for good.
        """
        size = size_of(records)
        if self._waiting_records + len(records) > self.max_records or self._waiting_bytes + size > self.max_bytes:
            raise OverloadedError(f"{self._waiting_records} records wait for Kinesis already")
        loop = asyncio.get_running_loop()
        waiting = Waiting([None] * len(records), len(records), loop.create_future(), size)
        self._waiting_records += len(records)
        self._waiting_bytes += size
        self._pending_records += records
        self._pending_places += [_Place(waiting, index) for index in range(len(records))]
        self._wake(self.linger_seconds if len(self._pending_records) < MAX_RECORDS else 0.0)
        try:
            await asyncio.wait_for(waiting.future, timeout_seconds)
        except TimeoutError:
            return list(waiting.placed)
        finally:
            # What nobody waits for any more is not sent, where it is not on its way already.
            waiting.given_up = True
            self._waiting_records -= len(records)
            self._waiting_bytes -= size
            self._forget()
        return list(waiting.placed)

    def _forget(self) -> None:
        """Lets go of pending records that nobody waits for, so that an outage does not fill the memory."""
        if len(self._pending_records) > self._waiting_records + MAX_RECORDS:
            kept = [
                (record, place)
                for record, place in zip(self._pending_records, self._pending_places, strict=True)
                if not place.waiting.given_up
            ]
            self._pending_records = [record for record, _ in kept]
            self._pending_places = [place for _, place in kept]

    async def stop(self) -> None:
        """Waits until nothing is on its way any more."""
        while self._tasks or (not self.queue.empty and self._waiting_records):
            await asyncio.sleep(0.01)
        if self._timer is not None:
            self._timer.cancel()
        self._threads.shutdown(wait=True)

    def _wake(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        # Kept apart, because uvloop's handles do not tell when they are due.
        self._timer_due = due
        self._timer = loop.call_at(due, self._send)

    def _send(self) -> None:
        """Sends what may be sent now, and arranges to be called when more may be."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._under_way < self.max_in_flight:
            if self._pending_records and self.queue.waiting < MAX_RECORDS:
                self.queue.add_each(self._pending_records, self._pending_places)
                self._pending_records, self._pending_places = [], []
            batch = self.queue.take(loop.time())
            if batch is None:
                break
            self._under_way += 1
            task = loop.create_task(self._attempt(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._under_way < self.max_in_flight and (due := self.queue.next_time(loop.time())) is not None:
            self._wake(max(0.001, due - loop.time()))

    async def _attempt(self, batch: OutgoingRequest[_Place]) -> None:
        loop = asyncio.get_running_loop()
        try:
            placed = await loop.run_in_executor(self._threads, self.puts.put, batch.records)
        except NotAcceptedError as error:
            self.last_error = error
            self.queue.refused(batch, loop.time(), throttled=error.throttled)
        except OutcomeUnknownError as error:
            self.last_error = error
            self.queue.unknown(batch, loop.time())
        except AwsAccessError as error:
            self.last_error = error
            self.queue.dropped(batch)
            for place in batch.owners:
                if not place.waiting.future.done():
                    place.waiting.future.set_exception(error)
        else:
            await self._answered(batch, placed or [])
        finally:
            self._under_way -= 1
            self._wake(0.0)

    async def _answered(self, batch: OutgoingRequest[_Place], placed: list[PutResult]) -> None:
        loop = asyncio.get_running_loop()
        failed = any(where.error for where in placed)
        if failed and self.queue.rates.shards is None and self.find_shards is not None:
            find, self.find_shards = self.find_shards, None
            try:
                self.queue.rates.shards = await loop.run_in_executor(self._threads, find)
            except MovementError as error:
                # Without the map the stream is paced as one.
                self.last_error = error
        if not failed:
            self.last_error = None
        self.queue.answered(batch, placed, loop.time())
        for place, where in zip(batch.owners, placed, strict=True):
            if where.error is None:
                waiting = place.waiting
                waiting.placed[place.index] = where
                waiting.open -= 1
                if not waiting.open and not waiting.future.done():
                    waiting.future.set_result(None)
