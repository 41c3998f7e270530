"""One search for the end of a shard's next batch: its calls to Kinesis, and what the answers have shown so far.

A search starts at a `Cursor` and moves `last`, the last record seen, towards the shard's tip (`tip_search`) or the
batch's cap (`batch_limits`). It may guess where to look, but it ends at a record that Kinesis returned, or at the
shard's end. So the range that it closes is exact, and a replay reads the same records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import dropwhile
from math import floor

from spark_kinesis.client import Page, RecordHeader, StreamClient
from spark_kinesis.errors import ExpiredIteratorError, FutureTimeError, PositionGoneError, StreamAccessError
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, Position, after, at_timestamp
from spark_kinesis.rate_limiter import RateLimiter

# Records of one call near the tip, or at a time of arrival.
NEAR_LIMIT = 1000
# After this number of empty answers with data ahead, a search tries to skip the stretch without records …
EMPTY_PAGES = 8
# … and after this number it leaves the rest of the stretch to the next trigger.
_MOST_EMPTY_PAGES = 100
_SECONDS_BACK = tuple(10**power for power in range(8))
# The bits of a 186-bit sequence number that hold the shard and the time; the bits above them count.
_COUNTER_SHIFT = 80
# Safety margin. A search restarts this long before the last known empty point, because the two clocks may differ.
_MARGIN_SECONDS = 600


@dataclass(frozen=True, slots=True)
class RecordRate:
    """The average distance in time and the average size of a shard's records, where they were last counted.

    batches  how many batches have been extrapolated from it
    """

    seconds: float
    bytes: float
    batches: int = 0

    def used(self) -> RecordRate:
        return replace(self, batches=self.batches + 1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the planner is in one shard: everything up to `position` belongs to earlier batches.

    first_limit   how many records the next search asks for first: in a trickle one call then returns everything new
    iterator      an open shard iterator directly after `position`, or None
    verified      this process has seen the position's record in the stream
    arrival       when the position's record arrived, in seconds since 1970; 0 if unknown
    rate          how dense the shard's records were, if they were counted
    tip_time      the latest value of `ShardSearch.tip_time`
    empty_until   no record after `position` arrived before this time, as far as is known (seconds since 1970; 0 if
                  unknown). It only tells where to look in a long stretch without records; no range begins there
    """

    shard_id: str
    position: Position
    first_limit: int = field(default=10, kw_only=True)
    iterator: str | None = None
    verified: bool = False
    arrival: float = 0.0
    rate: RecordRate | None = None
    tip_time: float = 0.0
    empty_until: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    cursor          where the batch ends; its position is the old one if nothing is new
    at_tip          the shard held nothing after the cursor when it was searched
    complete_until  every record that arrived before this time (seconds since 1970) is at or before the cursor
    bytes, records  approximate size of the range; `records` is 0 if unknown
    gone            the old position's record had left the stream
    oldest_arrival  if it had: when the oldest record left arrived
    first_number, first_arrival
                    the first record after the old position; 0 if none was seen

    Example: the position is 5, and the search saw that records 6 and 7 follow and nothing else. The cursor's position
    is 7, `records` is 2, `first_number` is 6 and `at_tip` is true.
    """

    cursor: Cursor
    at_tip: bool
    complete_until: float
    bytes: int = 0
    records: int = 0
    gone: bool = False
    oldest_arrival: float | None = None
    first_number: int = 0
    first_arrival: float = 0.0


class ShardSearch:
    """The state of one search in one shard.

    first, last  the first and the last new record seen; None until one is
    iterator     continues after `last`; None if it has to be opened
    ended        the shard is closed and `last` is its last record
    caught_up    the shard held nothing after `last` when it was asked
    records, bytes
                 the size of what follows the cursor, up to `last`: counted, or estimated
    served_at    the server's clock at the search's first answer
    tip_time     a record's arrival plus the `MillisBehindLatest` that came with it: the shard's last record arrived no
                 later. On AWS it is the server's present time, on moto the arrival of the shard's last record

    exhaustive   continues until a record or the tip is found, with any number of calls
    may_skip     may skip a long stretch without records if there is a record near the tip
    """

    def __init__(
        self,
        client: StreamClient,
        limiter: RateLimiter,
        cursor: Cursor,
        *,
        page_limit: int = 1,
        first_limit: int = 1,
        exhaustive: bool = False,
        may_skip: bool = False,
    ) -> None:
        self._client = client
        self._limiter = limiter
        self._first_limit = first_limit
        self._may_skip = may_skip
        self.cursor = cursor
        self.page_limit = page_limit
        self.exhaustive = exhaustive
        self.first: RecordHeader | None = None
        self.last: RecordHeader | None = None
        self.iterator: str | None = None
        self.ended = False
        self.caught_up = False
        self.records = 0
        self.bytes = 0
        self.served_at = 0.0
        self.tip_time = cursor.tip_time
        self.rate = cursor.rate
        self.verified = cursor.verified
        self._gone = False
        self._oldest: float | None = None
        self._empty_until = 0.0

    @property
    def finished(self) -> bool:
        """Whether nothing is left after `last`."""
        return self.ended or self.caught_up

    @property
    def _start_time(self) -> float:
        """Where the cursor is a start time: that time, in seconds since 1970. Otherwise 0."""
        moment = self.cursor.position.moment
        return 0.0 if moment is None else moment.timestamp()

    @property
    def arrival(self) -> float:
        """When `last` arrived."""
        return self.last.arrival if self.last is not None else 0.0

    # Calls

    def first_page(self) -> Page[RecordHeader] | None:
        """The first page with a new record; None if nothing is new, or nothing was found yet."""
        if self.cursor.position == SHARD_END:
            self.ended = True
            return None
        try:
            iterator, limit = self._open()
        except FutureTimeError:
            # Nothing can have arrived at the start time or later.
            self.caught_up, self.served_at = True, self._start_time
            return None
        pages = 0
        while True:
            page = self._headers(iterator, limit)
            self.served_at = self.served_at or page.served_at
            self._check_position(page)
            if self.accept(page):
                return page
            if page.next_iterator is None:
                self.ended = True
                return None
            self.iterator = iterator = page.next_iterator
            if page.caught_up:
                self.caught_up = True
                return None
            pages += 1
            self._empty_until = max(self._empty_until, page.served_at - page.millis_behind / 1000)
            if pages == EMPTY_PAGES:
                near_tip = self._skip_to_tip() if self._may_skip else None
                if near_tip is not None:
                    return near_tip
                iterator = self._skip_known_stretch() or iterator
            if pages >= _MOST_EMPTY_PAGES and not self.exhaustive:
                return None

    def read_on(self, limit: int) -> Page[RecordHeader]:
        """The page after `last`. Opens an iterator if none is open, or if it has expired."""
        if self.iterator is not None:
            try:
                return self._headers(self.iterator, limit)
            except ExpiredIteratorError:
                pass
        position = after(self.last.sequence_number) if self.last is not None else self.cursor.position
        return self._headers(self._client.iterator(self.cursor.shard_id, position), limit)

    def page_at(self, moment: float, limit: int) -> Page[RecordHeader] | None:
        """The first page of records that arrived at `moment` or later; None if a few calls find none.

        Only for servers that tell their lag: kinesalite never answers an AT_TIMESTAMP after the shard's last record.
        AWS refuses one in the future, and its front ends' clocks differ by some milliseconds.
        """
        position = at_timestamp(datetime.fromtimestamp(floor(moment), UTC))
        try:
            iterator: str | None = self._client.iterator(self.cursor.shard_id, position)
        except FutureTimeError:
            return None
        for _ in range(EMPTY_PAGES):
            if iterator is None:
                return None
            page = self._headers(iterator, limit)
            if page.records or page.caught_up:
                return page if page.records else None
            iterator = page.next_iterator
        return None

    def page_at_number(self, number: int) -> Page[RecordHeader] | None:
        """A page of the first record after this number, which need not be a record's own; None if no record follows.

        Only for emulators: AWS does not document it, and some servers refuse such a number.
        """
        if self.last is not None and self.last.number >> 2 * _COUNTER_SHIFT:
            number = number >> _COUNTER_SHIFT << _COUNTER_SHIFT | self.last.number & (1 << _COUNTER_SHIFT) - 1
        try:
            page = self._headers(self._client.iterator(self.cursor.shard_id, after(str(number))), 1)
        except (PositionGoneError, StreamAccessError):
            return None
        return page if page.records else None

    def _headers(self, iterator: str, limit: int) -> Page[RecordHeader]:
        self._limiter.wait(self.cursor.shard_id)
        page = self._client.headers(iterator, limit)
        if page.records:
            self.tip_time = max(self.tip_time, page.records[-1].arrival + page.millis_behind / 1000)
        return page

    def _open(self) -> tuple[str, int]:
        """The search's first iterator, and how many records to ask for."""
        start, limit = self.cursor, self._first_limit
        if start.iterator is not None:
            return start.iterator, limit
        if start.position.is_record and not self.verified:
            # At the record, not after it: if it is there, nothing after it has expired.
            try:
                return self._client.iterator(start.shard_id, start.position, inclusive=True), limit + 1
            except PositionGoneError:
                self._gone = self.verified = True
                return self._client.iterator(start.shard_id, TRIM_HORIZON), limit + 1
        try:
            return (
                self._client.iterator(start.shard_id, start.position),
                limit if start.position.moment is None else NEAR_LIMIT,
            )
        except PositionGoneError:
            if not start.position.is_record:
                raise
            self._gone = True
            return self._client.iterator(start.shard_id, TRIM_HORIZON), limit

    def _skip_to_tip(self) -> Page[RecordHeader] | None:
        """A page of records near the tip, if a few calls find one. The readers pass the stretch before it."""
        for back in _SECONDS_BACK:
            moment = self.served_at - back
            if moment <= self._empty_until:
                return None
            page = self.page_at(moment, NEAR_LIMIT)
            if page is not None and self.accept(page):
                return page
        return None

    def _skip_known_stretch(self) -> str | None:
        """An iterator where an earlier search stopped, in this process or another; None if that is not ahead.

        So an idle stretch is not walked through again, and a job that ends after each trigger passes one of any length.
        """
        moment = self.cursor.empty_until - _MARGIN_SECONDS
        if not self._empty_until < moment < self.served_at:
            return None
        position = at_timestamp(datetime.fromtimestamp(floor(moment), UTC))
        return self._client.iterator(self.cursor.shard_id, position)

    # What the answers show

    def _check_position(self, page: Page[RecordHeader]) -> None:
        """Looks for the position's own record in the first page that has records."""
        if page.records and self._oldest is None:
            self._oldest = page.records[0].arrival
        if self.verified or not self.cursor.position.is_record:
            return
        if page.records:
            self._gone = page.records[0].sequence_number != self.cursor.position.sequence
            self.verified = True
        elif page.caught_up:
            self._gone = self.verified = True

    def accept(self, page: Page[RecordHeader]) -> bool:
        """Moves to the page's last record; False if the page has no record after `last`."""
        known = self.last.number if self.last else self.cursor.position.last_whole_record
        new = [header for header in page.records if header.number > known]
        if self.last is None:
            # Iterators start at whole seconds; the query starts within the second.
            new = list(dropwhile(lambda header: header.arrival < self._start_time, new))
        if not new:
            return False
        self.add(new)
        self.continue_after(page)
        return True

    def add(self, headers: Sequence[RecordHeader]) -> None:
        """Takes these records, which follow `last`, into the range."""
        if headers:
            self.first = self.first or headers[0]
            self.last = headers[-1]
            self.records += len(headers)
            self.bytes += sum(header.payload_bytes for header in headers)

    def continue_after(self, page: Page[RecordHeader]) -> None:
        """The next page is the one after `page`."""
        self.iterator = page.next_iterator
        self.ended = page.next_iterator is None
        self.caught_up = page.caught_up

    def stop_at(self, header: RecordHeader, records: int, size: int) -> None:
        """Ends the range with this record, at an estimated size."""
        self.last, self.records, self.bytes = header, records, size
        self.iterator, self.ended, self.caught_up = None, False, False

    def rewind(self) -> None:
        """Returns to the first new record: a first page at a time of arrival holds many."""
        if self.first is not None and self.records > 1:
            self.stop_at(self.first, 1, self.first.payload_bytes)

    def result(self) -> SearchResult:
        position, iterator, verified = self.cursor.position, self.iterator, self.verified
        if self.ended:
            position, iterator = SHARD_END, None
        elif self.last is not None:
            position, verified = after(self.last.sequence_number), True
        empty_until = max(self._empty_until, self.cursor.empty_until) if self.last is None else 0.0
        return SearchResult(
            cursor=Cursor(
                self.cursor.shard_id,
                position,
                iterator=iterator,
                verified=verified,
                arrival=self.arrival,
                rate=self.rate,
                tip_time=self.tip_time,
                empty_until=empty_until,
            ),
            at_tip=self.finished,
            complete_until=self.served_at if self.finished else self.arrival or self._empty_until,
            bytes=self.bytes,
            records=self.records,
            gone=self._gone,
            oldest_arrival=self._oldest,
            first_number=self.first.number if self.first else 0,
            first_arrival=self.first.arrival if self.first else 0.0,
        )
