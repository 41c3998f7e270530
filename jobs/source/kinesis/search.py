"""One search for the end of one shard's next batch: the calls of `tips`, in their order.

It starts at a cursor and moves `best`, the last record known so far, towards the tip or the cap. Its landings
are only guesses about where to look; what it returns is always a record that Kinesis answered with.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import dropwhile
from math import floor

from jobs.source.kinesis.client import Head, Page, PositionGoneError, StreamClient
from jobs.source.kinesis.cursor import Cap, Cursor, Density, Found
from jobs.source.kinesis.pace import Pace
from jobs.source.kinesis.position import SHARD_END, TRIM_HORIZON, after, at_timestamp

# Empty answers with data ahead that one search follows before it leaves the rest to the next trigger.
_EMPTY_PAGES = 8
# Pages that one search reads forward near the tip; whatever comes later belongs to the next batch.
_SCAN_PAGES = 40
# A window this short is read forward rather than halved again (at most 1 MB/s goes into a shard).
_WINDOW_SECONDS = 8
_STEPS_BACK = tuple(10**power for power in range(8))
_NEAR_LIMIT = 1000
# A density is measured on at least so many records, and trusted for so many batches.
_MEASURED_RECORDS = 100
_USES = 24


class Search:
    """One search in one shard: `best` is the last record known so far, `iterator` reads on behind it."""

    def __init__(self, client: StreamClient, pace: Pace, cursor: Cursor, page_limit: int, exhaustive: bool) -> None:
        self._client = client
        self._pace = pace
        self._start = cursor
        self._page_limit = page_limit
        self._exhaustive = exhaustive
        self.best: Head | None = None
        self.limit: Head | None = None
        self.iterator: str | None = None
        self.ended = False
        self.caught_up = False
        self.empty_from: float | None = None
        self.bytes = 0
        self.taken = 0
        # An aggregate that was read in part is still to be read on.
        self._last_read = cursor.position.number - (cursor.position.sub is not None)
        self._now = 0.0
        self._gone = False
        self._oldest: float | None = None
        self._verified = cursor.verified
        self._first: Head | None = None
        self._density = cursor.density
        self._horizon = cursor.horizon

    def first(self) -> Page[Head] | None:
        """The first page with something new; None where nothing is."""
        if self._start.position == SHARD_END:
            self.ended = True
            return None
        iterator, limit = self._open()
        pages = 0
        while True:
            page = self._heads(iterator, limit)
            self._now = self._now or page.served_at
            self._check(page)
            if self._take(page):
                return page
            if page.next_iterator is None:
                self.ended = True
                return None
            self.iterator = iterator = page.next_iterator
            if page.caught_up:
                self.caught_up = True
                return None
            pages += 1
            if pages >= _EMPTY_PAGES and not self._exhaustive:
                return None

    def _open(self) -> tuple[str, int]:
        start = self._start
        if start.iterator is not None:
            return start.iterator, 1
        if start.position.is_record and not self._verified:
            # At the record, not after it: its presence proves that nothing behind it has been trimmed.
            try:
                return self._client.iterator(start.shard_id, start.position, inclusive=True), 2
            except PositionGoneError:
                self._gone = self._verified = True
                return self._client.iterator(start.shard_id, TRIM_HORIZON), 2
        try:
            limit = 1 if start.position.moment is None else _NEAR_LIMIT
            return self._client.iterator(start.shard_id, start.position), limit
        except PositionGoneError:
            if not start.position.is_record:
                raise
            self._gone = True
            return self._client.iterator(start.shard_id, TRIM_HORIZON), 1

    def _check(self, page: Page[Head]) -> None:
        """On the first records: is the position's own among them?"""
        if page.records and self._oldest is None:
            self._oldest = page.records[0].approximate_arrival_timestamp
        if self._verified or not self._start.position.is_record:
            return
        if page.records:
            self._gone = page.records[0].sequence_number != self._start.position.sequence
            self._verified = True
        elif page.caught_up:
            self._gone = self._verified = True

    def _heads(self, iterator: str, limit: int) -> Page[Head]:
        self._pace.wait(self._start.shard_id)
        return self._client.heads(iterator, limit)

    def _take(self, page: Page[Head]) -> bool:
        """Moves on to the page's last record; False where the page has none behind `best`."""
        floor_number = int(self.best.sequence_number) if self.best else self._last_read
        new = [head for head in page.records if int(head.sequence_number) > floor_number]
        if self.best is None and self._start.position.moment is not None:
            # Iterators start at whole seconds; what came earlier within the second is not part of the query.
            moment = self._start.position.moment.timestamp()
            new = list(dropwhile(lambda head: head.approximate_arrival_timestamp < moment, new))
        if not new:
            return False
        self._first = self._first or new[0]
        self.best = new[-1]
        self._horizon = max(self._horizon, self.best.approximate_arrival_timestamp + page.millis_behind / 1000)
        self.iterator = page.next_iterator
        self.ended = page.next_iterator is None
        self.caught_up = page.caught_up
        self.bytes += sum(head.payload_bytes for head in new)
        self.taken += len(new)
        return True

    def _at(self, moment: float, limit: int) -> Page[Head] | None:
        """The first page with records that arrived at `moment` or later; None where there are none (yet)."""
        position = at_timestamp(datetime.fromtimestamp(floor(moment), UTC))
        iterator: str | None = self._client.iterator(self._start.shard_id, position)
        for _ in range(_EMPTY_PAGES):
            if iterator is None:
                return None
            page = self._heads(iterator, limit)
            if page.records or page.caught_up:
                return page if page.records else None
            iterator = page.next_iterator
        return None

    def within_seconds(self, seconds: int) -> None:
        """Sets `limit`: the first record that arrived `seconds` after the batch's first one, or later."""
        first = self.best
        if first is None:
            return
        moment = floor(first.approximate_arrival_timestamp) + seconds
        page = self._at(moment, 1)
        if page is None:
            self.empty_from = moment
        elif int(page.records[0].sequence_number) > int(first.sequence_number):
            self.limit = page.records[0]

    def count(self, cap: Cap) -> None:
        """Reads forward until the cap (or `limit`) is reached: the last record that still fits is the end."""
        timed = False
        while not self._settled and self.iterator is not None:
            wanted = min(self._page_limit, cap.records - self.taken) if cap.records else self._page_limit
            if wanted <= 0 or (cap.bytes and self.bytes >= cap.bytes):
                break
            page = self._heads(self.iterator, wanted)
            fitting = self._fitting(page, cap)
            if fitting:
                self.best = fitting[-1]
                self.taken += len(fitting)
                self.bytes += sum(head.payload_bytes for head in fitting)
            if len(fitting) < len(page.records):
                self.iterator = None
                break
            self.iterator = page.next_iterator
            self.ended = page.next_iterator is None
            self.caught_up = page.caught_up
            timed = timed or page.millis_behind > 0
        self.limit = None
        self._measure(timed)

    def _measure(self, timed: bool) -> None:
        """Keeps how dense the counted records were, for `extrapolate`."""
        self._density = None
        if self._first is None or self.best is None or self.taken < _MEASURED_RECORDS or self._settled:
            return
        gaps = self.taken - 1
        self._density = Density(
            numbers=(int(self.best.sequence_number) - int(self._first.sequence_number)) // gaps,
            seconds=(self.best.approximate_arrival_timestamp - self._first.approximate_arrival_timestamp) / gaps,
            bytes=self.bytes / self.taken,
            timed=timed,
        )

    def extrapolate(self, cap: Cap) -> bool:
        """Lands about as far ahead as the cap allows, going by the density last counted; False where that fails.

        Counting reads the whole batch, so a backlog would cost twice its bytes of the shard's 2 MB/s.
        """
        density = self._density
        start = self._start
        if density is None or density.uses >= _USES or cap.seconds or not (self._verified and start.position.is_record):
            return False
        count = min(float(cap.records or "inf"), (cap.bytes or float("inf")) / max(1.0, density.bytes))
        if count < _MEASURED_RECORDS:
            return False
        if density.timed:
            moment = floor(start.arrival + count * density.seconds)
            if moment < start.arrival + 1 or moment >= self._horizon:
                return False
            page = self._at(moment, 1)
        else:
            page = self._at_number(density.ahead(start.position.number, int(count)))
        if page is None or not self._take(page):
            return False
        self.bytes, self.taken = int(count * density.bytes), int(count)
        self._density = density.used()
        return True

    def _at_number(self, number: int) -> Page[Head] | None:
        """The first record at or behind a made-up sequence number; None where there is none, or it is refused.

        Only for servers whose `MillisBehindLatest` says nothing (kinesalite): AWS does not document this.
        """
        try:
            iterator = self._client.iterator(self._start.shard_id, after(str(number)))
        except PositionGoneError:
            return None
        page = self._heads(iterator, 1)
        return page if page.records else None

    def _fitting(self, page: Page[Head], cap: Cap) -> list[Head]:
        """The page's first records, up to the cap in bytes and to `limit`."""
        size, fitting = self.bytes, []
        for head in page.records:
            size += head.payload_bytes
            if cap.bytes and size > cap.bytes:
                break
            if self.limit is not None and int(head.sequence_number) > int(self.limit.sequence_number):
                break
            fitting.append(head)
        return fitting

    def jump(self, first: Page[Head]) -> None:
        """Lands near the tip: by time, where the first page says how far it is, else by sequence numbers."""
        if self.best is None:
            return
        if first.millis_behind == 0:
            self._gallop()
            return
        now = floor(self._now)
        begin = self.best.approximate_arrival_timestamp
        ahead = self.empty_from if self.empty_from is not None else now + 1
        for back in _STEPS_BACK:
            moment = now - back
            if moment <= self.best.approximate_arrival_timestamp or self.ended:
                break
            if moment >= ahead:
                continue
            if self._land(moment):
                break
            ahead = moment
        while not self._settled and ahead - self.best.approximate_arrival_timestamp > _WINDOW_SECONDS:
            moment = floor((ahead + self.best.approximate_arrival_timestamp) / 2)
            if not self._land(moment):
                ahead = moment
        # Between the first record and the landing nothing was counted: estimate by the rate near the tip.
        span = max(1.0, self.best.approximate_arrival_timestamp - begin)
        if span > _WINDOW_SECONDS:
            self.bytes, self.taken = int(self.bytes * span / _WINDOW_SECONDS), 0

    def _gallop(self) -> None:
        """More was asked for than came although nothing is said to be ahead: looks ahead in growing steps."""
        if self.iterator is None:
            return
        page = self._heads(self.iterator, _NEAR_LIMIT)
        if not self._take(page) or self._settled or self._first is None or self.best is None:
            self.caught_up = self.caught_up or page.caught_up
            return
        density = Density(
            numbers=max(1, (int(self.best.sequence_number) - int(self._first.sequence_number)) // (self.taken - 1)),
            seconds=0.0,
            bytes=self.bytes / self.taken,
            timed=False,
        )
        begin, reach, ahead = int(self.best.sequence_number), 8 * _NEAR_LIMIT, None
        while ahead is None:
            target = density.ahead(int(self.best.sequence_number), reach)
            landed = self._at_number(target)
            if landed is None or not self._take(landed):
                ahead = target
            reach *= 2
        while not self._settled and ahead - int(self.best.sequence_number) > density.numbers * self._page_limit:
            target = (ahead + int(self.best.sequence_number)) // 2
            target = density.ahead(
                int(self.best.sequence_number), (target - int(self.best.sequence_number)) // density.numbers
            )
            landed = self._at_number(target)
            if landed is None or not self._take(landed):
                ahead = target
        self.taken = (int(self.best.sequence_number) - begin) // density.numbers
        self.bytes = int(self.taken * density.bytes)

    @property
    def _settled(self) -> bool:
        return self.ended or self.caught_up

    def _land(self, moment: float) -> bool:
        page = self._at(moment, _NEAR_LIMIT)
        return page is not None and self._take(page)

    def scan(self) -> None:
        """Reads forward from `best` to the tip, or to what arrived after the search began."""
        pages = 0
        while not self._settled and self.iterator is not None:
            if self.best is not None and self.best.approximate_arrival_timestamp > self._now + 1:
                return
            if pages >= _SCAN_PAGES and not self._exhaustive:
                return
            page = self._heads(self.iterator, self._page_limit)
            pages += 1
            if not self._take(page):
                self.iterator = page.next_iterator
                self.ended = page.next_iterator is None
                self.caught_up = page.caught_up

    def found(self) -> Found:
        shard_id, position = self._start.shard_id, self._start.position
        verified = self._verified
        best: Head | None
        if self.limit is not None:
            best, iterator = self.limit, None
        else:
            best, iterator = self.best, self.iterator
        if self.ended:
            position, iterator = SHARD_END, None
        elif best is not None:
            position, verified = after(best.sequence_number), True
        at_tip = self._settled and self.limit is None
        arrival = best.approximate_arrival_timestamp if best is not None else 0.0
        return Found(
            cursor=Cursor(shard_id, position, iterator, verified, arrival, self._density, self._horizon),
            at_tip=at_tip,
            until=self._now if at_tip else arrival,
            bytes=self.bytes,
            records=self.taken,
            gone=self._gone,
            oldest=self._oldest,
        )
