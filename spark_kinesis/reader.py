"""Reads ranges of shards, in a worker: from Kinesis to Arrow batches, which Spark takes as they are.

The ranges come from `planner`; the rows go to the query. Reading depends on nothing but the range, so repeated
and speculative task attempts yield the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from time import sleep as _sleep

import pyarrow as pa
import pyarrow.compute as pc

from spark_kinesis.client import Page, Record, StreamClient
from spark_kinesis.concurrent_ranges import GROWTH, in_order
from spark_kinesis.data_loss import report_loss, start_is_lost
from spark_kinesis.errors import ExpiredIteratorError, PositionGoneError, SourceError
from spark_kinesis.input_partitions import ShardRange
from spark_kinesis.kpl import Deaggregator
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, Kind, Position, after

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
# Empty, caught-up answers in a row that are believed when the range's end has not been seen.
_BELIEVED = 3
# After an empty answer: so a reader makes at most four of the five calls a second that a shard allows.
_PAUSE_SECONDS = 0.25
# A call asks for at least so many records: a shard gives five answers a second, however small.
_FEWEST = 250
# Ranges of one task that are read at a time: small ones cost round trips, not bandwidth.
TOGETHER = 4
# What those behind the first may fetch ahead, in all: whole ranges, where they are as small as they were planned to be.
_WAITING_BYTES = 8 * 1024 * 1024


class RangeReader:
    """Reads ranges of one stream. `read` may be called again for the same range; it holds no state between calls."""

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
        self._fail = fail_on_data_loss
        self._limit = records_per_call
        self._clock = clock
        self._sleep = sleep
        self._prefetch = prefetch
        self._deaggregator = deaggregator

    def read_all(self, parts: Sequence[ShardRange]) -> Iterator[pa.RecordBatch]:
        """The ranges of one task, one after the other, the next few being fetched meanwhile.

        They are planned to be small (`ranges.into_tasks`), but by an estimate: what is held does not rest on it
        (`in_order`). Raises as `read` does.
        """
        if len(parts) == 1 or not self._prefetch:
            for part in parts:
                yield from self.read(part)
            return
        yield from in_order(
            [self.read(part, prefetch=False) for part in parts],
            lambda batch: batch.nbytes,
            at_a_time=TOGETHER,
            most_bytes=_WAITING_BYTES,
        )

    def read(self, part: ShardRange, *, prefetch: bool = True) -> Generator[pa.RecordBatch, None, None]:
        """Arrow batches of at most one GetRecords answer (10 MB, 10,000 records), in the shard's order.

        prefetch  whether the next page is fetched before it is asked for

        Raises TransientSourceError, StreamAccessError or DataLossError; each names stream, shard and range.
        """
        try:
            for records in self.records(part, prefetch=prefetch):
                if self._deaggregator is not None:
                    records = self._deaggregator.user_records(records, part.start)
                yield to_arrow(records, self._stream, part.shard_id)
        except SourceError as error:
            if str(part) in str(error):
                raise
            raise type(error)(f"stream {self._stream}, {part}: {error}") from error

    def records(self, part: ShardRange, *, prefetch: bool = True) -> Iterator[Sequence[Record]]:
        """The range's records, page by page; no page is empty."""
        reading = _Reading(self._client, self._stream, part, self._limit, self._fail, self._clock)
        pool = ThreadPoolExecutor(1, thread_name_prefix="kinesis-read")
        try:
            page = reading.fetch()
            while True:
                wanted = reading.take(page)
                if reading.pause:
                    self._sleep(_PAUSE_SECONDS)
                # The next page is on its way while Spark works on this one.
                following: Future[Page[Record]] | None = None
                if not reading.done and self._prefetch and prefetch and wanted:
                    following = pool.submit(reading.fetch)
                if wanted:
                    yield wanted
                if reading.done:
                    return
                page = following.result() if following is not None else reading.fetch()
        finally:
            # A task that is killed must not wait for an answer that nobody wants any more.
            pool.shutdown(wait=False, cancel_futures=True)


