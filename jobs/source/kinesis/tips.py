"""Finds where a shard's next batch ends, without reading the shard.

`planner` asks for each shard; the answer is always a real record's sequence number, or the shard's end, so the
range it closes is exact and a replay reads the same records.

One small GetRecords after the position tells whether anything is new, and how far behind that is. It asks for one
record; where little came the last time, for twice as many, so that a trickle costs one call. If more is new, an
AT_TIMESTAMP iterator at this second's begin (then 1, 10, 100, … back, then bisection; whole seconds) lands near the
tip: of a steady stream at most its last second is read twice, half of one on average.
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
        search = Search(self._client, self._pace, cursor, self._page_limit, exhaustive)
        # What is counted up to a cap is counted from the first record on.
        search.look = 1 if cap.is_set else cursor.look
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
            nearing.approach(search, first)
        return search.found()


def _next_look(found: Found, before: int) -> int:
    """Twice what was found, if that is little; a shard that brings more is looked at for one record, then landed in."""
    if not found.records:
        return before
    little = 2 * found.records <= _LOOK_RECORDS and 2 * found.bytes <= _LOOK_BYTES
    return 2 * found.records if little else 1
