"""Finds where a shard's next batch ends, without reading the shard.

`planner` asks for each shard; the answer is always a real record's sequence number, or the shard's end, so the
range it closes is exact and a replay reads the same records.

One small GetRecords after the position tells whether anything is new, and how far behind that is. It asks for one
record; where little came the last time, for twice as many, so that a trickle costs one call. If more is new, an
AT_TIMESTAMP iterator at this second's begin (then 1, 10, 100, … back, then bisection; whole seconds) lands near the
tip: of a steady stream at most its last second is read twice, half of one on average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from spark_kinesis import capped
from spark_kinesis import tip_search as nearing
from spark_kinesis.client import Page, RecordHeader, StreamClient
from spark_kinesis.cursor import Cap, Cursor, Found
from spark_kinesis.errors import ExpiredIteratorError, PositionGoneError
from spark_kinesis.offset import Position, after
from spark_kinesis.rate_limiter import Pace
from spark_kinesis.shard_search import Search

# A range of so many records is small: it may share a Spark task.
_WEIGHED_RECORDS = 1000
# The most that a search asks for first.
_LOOK_RECORDS = 500
_LOOK_BYTES = 64 * 1024


class Tips:
    """Searches in one stream. Thread-safe: it holds nothing but the client and the pace."""

    def __init__(self, client: StreamClient, pace: Pace, *, page_limit: int = 10_000) -> None:
        self._client = client
        self._pace = pace
        self._page_limit = page_limit

    def search(self, cursor: Cursor, cap: Cap, *, exhaustive: bool = False) -> Found:
        """The next end behind `cursor`. `exhaustive`: every record that is there when the search starts.

        An iterator that has expired is opened again, once.
        """
        try:
            found = self._search(cursor, cap, exhaustive)
        except ExpiredIteratorError:
            found = self._search(replace(cursor, iterator=None), cap, exhaustive)
        return replace(found, cursor=replace(found.cursor, look=_next_look(found, cursor.look)))

    def peek(self, cursor: Cursor) -> Found:
        """What comes first behind `cursor`: `since` says when it arrived, `gone` whether the position's record is
        there. `until` is as late as the first record allows."""
        try:
            found = self._peek(cursor)
        except ExpiredIteratorError:
            found = self._peek(cursor)
        return replace(found, until=found.since or found.until)

    def _peek(self, cursor: Cursor) -> Found:
        search = Search(self._client, self._pace, replace(cursor, iterator=None, verified=False), 1, False)
        search.first()
        return search.found()

    def weigh(self, cursor: Cursor, end: Position) -> Found | None:
        """What lies between the cursor and an end that is known, if one small page holds it all; else None."""
        try:
            iterator = self._client.iterator(cursor.shard_id, cursor.position)
            self._pace.wait(cursor.shard_id)
            page = self._client.headers(iterator, _WEIGHED_RECORDS)
        except (ExpiredIteratorError, PositionGoneError):
            return None
        positions = [after(header.sequence_number) for header in page.records]
        if not page.caught_up and not (positions and end <= positions[-1]):
            return None
        within = [header for header, position in zip(page.records, positions, strict=True) if position <= end]
        found = replace(cursor, position=end)
        return Found(found, False, 0.0, sum(header.payload_bytes for header in within), len(within))

    def begin(self, cursor: Cursor, cap: Cap, *, exhaustive: bool = False) -> Turn:
        """A shard's turn in a batch whose cap in records or bytes is divided among several."""
        return Turn(lambda cursor: self._started(cursor, exhaustive), cursor, cap)

    def _started(self, cursor: Cursor, exhaustive: bool, *, leaps: bool = False) -> Search:
        return Search(self._client, self._pace, cursor, self._page_limit, exhaustive, leaps)

    def _search(self, cursor: Cursor, cap: Cap, exhaustive: bool) -> Found:
        search = self._started(cursor, exhaustive, leaps=not cap.is_set)
        # Seconds are counted from the first record on.
        search.look = 1 if cap.is_set else cursor.look
        first = search.first()
        if first is None or search.settled:
            return search.found()
        behind_limit = _keep_within(search, first, cap)
        if behind_limit is None:
            nearing.approach(search, first)
        else:
            capped.estimate_seconds(search, behind_limit)
        return search.found()


class Turn:
    """One shard's turn in a capped batch: looked at first, then counted up to its share of the cap, maybe twice.

    predicts   the shard goes on as it was counted earlier, so it is not looked at, nor counted, but jumped ahead in
    """

    def __init__(self, start: Callable[[Cursor], Search], cursor: Cursor, cap: Cap) -> None:
        self._start = start
        self._cursor = cursor
        self.shard_id, self.position = cursor.shard_id, cursor.position
        self._search = start(cursor)
        self._limit: RecordHeader | None = None
        self.predicts = capped.predicts(self._search, cap)
        if not self.predicts:
            self._look(cap)

    def _look(self, cap: Cap) -> None:
        try:
            first = self._search.first()
        except ExpiredIteratorError:
            self._search = self._start(replace(self._cursor, iterator=None))
            first = self._search.first()
        self._search.rewind()
        if first is not None and not self._search.settled:
            _keep_within(self._search, first, cap)
            self._limit = self._search.limit

    @property
    def goes_on(self) -> bool:
        """Whether the shard is known to hold more for this batch."""
        best = self._search.best
        if best is None:
            return self.predicts
        return not self._search.settled and (self._limit is None or best.number < self._limit.number)

    @property
    def used(self) -> tuple[int, int]:
        """Records and bytes of the batch so far."""
        return self._search.taken, self._search.bytes

    def take(self, cap: Cap) -> None:
        """Moves on until the shard has given so much in all."""
        if self.predicts:
            if capped.extrapolate(self._search, cap):
                return
            self._look(cap)
        if self.goes_on and self._search.best is not None:
            self._search.limit = self._limit
            capped.count(self._search, cap)

    def found(self) -> Found:
        found = self._search.found()
        # At its tip a shard may become idle, and is looked at again.
        return replace(found, cursor=replace(found.cursor, density=None)) if found.at_tip else found


def _keep_within(search: Search, first: Page[RecordHeader], cap: Cap) -> Page[RecordHeader] | None:
    """Sets the search's limit where more seconds of stream than the cap's lie ahead, and answers with its page.

    By their times of arrival, where the server does not say how far it is behind (kinesalite).
    """
    lag = first.millis_behind / 1000 or search.now - search.arrival
    return capped.within_seconds(search, cap.seconds) if cap.seconds and lag > cap.seconds else None


def _next_look(found: Found, before: int) -> int:
    """Twice what was found, if that is little; a shard that brings more is looked at for one record, then landed in."""
    if not found.records:
        return before
    little = 2 * found.records <= _LOOK_RECORDS and 2 * found.bytes <= _LOOK_BYTES
    return 2 * found.records if little else 1
