"""Finds where a shard's next batch ends, without reading the shard.

`planner` asks for each shard; the answer is always a real record's sequence number, or the shard's end, so the
range it closes is exact and a replay reads the same records.

One GetRecords(Limit=1) after the position tells whether anything is new, and how far behind that is. If a lot
is, an AT_TIMESTAMP iterator one second back (then 10, 100, …, then bisection; whole seconds) lands near the tip
at a few small calls, where paging through the backlog would read everything twice.
"""

from __future__ import annotations

from dataclasses import replace

from jobs.source.kinesis import capped, nearing
from jobs.source.kinesis.client import ExpiredIteratorError, PositionGoneError, StreamClient
from jobs.source.kinesis.cursor import Cap, Cursor, Found
from jobs.source.kinesis.pace import Pace
from jobs.source.kinesis.position import Position, after
from jobs.source.kinesis.search import Search

# A range of so many records is small: it may share a Spark task.
_WEIGHED_RECORDS = 1000


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
            return self._search(cursor, cap, exhaustive)
        except ExpiredIteratorError:
            return self._search(replace(cursor, iterator=None), cap, exhaustive)

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
            page = self._client.heads(iterator, _WEIGHED_RECORDS)
        except (ExpiredIteratorError, PositionGoneError):
            return None
        positions = [after(head.sequence_number) for head in page.records]
        if not page.caught_up and not (positions and end <= positions[-1]):
            return None
        within = [head for head, position in zip(page.records, positions, strict=True) if position <= end]
        found = replace(cursor, position=end)
        return Found(found, False, 0.0, sum(head.payload_bytes for head in within), len(within))

    def _search(self, cursor: Cursor, cap: Cap, exhaustive: bool) -> Found:
        search = Search(self._client, self._pace, cursor, self._page_limit, exhaustive, leaps=not cap.is_set)
        if not cap.exact and capped.extrapolate(search, cap):
            return search.found()
        first = search.first()
        if first is None:
            return search.found()
        if search.ended or search.caught_up:
            return search.found()
        if cap.seconds and first.millis_behind > cap.seconds * 1000:
            capped.within_seconds(search, cap.seconds)
        if cap.records or cap.bytes:
            capped.count(search, cap)
        elif search.limit is None:
            nearing.jump(search, first)
            nearing.scan(search)
        return search.found()
