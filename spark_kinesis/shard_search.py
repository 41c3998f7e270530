"""One search for the end of one shard's next batch: the calls of `tips`, in their order.

It starts at a cursor and moves `best`, the last record known so far, towards the tip or the cap. Its landings
are only guesses about where to look; what it returns is always a record that Kinesis answered with.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import dropwhile
from math import floor

from spark_kinesis.client import Page, RecordHeader, StreamClient
from spark_kinesis.cursor import Cursor, Found
from spark_kinesis.errors import ExpiredIteratorError, PositionGoneError
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, after, at_timestamp
from spark_kinesis.rate_limiter import Pace

# Empty answers with data ahead that a guess follows, and a search before it tries to leap over the stretch …
_EMPTY_PAGES = 8
# … and those that it follows in all, before it leaves the rest to the next trigger.
_MOST_EMPTY_PAGES = 100
_LEAPS_BACK = tuple(10**power for power in range(8))
# Up to where nothing is unread goes by this host's clock or by MillisBehindLatest: a search goes on a bit before.
_MARGIN_SECONDS = 600
_NEAR_LIMIT = 1000


class Search:
    """One search in one shard: `best` is the last record known so far, `iterator` reads on behind it.

    exhaustive   goes on until a record or the tip is found, however many calls that takes
    leaps        may pass a long stretch without records for a record near the tip, wherever the batch then ends
    """

    def __init__(
        self,
        client: StreamClient,
        pace: Pace,
        cursor: Cursor,
        page_limit: int,
        exhaustive: bool,
        leaps: bool = False,
    ) -> None:
        self._client = client
        self._pace = pace
        self.cursor = cursor
        self.page_limit = page_limit
        self.exhaustive = exhaustive
        self.leaps = leaps
        self.best: RecordHeader | None = None
        self.limit: RecordHeader | None = None
        self.iterator: str | None = None
        self.look = 1
        self.ended = False
        self.caught_up = False
        self.empty_from: float | None = None
        self.bytes = 0
        self.taken = 0
        # An aggregate that was read in part is still to be read on.
        self._last_read = cursor.position.number - (cursor.position.sub is not None)
        self.now = 0.0
        self._place = 0.0
        self._gone = False
        self._oldest: float | None = None
        self.verified = cursor.verified
        self.first_new: RecordHeader | None = None
        self.density = cursor.density
        self.horizon = cursor.horizon

    def first(self) -> Page[RecordHeader] | None:
        """The first page with something new; None where nothing is."""
        if self.cursor.position == SHARD_END:
            self.ended = True
            return None
        iterator, limit = self._open()
        pages = 0
        while True:
            page = self.headers(iterator, limit)
            self.now = self.now or page.served_at
            self._check(page)
            if self.take(page):
                return page
            if page.next_iterator is None:
                self.ended = True
                return None
            self.iterator = iterator = page.next_iterator
            if page.caught_up:
                self.caught_up = True
                return None
            pages += 1
            self._place = max(self._place, page.served_at - page.millis_behind / 1000)
            if pages == _EMPTY_PAGES:
                landing = self._leap() if self.leaps else None
                if landing is not None:
                    return landing
                iterator = self._resumed() or iterator
            if pages >= _MOST_EMPTY_PAGES and not self.exhaustive:
                return None

    def _leap(self) -> Page[RecordHeader] | None:
        """A page of records near the tip, if a few calls find any. The stretch before it is left to the readers."""
        for back in _LEAPS_BACK:
            moment = self.now - back
            if moment <= self._place:
                return None
            page = self.at(moment, _NEAR_LIMIT)
            if page is not None and self.take(page):
                return page
        return None

    def _resumed(self) -> str | None:
        """An iterator where an earlier search, of this process or another, had got to; None where that is not ahead.

        So a shard that was idle for long is not walked through again, and a job that ends with each trigger comes
        through a stretch of any length.
        """
        moment = self.cursor.empty_to - _MARGIN_SECONDS
        if not self._place < moment < self.now:
            return None
        position = at_timestamp(datetime.fromtimestamp(floor(moment), UTC))
        return self._client.iterator(self.cursor.shard_id, position)

    def _open(self) -> tuple[str, int]:
        start = self.cursor
        if start.iterator is not None:
            return start.iterator, self.look
        if start.position.is_record and not self.verified:
            # At the record, not after it: its presence proves that nothing behind it has been trimmed.
            try:
                return self._client.iterator(start.shard_id, start.position, inclusive=True), self.look + 1
            except PositionGoneError:
                self._gone = self.verified = True
                return self._client.iterator(start.shard_id, TRIM_HORIZON), self.look + 1
        try:
            limit = self.look if start.position.moment is None else _NEAR_LIMIT
            return self._client.iterator(start.shard_id, start.position), limit
        except PositionGoneError:
            if not start.position.is_record:
                raise
            self._gone = True
            return self._client.iterator(start.shard_id, TRIM_HORIZON), self.look

    def _check(self, page: Page[RecordHeader]) -> None:
        """On the first records: is the position's own among them?"""
        if page.records and self._oldest is None:
            self._oldest = page.records[0].arrival
        if self.verified or not self.cursor.position.is_record:
            return
        if page.records:
            self._gone = page.records[0].sequence_number != self.cursor.position.sequence
            self.verified = True
        elif page.caught_up:
            self._gone = self.verified = True

    def headers(self, iterator: str, limit: int) -> Page[RecordHeader]:
        self._pace.wait(self.cursor.shard_id)
        return self._client.headers(iterator, limit)

    def read_on(self, limit: int) -> Page[RecordHeader]:
        """The page behind `best`, which there must be, at an iterator that is opened anew where there is none."""
        if self.iterator is not None:
            try:
                return self.headers(self.iterator, limit)
            except ExpiredIteratorError:
                pass
        position = after(self.best.sequence_number) if self.best is not None else self.cursor.position
        return self.headers(self._client.iterator(self.cursor.shard_id, position), limit)

    def take(self, page: Page[RecordHeader]) -> bool:
        """Moves on to the page's last record; False where the page has none behind `best`."""
        floor_number = self.best.number if self.best else self._last_read
        new = [header for header in page.records if header.number > floor_number]
        if self.best is None and self.cursor.position.moment is not None:
            # Iterators start at whole seconds; what came earlier within the second is not part of the query.
            moment = self.cursor.position.moment.timestamp()
            new = list(dropwhile(lambda header: header.arrival < moment, new))
        if not new:
            return False
        self.first_new = self.first_new or new[0]
        self.best = new[-1]
        self.horizon = max(self.horizon, self.best.arrival + page.millis_behind / 1000)
        self.iterator = page.next_iterator
        self.ended = page.next_iterator is None
        self.caught_up = page.caught_up
        self.bytes += sum(header.payload_bytes for header in new)
        self.taken += len(new)
        return True

    def rewind(self) -> None:
        """Back to the first new record, where a first look at a time of arrival took many."""
        if self.first_new is not None and self.taken > 1:
            self.best, self.taken, self.bytes = self.first_new, 1, self.first_new.payload_bytes
            self.iterator, self.ended, self.caught_up = None, False, False

    def at(self, moment: float, limit: int) -> Page[RecordHeader] | None:
        """The first page with records that arrived at `moment` or later; None where there are none (yet)."""
        position = at_timestamp(datetime.fromtimestamp(floor(moment), UTC))
        iterator: str | None = self._client.iterator(self.cursor.shard_id, position)
        for _ in range(_EMPTY_PAGES):
            if iterator is None:
                return None
            page = self.headers(iterator, limit)
            if page.records or page.caught_up:
                return page if page.records else None
            iterator = page.next_iterator
        return None

    def at_number(self, number: int) -> Page[RecordHeader] | None:
        """The first record at or behind a made-up sequence number; None where there is none, or it is refused.

        Only for servers whose `MillisBehindLatest` says nothing (kinesalite): AWS does not document this.
        """
        try:
            iterator = self._client.iterator(self.cursor.shard_id, after(str(number)))
        except PositionGoneError:
            return None
        page = self.headers(iterator, 1)
        return page if page.records else None

    @property
    def arrival(self) -> float:
        """When `best` arrived."""
        return self.best.arrival if self.best is not None else 0.0

    @property
    def settled(self) -> bool:
        return self.ended or self.caught_up

    def found(self) -> Found:
        shard_id, position = self.cursor.shard_id, self.cursor.position
        verified = self.verified
        best: RecordHeader | None
        if self.limit is not None:
            best, iterator = self.limit, None
        else:
            best, iterator = self.best, self.iterator
        if self.ended:
            position, iterator = SHARD_END, None
        elif best is not None:
            position, verified = after(best.sequence_number), True
        at_tip = self.settled and self.limit is None
        arrival = best.arrival if best is not None else 0.0
        empty_to = max(self._place, self.cursor.empty_to) if best is None else 0.0
        return Found(
            cursor=Cursor(shard_id, position, iterator, verified, arrival, self.density, self.horizon, empty_to),
            at_tip=at_tip,
            until=self.now if at_tip else arrival or self._place,
            bytes=self.bytes,
            records=self.taken,
            gone=self._gone,
            oldest=self._oldest,
            first=self.first_new.number if self.first_new else 0,
            since=self.first_new.arrival if self.first_new else 0.0,
        )