class _Reading:
    """The state of one pass over a range: the last record taken, the iterator behind it, whether it is done."""

    def __init__(
        self,
        client: StreamClient,
        stream: str,
        part: ShardRange,
        limit: int,
        fail: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._stream = stream
        self._part = part
        self._most = limit
        self._limit = limit
        if part.records:
            # The start's own record comes too, and the number is an estimate: one call more costs more than 3 %.
            self._limit = min(limit, int(part.records * 1.03) + 2)
        self._fail = fail
        self._clock = clock
        # An aggregate that was read in part is read again, and its first user records skipped.
        self._last = part.start.number - (part.start.sub is not None)
        self._iterator: str | None = None
        # The position whose own record proves that nothing behind it has expired, and whether it was seen.
        self._proof = part.start
        self._checked = self._needs_no_check
        self._skip_before = part.start.moment.timestamp() if part.start.moment is not None else None
        self._quiet = 0
        self.done = False
        self.pause = False

    @property
    def _needs_no_check(self) -> bool:
        """Whether nothing of this start can be lost: it names no record, and nothing is known that was there."""
        return not self._part.start.is_record and self._part.complete_until is None

    def fetch(self) -> Page[Record]:
        """The next page; an iterator that has expired is opened again behind the last record taken."""
        if self._iterator is None:
            self._iterator = self._open()
        if self._iterator is None:
            return self._nothing_left()
        try:
            return self._client.records(self._iterator, self._limit)
        except ExpiredIteratorError:
            self._iterator = self._open()
            if self._iterator is None:
                return self._nothing_left()
            return self._client.records(self._iterator, self._limit)

    def _nothing_left(self) -> Page[Record]:
        """In place of an answer, where the whole shard has left the stream since the batch was planned."""
        if self._needs_no_check:
            self._report(self._part.start, None)
        return Page([], None, 0, 0.0)

    def _open(self) -> str | None:
        """An iterator at the start, or behind the last record taken; None where the shard has left the stream."""
        part = self._part
        if self._last > part.start.number:
            self._proof, self._checked = after(str(self._last)), False
        else:
            self._proof, self._checked = part.start, self._needs_no_check
        try:
            # At the position's record, not after it: its presence proves that nothing behind it has been trimmed.
            iterator = self._client.iterator(part.shard_id, self._proof, inclusive=self._proof.is_record)
        except PositionGoneError:
            # The first page, or that there is none, says what was lost.
            try:
                iterator = self._client.iterator(part.shard_id, TRIM_HORIZON)
            except PositionGoneError:
                return None
        return iterator

    def take(self, page: Page[Record]) -> Sequence[Record]:
        """What of the page belongs to the range; moves on, and sets `done` at the range's end."""
        if not self._checked and page.records:
            self._check(page.records[0])
        wanted = self._within(page.records)
        if page.records:
            self._last = max(self._last, int(page.records[-1].sequence_number))
            self._quiet = 0
        self._iterator = page.next_iterator
        self._settle(page)
        if self.done and not self._checked:
            # Not one record is left, not even the one that would prove it.
            self._check(None)
        self._limit = self._rest(page)
        # Caught up at the end of a closed shard, `_BELIEVED` calls end the range: they need no spreading.
        ends = self._part.end == SHARD_END and page.millis_behind == 0
        self.pause = not page.records and not self.done and not ends
        return wanted

    def _rest(self, page: Page[Record]) -> int:
        """How many records to ask for next: about what lies before the end, going by the sequence numbers so far."""
        if self.done or self._part.end.kind is not Kind.AFTER or len(page.records) < 2:
            return self._most
        span = int(page.records[-1].sequence_number) - int(page.records[0].sequence_number)
        rest = (self._part.end.number - self._last) * (len(page.records) - 1) // span
        return min(self._most, max(_FEWEST, min(rest * 21 // 20, GROWTH * len(page.records))))

    def _within(self, records: Sequence[Record]) -> Sequence[Record]:
        part = self._part
        low = self._last
        high = part.end.number if part.end.kind is Kind.AFTER else None
        # Records of a shard come in order, so both cuts are found from the ends.
        first = 0
        while first < len(records) and int(records[first].sequence_number) <= low:
            first += 1
        if self._skip_before is not None:
            while first < len(records) and records[first].approximate_arrival_timestamp < self._skip_before:
                first += 1
            if first < len(records):
                self._skip_before = None
        last = len(records)
        if high is not None:
            while last > first and int(records[last - 1].sequence_number) > high:
                last -= 1
        return records[first:last] if first or last < len(records) else records

    def _settle(self, page: Page[Record]) -> None:
        """Decides whether the range is read: at its last record, or at the end of the closed shard."""
        part = self._part
        if part.end == SHARD_END:
            ending = part.ending_sequence
            if page.next_iterator is None or (ending is not None and 0 < int(ending) <= self._last):
                self.done = True
            elif not page.records and page.millis_behind == 0:
                # moto never ends a closed shard with a null iterator.
                self._quiet += 1
                self.done = self._quiet >= _BELIEVED
            return
        if self._last >= part.end.number:
            self.done = True
        elif page.next_iterator is None:
            self._end_is_missing()
        elif not page.records and page.millis_behind == 0:
            self._quiet += 1
            if self._quiet >= _BELIEVED:
                self._end_is_missing()

    def _end_is_missing(self) -> None:
        self.done = True
        self._report(self._part.end, None)

    def _check(self, oldest: Record | None) -> None:
        """Whether the record that proves completeness is there, going by the first that is; else if that is a loss."""
        self._checked = True
        part = self._part
        is_there = oldest is not None and oldest.sequence_number == self._proof.sequence
        if self._proof == part.start:
            lost = start_is_lost(part.start, is_there, part.complete_until, part.retention_hours, self._clock())
        else:
            # It was read by this very pass, so others that followed it may have expired with it.
            lost = not is_there
        if lost:
            self._report(self._proof, None if oldest is None else oldest.approximate_arrival_timestamp)

    def _report(self, position: Position, oldest: float | None) -> None:
        part = self._part
        report_loss(
            self._stream,
            part.shard_id,
            position,
            fail=self._fail,
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
