"""Reads ranges of shards in a Spark worker: from Kinesis to Arrow batches.

The ranges come from `planner`; the rows go to the query. What is read depends on the range alone, so a repeated or
speculative task attempt yields the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from time import sleep as _sleep

import pyarrow as pa
import pyarrow.compute as pc

from spark_kinesis.client import Page, Record, StreamClient
from spark_kinesis.concurrent_ranges import MAX_GROWTH, fetch_concurrently
from spark_kinesis.data_loss import report_loss, start_is_lost
from spark_kinesis.errors import ExpiredIteratorError, FutureTimeError, PositionGoneError, SourceError
from spark_kinesis.kpl import Deaggregator
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, Kind, Position, ShardRange, after

SCHEMA = pa.schema(
    [
        pa.field("data", pa.binary()),
        pa.field("shard_id", pa.string()),
        pa.field("sequence_number", pa.string()),
        pa.field("partition_key", pa.string()),
        pa.field("arrival_time", pa.timestamp("us", "UTC")),
        pa.field("stream", pa.string()),
    ]
)
# So many empty, caught-up pages in a row end a range whose end was not seen.
_LAST_EMPTY_PAGES = 3
# Pause after an empty page: a reader then makes at most four of the five calls a second that a shard allows.
_PAUSE_SECONDS = 0.25
# A call asks for at least this many records: a shard gives five answers a second, however small.
_MIN_RECORDS = 250
# How many ranges of one task are read at once: small ranges cost round trips, not bandwidth.
MAX_CONCURRENT = 4
# How much the ranges after the first may prefetch in all.
PREFETCH_BYTES = 8 * 1024 * 1024


class RangeReader:
    """Reads ranges of one stream. It keeps no state between calls, so a range can be read again."""

    def __init__(
        self,
        client: StreamClient,
        stream: str,
        *,
        fail_on_data_loss: bool = True,
        records_per_call: int = 10_000,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = _sleep,
        prefetch: bool = True,
        deaggregator: Deaggregator | None = None,
    ) -> None:
        self._client = client
        self._stream = stream
        self._fail_on_data_loss = fail_on_data_loss
        self._records_per_call = records_per_call
        self._clock = clock
        self._sleep = sleep
        self._prefetch = prefetch
        self._deaggregator = deaggregator

    def read_all(self, ranges: Sequence[ShardRange]) -> Iterator[pa.RecordBatch]:
        """The ranges of one task, in order; the next few are prefetched. Raises as `read` does.

        Ranges that share a task are planned to be small, but by an estimate, so memory is bounded here.
        """
        if len(ranges) == 1 or not self._prefetch:
            for part in ranges:
                yield from self.read(part)
            return
        yield from fetch_concurrently(
            [self.read(part, prefetch=False) for part in ranges],
            lambda batch: batch.nbytes,
            max_concurrent=MAX_CONCURRENT,
            max_bytes=PREFETCH_BYTES,
        )

    def read(self, part: ShardRange, *, prefetch: bool = True) -> Generator[pa.RecordBatch, None, None]:
        """Arrow batches of at most one GetRecords answer (10 MB, 10,000 records), in the shard's order.

        prefetch  whether the next page is fetched while the caller works on this one

        Raises TransientSourceError, StreamAccessError or DataLossError. Each names stream, shard and range.
        """
        try:
            for records in self.records(part, prefetch=prefetch):
                if self._deaggregator is not None:
                    records = self._deaggregator.user_records(records, part)
                if records:
                    yield to_arrow(records, self._stream, part.shard_id)
        except SourceError as error:
            if str(part) in str(error):
                raise
            raise type(error)(f"stream {self._stream}, {part}: {error}") from error

    def records(self, part: ShardRange, *, prefetch: bool = True) -> Iterator[Sequence[Record]]:
        """The range's records, page by page; no page is empty."""
        state = _RangeState(
            self._client, self._stream, part, self._records_per_call, self._fail_on_data_loss, self._clock
        )
        pool = ThreadPoolExecutor(1, thread_name_prefix="kinesis-read")
        try:
            page = state.fetch()
            while True:
                records = state.take(page)
                if state.pause:
                    self._sleep(_PAUSE_SECONDS)
                next_page: Future[Page[Record]] | None = None
                if not state.done and self._prefetch and prefetch and records:
                    next_page = pool.submit(state.fetch)
                if records:
                    yield records
                if state.done:
                    return
                page = next_page.result() if next_page is not None else state.fetch()
        finally:
            # A task that is killed does not wait for an answer that is no longer needed.
            pool.shutdown(wait=False, cancel_futures=True)


