"""Finds a shard's tip, its last record, without reading the shard.

One small GetRecords after the position shows whether anything is new, and how far behind that is. It asks for one
record, or in a trickle for twice the records of the last search, so that a trickle costs one call. If more is new,
an AT_TIMESTAMP iterator at the start of the present second (then 1, 10, 100, … seconds back, then bisection) lands
near the tip, and the search reads on from there. Of a steady stream this reads at most the last second twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import floor
from typing import TypeVar

from spark_kinesis.client import Page, RecordHeader, StreamClient
from spark_kinesis.errors import ExpiredIteratorError, FutureTimeError, PositionGoneError
from spark_kinesis.offset import TRIM_HORIZON, Position, after
from spark_kinesis.rate_limiter import RateLimiter
from spark_kinesis.shard_search import NEAR_LIMIT, Cursor, SearchResult, ShardSearch

T = TypeVar("T")
# The most records of a range that is measured, to let it share a Spark task.
_SMALL_RANGE = 1000
# A trickle: the first call asks for no more records than this, of no more bytes in all.
_TRICKLE_RECORDS = 500
_TRICKLE_BYTES = 64 * 1024
# Pages that one search reads on from its landing; what comes after them belongs to the next batch.
_READ_ON_PAGES = 40
# A window as short as this is read rather than halved again (at most 1 MB/s goes into a shard).
_WINDOW_SECONDS = 4
_SECONDS_BACK = (0, *(10**power for power in range(8)))
# Empty answers with data ahead that `shard_lags` follows, as AWS may give them in a sparse shard.
_LAG_EMPTY_PAGES = 5
# A rate is never taken from less time than this.
_SHORTEST_SECONDS = 0.1


class ShardSearcher:
    """Starts the searches in one stream. Thread-safe: it holds only the client and the rate limiter."""

    def __init__(self, client: StreamClient, limiter: RateLimiter, *, page_limit: int = 10_000) -> None:
        self._client = client
        self._limiter = limiter
        self._page_limit = page_limit

    def find_tip(self, cursor: Cursor, *, exhaustive: bool = False) -> SearchResult:
        """The shard's tip. `exhaustive`: includes every record that is there when the search starts."""

        def find(cursor: Cursor) -> SearchResult:
            search = self.start(cursor, first_limit=cursor.first_limit, exhaustive=exhaustive, may_skip=True)
            page = search.first_page()
            if page is not None:
                move_to_tip(search, page)
            return search.result()

        found = opened_again(find, cursor)
        return replace(found, cursor=replace(found.cursor, first_limit=_next_first_limit(found, cursor.first_limit)))

    def first_record(self, cursor: Cursor) -> SearchResult:
        """The first record after the cursor, and whether the position's own record is still in the stream.

        Nothing that is unread arrived before that record, so it bounds `complete_until`.
        """

        def find(cursor: Cursor) -> SearchResult:
            search = ShardSearch(self._client, self._limiter, cursor)
            search.first_page()
            return search.result()

        found = opened_again(find, replace(cursor, iterator=None, verified=False))
        return replace(found, complete_until=found.first_arrival or found.complete_until)

    def measure(self, cursor: Cursor, end: Position) -> SearchResult | None:
        """The size of the range from the cursor to `end`, if one page of `_SMALL_RANGE` records holds it; else None."""
        try:
            iterator = self._client.iterator(cursor.shard_id, cursor.position)
            self._limiter.wait(cursor.shard_id)
            page = self._client.headers(iterator, _SMALL_RANGE)
        except (ExpiredIteratorError, PositionGoneError):
            return None
        positions = [after(header.sequence_number) for header in page.records]
        if not page.caught_up and not (positions and end <= positions[-1]):
            return None
        within = [header for header, position in zip(page.records, positions, strict=True) if position <= end]
        at_end = replace(cursor, position=end)
        return SearchResult(at_end, False, 0.0, sum(header.payload_bytes for header in within), len(within))

    def start(
        self, cursor: Cursor, *, first_limit: int = 1, exhaustive: bool = False, may_skip: bool = False
    ) -> ShardSearch:
        return ShardSearch(
            self._client,
            self._limiter,
            cursor,
            page_limit=self._page_limit,
            first_limit=first_limit,
            exhaustive=exhaustive,
            may_skip=may_skip,
        )


def opened_again(search: Callable[[Cursor], T], cursor: Cursor) -> T:
    """Searches from the cursor; if its iterator has expired, once more with a new one."""
    try:
        return search(cursor)
    except ExpiredIteratorError:
        return search(replace(cursor, iterator=None))


def move_to_tip(search: ShardSearch, page: Page[RecordHeader], *, empty_from: float | None = None) -> None:
    """Moves the search from `page`, the last one accepted, to the tip.

    empty_from  the shard holds no record that arrived at this time or later, if known
    """
    if search.finished:
        return
    if page.lag_unknown:
        # The next page may tell it, or be the last one.
        page = search.read_on(search.page_limit)
        if not search.accept(page):
            search.continue_after(page)
    landing = _Landing(search)
    if page.lag_unknown:
        _leap(search)
    elif page.millis_behind > 0:
        _land_near_tip(search, landing, empty_from)
    _read_on(search)
    landing.estimate()


