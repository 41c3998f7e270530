"""Combines the records of many HTTP requests into few PutRecords requests (group commit). `api` uses it.

In: the records of one HTTP request. Out: where Kinesis stored each of them. A record waits a few milliseconds for the
records of other requests. One event loop owns the queue; threads only send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from jobs.common.errors import AwsAccessError, MovementError, TransientError
from producer.put_records import MAX_RECORDS, NotAcceptedError, OutcomeUnknownError, PutClient, PutResult
from producer.record_encoder import PutRecordsEntry, size_of
from producer.send_queue import OutgoingRequest, SendQueue
from producer.stream_info import ShardMap


class OverloadedError(TransientError):
    """The limit of pending records is reached. The client should retry later."""


@dataclass(slots=True)
class _Post:
    """The records of one HTTP request: their results so far, and how many of them are not accepted yet.

    `done` ends once all of them are accepted, or with an error. `cancelled`: the HTTP request has ended.
    """

    results: list[PutResult | None]
    unaccepted: int
    done: asyncio.Future[None]
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class _PostedRecord:
    post: _Post
    index: int


@dataclass
class ApiBatcher:
    """Puts records. Any number of tasks of one event loop may call `put`.

    `linger_seconds` is how long a record waits for others. `max_records` and `max_bytes` limit the pending records.
    """

    put_client: PutClient
    max_in_flight: int = 4
    linger_seconds: float = 0.003
    max_records: int = 20_000
    max_bytes: int = 64 * 1024 * 1024
    max_request_bytes: int = 5 * 1024 * 1024
    keep_order: bool = True
    find_shards: Callable[[], ShardMap] | None = None
    last_error: MovementError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.queue: SendQueue[_PostedRecord] = SendQueue(
            keep_order=self.keep_order,
            max_bytes=self.max_request_bytes,
            is_cancelled=lambda owner: owner.post.cancelled,
        )
        # Records that are not in the queue yet, and their owners.
        self._new_records: list[PutRecordsEntry] = []
        self._new_owners: list[_PostedRecord] = []
        self._pending_records = 0
        self._pending_bytes = 0
        self._in_flight = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(self.max_in_flight, thread_name_prefix="put-records")

    @property
    def pending_records(self) -> int:
        """The number of records of open HTTP requests."""
        return self._pending_records

    async def put(self, records: Sequence[PutRecordsEntry], timeout_seconds: float) -> list[PutResult | None]:
        """Puts the records. Returns one result for each in their order; None if it was not accepted in time.

        A record with None may be on the stream, because the outcome of its request may be unknown. Raises
        OverloadedError if too many records are pending, and AwsAccessError if a retry cannot help.
        """
        size = size_of(records)
        if self._pending_records + len(records) > self.max_records or self._pending_bytes + size > self.max_bytes:
            raise OverloadedError(f"{self._pending_records} records wait for Kinesis already; try again later")
        loop = asyncio.get_running_loop()
        post = _Post([None] * len(records), len(records), loop.create_future())
        self._pending_records += len(records)
        self._pending_bytes += size
        self._new_records += records
        self._new_owners += [_PostedRecord(post, index) for index in range(len(records))]
        self._send_within(self.linger_seconds if len(self._new_records) < MAX_RECORDS else 0.0)
        try:
            await asyncio.wait_for(post.done, timeout_seconds)
        except TimeoutError:
            return list(post.results)
        finally:
            # Records that are not in flight are not sent any more.
            post.cancelled = True
            self._pending_records -= len(records)
            self._pending_bytes -= size
            self._drop_cancelled()
        return list(post.results)

    def _drop_cancelled(self) -> None:
        """Frees the memory of cancelled records, which could grow without limit during an outage."""
        if len(self._new_records) > self._pending_records + MAX_RECORDS:
            kept = [
                (record, owner)
                for record, owner in zip(self._new_records, self._new_owners, strict=True)
                if not owner.post.cancelled
            ]
            self._new_records = [record for record, _ in kept]
            self._new_owners = [owner for _, owner in kept]

    async def stop(self) -> None:
        """Waits for the requests in flight and the pending records."""
        while self._tasks or (not self.queue.empty and self._pending_records):
            await asyncio.sleep(0.01)
        if self._timer is not None:
            self._timer.cancel()
        self._threads.shutdown(wait=True)

    def _send_within(self, seconds: float) -> None:
        """Calls `_send` in `seconds` or earlier."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        # uvloop's timer handles do not return their due time.
        self._timer_due = due
        self._timer = loop.call_at(due, self._send)

    def _send(self) -> None:
        """Sends the requests that are due, and schedules the next call."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._in_flight < self.max_in_flight:
            if self._new_records and self.queue.waiting < MAX_RECORDS:
                self.queue.add_each(self._new_records, self._new_owners)
                self._new_records, self._new_owners = [], []
            request = self.queue.next_request(loop.time())
            if request is None:
                break
            self._in_flight += 1
            task = loop.create_task(self._put(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._in_flight < self.max_in_flight and (due := self.queue.next_due(loop.time())) is not None:
            self._send_within(max(0.001, due - loop.time()))

    async def _put(self, request: OutgoingRequest[_PostedRecord]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._threads, self.put_client.put, request.records)
        except NotAcceptedError as error:
            self.last_error = error
            self.queue.retry(request, loop.time(), throttled=error.throttled)
        except OutcomeUnknownError as error:
            self.last_error = error
            self.queue.retry_unknown(request, loop.time())
        except AwsAccessError as error:
            self.last_error = error
            self.queue.discard(request)
            for owner in request.owners:
                if not owner.post.done.done():
                    owner.post.done.set_exception(error)
        else:
            await self._handle_results(request, results or [])
        finally:
            self._in_flight -= 1
            self._send_within(0.0)

    async def _handle_results(self, request: OutgoingRequest[_PostedRecord], results: list[PutResult]) -> None:
        loop = asyncio.get_running_loop()
        failed = any(result.error for result in results)
        if failed and self.queue.rates.shards is None and self.find_shards is not None:
            find, self.find_shards = self.find_shards, None
            try:
                self.queue.rates.shards = await loop.run_in_executor(self._threads, find)
            except MovementError as error:
                # Without the map one rate limits the whole stream.
                self.last_error = error
        if not failed:
            self.last_error = None
        self.queue.complete_each(request, results, loop.time())
        for owner, result in zip(request.owners, results, strict=True):
            if result.error is None:
                post = owner.post
                post.results[owner.index] = result
                post.unaccepted -= 1
                if not post.unaccepted and not post.done.done():
                    post.done.set_result(None)