class _RangeState:
    """One pass over a range: the last record taken, the iterator after it, and whether the range is done."""

    def __init__(
        self,
        client: StreamClient,
        stream: str,
        part: ShardRange,
        records_per_call: int,
        fail_on_data_loss: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._stream = stream
        self._range = part
        self._records_per_call = records_per_call
        self._limit = records_per_call
        if part.records:
            # The start's own record comes too, and the number is an estimate: a second call costs more than 3 %.
            self._limit = min(records_per_call, int(part.records * 1.03) + 2)
        self._fail_on_data_loss = fail_on_data_loss
        self._clock = clock
        # An aggregate that was read in part is read again, without its first user records.
        self._last = part.start.last_whole_record
        self._iterator: str | None = None
        # If this position's own record is still in the stream, no record after it has expired.
        self._proof = part.start
        self._checked = self._needs_no_check
        self._skip_before = part.start.moment.timestamp() if part.start.moment is not None else None
        self._empty_pages = 0
        self.done = False
        self.pause = False

    @property
    def _needs_no_check(self) -> bool:
        """Whether no loss can show at the start: it names no record, and no earlier record is known."""
        return not self._range.start.is_record and self._range.complete_until is None

    def fetch(self) -> Page[Record]:
        """The next page. An expired iterator is opened again after the last record taken."""
        if self._iterator is None:
            self._iterator = self._open()
        if self._iterator is None:
            return self._page_of_vanished_shard()
        try:
            return self._client.records(self._iterator, self._limit)
        except ExpiredIteratorError:
            self._iterator = self._open()
            if self._iterator is None:
                return self._page_of_vanished_shard()
            return self._client.records(self._iterator, self._limit)

    def _page_of_vanished_shard(self) -> Page[Record]:
        """An empty last page: the whole shard has left the stream since the batch was planned."""
        if self._needs_no_check:
            self._report_loss(self._range.start, None)
        return Page([], None, 0, 0.0)

    def _open(self) -> str | None:
        """An iterator at the start, or at the last record taken; None if the shard has left the stream."""
        part = self._range
        if self._last > part.start.number:
            self._proof, self._checked = after(str(self._last)), False
        else:
            self._proof, self._checked = part.start, self._needs_no_check
        try:
            # At the record, not after it: its presence proves that no record after it has been trimmed.
            return self._client.iterator(part.shard_id, self._proof, inclusive=self._proof.is_record)
        except (PositionGoneError, FutureTimeError):
            # The first page, or its absence, shows what was lost. What arrived before a start time is skipped.
            try:
                return self._client.iterator(part.shard_id, TRIM_HORIZON)
            except PositionGoneError:
                return None

    def take(self, page: Page[Record]) -> Sequence[Record]:
        """The page's records that belong to the range. Moves on, and sets `done` at the range's end."""
        if not self._checked and page.records:
            self._check_for_loss(page.records[0])
        records = self._within_range(page.records)
        if page.records:
            self._last = max(self._last, int(page.records[-1].sequence_number))
            self._empty_pages = 0
        self._iterator = page.next_iterator
        self._detect_end(page)
        if self.done and not self._checked:
            # No record is left, so the one that would prove completeness is not there either.
            self._check_for_loss(None)
        self._limit = self._next_limit(page)
        # At the end of a closed shard the few last empty pages need no pause.
        at_shard_end = self._range.end == SHARD_END and page.millis_behind == 0
        self.pause = not page.records and not self.done and not at_shard_end
        return records

    def _next_limit(self, page: Page[Record]) -> int:
        """How many records to ask for next: the estimated rest of the range, by the density of sequence numbers."""
        if self.done or self._range.end.kind is not Kind.AFTER or len(page.records) < 2:
            return self._records_per_call
        span = int(page.records[-1].sequence_number) - int(page.records[0].sequence_number)
        rest = (self._range.end.number - self._last) * (len(page.records) - 1) // span
        limit = max(_MIN_RECORDS, min(rest * 21 // 20, MAX_GROWTH * len(page.records)))
        return min(self._records_per_call, limit)

    def _within_range(self, records: Sequence[Record]) -> Sequence[Record]:
        """Removes records that were taken before or follow the end. A shard's records come in order."""
        end = self._range.end.number if self._range.end.kind is Kind.AFTER else None
        first, last = 0, len(records)
        while first < last and int(records[first].sequence_number) <= self._last:
            first += 1
        if self._skip_before is not None:
            while first < last and records[first].approximate_arrival_timestamp < self._skip_before:
                first += 1
            if first < last:
                self._skip_before = None
        if end is not None:
            while last > first and int(records[last - 1].sequence_number) > end:
                last -= 1
        return records[first:last] if first or last < len(records) else records

    def _detect_end(self, page: Page[Record]) -> None:
        """Sets `done` at the range's last record, or at the end of the closed shard."""
        part = self._range
        caught_up = not page.records and page.millis_behind == 0
        self._empty_pages += caught_up
        if part.end == SHARD_END:
            # moto never ends a closed shard with a null iterator. A number below a record of the shard is not its end.
            at_last_record = int(part.ending_sequence or 0) == self._last > 0
            silent = caught_up and self._empty_pages >= _LAST_EMPTY_PAGES
            self.done = page.next_iterator is None or at_last_record or silent
        elif self._last >= part.end.number:
            self.done = True
        elif page.next_iterator is None or (caught_up and self._empty_pages >= _LAST_EMPTY_PAGES):
            self.done = True
            self._report_loss(part.end, None)

    def _check_for_loss(self, oldest: Record | None) -> None:
        """Checks that the record that proves completeness is still there. `oldest`: the first one that is."""
        self._checked = True
        part = self._range
        is_there = oldest is not None and oldest.sequence_number == self._proof.sequence
        if self._proof == part.start:
            lost = start_is_lost(part.start, is_there, part.complete_until, part.retention_hours, self._clock())
        else:
            # This pass has read it, so records that followed it may have expired with it.
            lost = not is_there
        if lost:
            self._report_loss(self._proof, None if oldest is None else oldest.approximate_arrival_timestamp)

    def _report_loss(self, position: Position, oldest: float | None) -> None:
        part = self._range
        report_loss(
            self._stream,
            part.shard_id,
            position,
            fail=self._fail_on_data_loss,
            complete_until=part.complete_until,
            oldest=oldest,
            retention_hours=part.retention_hours,
        )


def to_arrow(records: Sequence[Record], stream: str, shard_id: str) -> pa.RecordBatch:
    """Records as one batch of `SCHEMA`."""
    count = len(records)
    seconds = pa.array([record.approximate_arrival_timestamp for record in records], pa.float64())
    micros = pc.round(pc.multiply(seconds, 1e6)).cast(pa.int64())
    return pa.RecordBatch.from_arrays(
        [
            pa.array([record.data for record in records], pa.binary()),
            pa.repeat(pa.scalar(shard_id, pa.string()), count),
            pa.array([record.sequence_number for record in records], pa.string()),
            pa.array([record.partition_key for record in records], pa.string()),
            micros.cast(pa.timestamp("us", "UTC")),
            pa.repeat(pa.scalar(stream, pa.string()), count),
        ],
        schema=SCHEMA,
    )