def _land_near_tip(search: ShardSearch, landing: _Landing, empty_from: float | None) -> None:
    now = floor(search.served_at)
    ahead = now + 1 if empty_from is None else empty_from
    # The second of the tip, or on AWS the present one: what arrived in it is all that is read twice.
    last_second = min(floor(search.tip_time), now)
    for back in _SECONDS_BACK:
        moment = last_second - back
        if moment <= search.arrival or search.finished:
            break
        if moment >= ahead:
            continue
        if landing.at(moment):
            break
        ahead = moment
    while not search.finished and min(ahead, search.tip_time) - search.arrival > _WINDOW_SECONDS:
        moment = floor((ahead + search.arrival) / 2)
        if moment <= search.arrival:
            break
        if not landing.at(moment):
            ahead = moment


class _Landing:
    """The last landing of a search, and what had been counted before it."""

    def __init__(self, search: ShardSearch) -> None:
        self._search = search
        self._begin = search.arrival
        self._moment: float | None = None
        self._counted = (0, 0)

    def at(self, moment: float) -> bool:
        """Lands at the first record of this time; False if no record after `last` arrived then or later."""
        search = self._search
        counted = (search.records, search.bytes)
        page = search.page_at(moment, NEAR_LIMIT)
        if page is None or not search.accept(page):
            return False
        self._moment, self._counted = moment, counted
        return True

    def estimate(self) -> None:
        """Adds the size of what was skipped before the landing, by the rate from the landing to the tip."""
        search = self._search
        if self._moment is None:
            return
        end = max(search.arrival, search.tip_time if search.finished else 0.0)
        times = max(0.0, self._moment - self._begin) / max(_SHORTEST_SECONDS, end - self._moment)
        records, size = self._counted
        search.records += int((search.records - records) * times)
        search.bytes += int((search.bytes - size) * times)


def _leap(search: ShardSearch) -> None:
    """Leaps ahead by sequence numbers, in growing steps, then by bisection. Only for emulators that never tell a lag.

    kinesalite's numbers grow with each record, so a number further ahead is a place further ahead. If the server
    refuses such a number, the search just reads on. Why it is here: docs/adr/0019.
    """
    if search.first is None or search.last is None or search.records < 2:
        return
    begin, size = search.first.number, search.bytes / search.records
    gap = max(1, (search.last.number - begin) // (search.records - 1))
    distance = gap * search.page_limit
    ahead = search.last.number + distance
    while _land_at_number(search, ahead):
        distance *= 2
        ahead = search.last.number + distance
    while not search.finished and ahead - search.last.number > gap * search.page_limit:
        middle = (search.last.number + ahead) // 2
        if not _land_at_number(search, middle):
            ahead = middle
    search.records = (search.last.number - begin) // gap
    search.bytes = int(search.records * size)


def _land_at_number(search: ShardSearch, number: int) -> bool:
    page = search.page_at_number(number)
    return page is not None and search.accept(page)


def _read_on(search: ShardSearch) -> None:
    """Reads on from `last` to the tip, or to what arrived after the search began."""
    pages = 0
    while not search.finished:
        if search.arrival > search.served_at + 1:
            return
        if pages >= _READ_ON_PAGES and not search.exhaustive:
            return
        page = search.read_on(search.page_limit)
        pages += 1
        if not search.accept(page):
            search.continue_after(page)


def _next_first_limit(found: SearchResult, before: int) -> int:
    """Twice what was found if that is a trickle; else 1, so that the next search lands near the tip."""
    if not found.records:
        return before
    is_trickle = 2 * found.records <= _TRICKLE_RECORDS and 2 * found.bytes <= _TRICKLE_BYTES
    return 2 * found.records if is_trickle else 1


# The lag of a position: one small call a shard, not for planning


@dataclass(frozen=True)
class ShardLag:
    """One shard's unread records.

    state      `tip`: everything is read · `behind` · `gone`: the position has left the stream
    behind_ms  age of the oldest unread record, by the server's clock; None if `gone`
    closed     whether the shard was split or merged

    Example: records 5 and 6 arrived 9 s and 4 s ago. The position 5 is `behind` by 4000 ms, 6 is at the `tip`.
    """

    shard: str
    position: Position
    state: str
    behind_ms: int | None
    closed: bool


def shard_lags(client: StreamClient, positions: Mapping[str, Position], threads: int = 16) -> list[ShardLag]:
    """Every listed shard, in order; a shard without a position counts from its oldest record.

    Raises StreamAccessError if the stream does not exist or may not be read, TransientSourceError if AWS keeps failing.
    """
    shards = sorted(client.list_shards(), key=lambda shard: shard.shard_id)

    def lag(shard_id: str, closed: bool) -> ShardLag:
        position = positions.get(shard_id, TRIM_HORIZON)
        try:
            state, behind = _behind(client, shard_id, position)
        except PositionGoneError:
            state, behind = "gone", None
        except FutureTimeError:
            state, behind = "tip", 0
        return ShardLag(shard_id, position, state, behind, closed)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda shard: lag(shard.shard_id, shard.ending_sequence is not None), shards))


def _behind(client: StreamClient, shard_id: str, position: Position) -> tuple[str, int]:
    iterator: str | None = client.iterator(shard_id, position)
    behind = 0
    for _ in range(_LAG_EMPTY_PAGES):
        if iterator is None:
            return "tip", 0
        page = client.headers(iterator, 1)
        behind = page.millis_behind
        if page.records:
            # The record's age, not MillisBehindLatest: that is 0 if it is the only one.
            return "behind", max(0, int((page.served_at - page.records[0].arrival) * 1000))
        if page.caught_up:
            return "tip", 0
        iterator = page.next_iterator
    return "behind", behind
