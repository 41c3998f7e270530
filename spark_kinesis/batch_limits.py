"""Ends a batch at its cap, and divides the cap among the shards. Called by `planner`.

An even share for each shard would let idle shards use up the cap: of a hundred shards with one loaded, a batch would
hold a hundredth. So every shard is looked at first, with the one call that an idle shard costs anyway. The shards with
something new share the cap evenly, and what some of them leave goes to the others.

A shard's share is counted: the planner reads it, payloads undecoded. To save this second reading of the shard, the
next batches are extrapolated: an AT_TIMESTAMP iterator lands about as far ahead as the cap allows, by the rate last
counted (unless the cap is exact). The end is a record that was seen in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Any

from spark_kinesis.client import Page, RecordHeader
from spark_kinesis.shard_search import Cursor, RecordRate, SearchResult, ShardSearch
from spark_kinesis.tip_search import ShardSearcher, move_to_tip, opened_again

# The smallest part of a cap that is worth a second round: it costs each shard that takes of it another call.
_WORTH_A_SECOND_ROUND = 0.25
# The fewest records to measure a rate on, and the most batches to extrapolate from it.
MEASURED_RECORDS = 100
_EXTRAPOLATED_BATCHES = 24

ForEach = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that one batch, or one shard's share of it, may hold; 0 means no cap. `bytes` counts payloads.

    exact  count every batch, which reads the shard twice; else most batches of a backlog end near the cap

    Example: a batch with `Cap(seconds=60)` whose first record arrived at 10:00:00 ends near the record of 10:01:00.
    """

    records: int = 0
    bytes: int = 0
    seconds: int = 0
    exact: bool = False

    @property
    def is_set(self) -> bool:
        return bool(self.records or self.bytes or self.seconds)


def find_ends(
    searcher: ShardSearcher, cursors: Sequence[Cursor], cap: Cap, for_each: ForEach, *, exhaustive: bool = False
) -> list[SearchResult]:
    """Where a batch ends in each shard. `for_each` calls a function with each item, several at a time.

    The shards' sum does not exceed an exact cap, except that each shard with a new record gives at least one.
    """
    if not cap.is_set:
        return for_each(lambda cursor: searcher.find_tip(cursor, exhaustive=exhaustive), cursors)
    if not (cap.records or cap.bytes):
        return for_each(lambda cursor: _end_by_seconds(searcher, cursor, cap.seconds, exhaustive), cursors)
    searches: list[CappedSearch] = for_each(lambda cursor: CappedSearch(searcher, cursor, cap, exhaustive), cursors)
    whole = _Amount.of(cap)
    loaded = [search for search in searches if search.has_more]
    share = whole.part(len(loaded))
    counted = [search for search in loaded if not search.extrapolates]
    for_each(lambda search: search.move_to(share.within(cap)), counted)
    # Extrapolating costs one call however far it goes, so these shards come last and share the rest.
    extrapolating = [search for search in loaded if search.extrapolates]
    surplus = whole.without([*(_Amount(*search.used) for search in searches), *(share for _ in extrapolating)])
    if surplus.is_good_part_of(whole):
        unfinished = [search for search in counted if search.has_more]
        more = surplus.part(len(extrapolating) + len(unfinished))
        for_each(lambda search: search.move_to(_Amount(*search.used).plus(more).within(cap)), unfinished)
        share = share.plus(more)
    for_each(lambda search: search.move_to(share.within(cap)), extrapolating)
    return [search.result() for search in searches]


@dataclass(frozen=True)
class _Amount:
    """Records and bytes; infinite where a cap does not limit them."""

    records: float
    bytes: float

    @classmethod
    def of(cls, cap: Cap) -> _Amount:
        return cls(cap.records or float("inf"), cap.bytes or float("inf"))

    def part(self, count: int) -> _Amount:
        """One of `count` equal parts."""
        return _Amount(self.records / max(1, count), self.bytes / max(1, count))

    def plus(self, other: _Amount) -> _Amount:
        return _Amount(self.records + other.records, self.bytes + other.bytes)

    def without(self, others: Iterable[_Amount]) -> _Amount:
        records, size = self.records, self.bytes
        for other in others:
            records -= 0 if self.records == float("inf") else other.records
            size -= 0 if self.bytes == float("inf") else other.bytes
        return _Amount(records, size)

    def is_good_part_of(self, whole: _Amount) -> bool:
        return all(
            here >= _WORTH_A_SECOND_ROUND * there or there == float("inf")
            for here, there in ((self.records, whole.records), (self.bytes, whole.bytes))
        )

    def within(self, cap: Cap) -> Cap:
        """`cap` for one shard: this amount, and at least one record."""
        return replace(
            cap,
            records=max(1, int(self.records)) if cap.records else 0,
            bytes=max(1, int(self.bytes)) if cap.bytes else 0,
        )


class CappedSearch:
    """One shard's part of a batch whose records or bytes are capped: looked at first, then moved to its share.

    extrapolates  the shard is expected to continue as it was last counted, so it is not looked at and not counted
    """

    def __init__(self, searcher: ShardSearcher, cursor: Cursor, cap: Cap, exhaustive: bool) -> None:
        self._searcher = searcher
        self._exhaustive = exhaustive
        self._search = searcher.start(cursor, exhaustive=exhaustive)
        self._past_seconds = False
        self.shard_id, self.position = cursor.shard_id, cursor.position
        self.extrapolates = _can_extrapolate(self._search, cap)
        if not self.extrapolates:
            self._look()

    def _look(self) -> None:
        """Finds the first new record."""

        def look(cursor: Cursor) -> ShardSearch:
            search = self._searcher.start(cursor, exhaustive=self._exhaustive)
            search.first_page()
            search.rewind()
            return search

        self._search = opened_again(look, self._search.cursor)

    @property
    def has_more(self) -> bool:
        """Whether the shard is known to hold more for this batch."""
        if self._search.last is None:
            return self.extrapolates
        return not self._search.finished and not self._past_seconds

    @property
    def used(self) -> tuple[int, int]:
        """Records and bytes of the batch so far."""
        return self._search.records, self._search.bytes

    def move_to(self, cap: Cap) -> None:
        """Moves the end until the shard's part of the batch is `cap`."""
        if self.extrapolates:
            if _extrapolate(self._search, cap):
                return
            self._look()
        if self.has_more and self._search.last is not None:
            self._past_seconds = _count(self._search, cap)

    def result(self) -> SearchResult:
        found = self._search.result()
        # A shard at its tip may become idle, so it is looked at again.
        return replace(found, cursor=replace(found.cursor, rate=None)) if found.at_tip else found


def _end_by_seconds(searcher: ShardSearcher, cursor: Cursor, seconds: int, exhaustive: bool) -> SearchResult:
    """The first record that arrived `seconds` after the batch's first one, or later; the tip if no record did."""

    def find(cursor: Cursor) -> SearchResult:
        search = searcher.start(cursor, exhaustive=exhaustive)
        first = search.first_page()
        search.rewind()
        if first is None or search.finished:
            return search.result()
        if first.lag_unknown:
            # The shard may hold no record that late (docs/adr/0019).
            _count(search, Cap(seconds=seconds))
            return search.result()
        moment = floor(search.arrival) + seconds
        if moment >= search.tip_time:
            move_to_tip(search, first)
            return search.result()
        page = search.page_at(moment, MEASURED_RECORDS)
        if page is None:
            move_to_tip(search, first, empty_from=moment)
        elif search.last is not None and page.records[0].number > search.last.number:
            search.stop_at(page.records[0], *_estimate(search.arrival, page))
        else:
            move_to_tip(search, first)
        return search.result()

    return opened_again(find, cursor)


def _estimate(begin: float, page: Page[RecordHeader]) -> tuple[int, int]:
    """Records and bytes from the time `begin` to the page's first record, by the rate within the page."""
    headers = page.records
    times = (headers[0].arrival - begin) / max(0.1, headers[-1].arrival - headers[0].arrival)
    records = 2 + int((len(headers) - 1) * times)
    return records, records * sum(header.payload_bytes for header in headers) // len(headers)


def _count(search: ShardSearch, cap: Cap) -> bool:
    """Reads on until the cap is reached; the last record that fits is the end. True if the seconds ended it."""
    lag_known = past_seconds = False
    while not search.finished:
        wanted = min(search.page_limit, cap.records - search.records) if cap.records else search.page_limit
        if wanted <= 0 or (cap.bytes and search.bytes >= cap.bytes):
            break
        if cap.bytes:
            # As many as fit if they are like those so far, and a few more.
            wanted = min(wanted, (cap.bytes - search.bytes) * search.records * 6 // (max(1, search.bytes) * 5) + 10)
        page = search.read_on(wanted)
        fitting, past_seconds = _fitting(search, page, cap)
        search.add(fitting)
        if len(fitting) < len(page.records):
            search.iterator = None
            break
        search.continue_after(page)
        lag_known = lag_known or page.millis_behind > 0
    search.rate = _rate(search) if lag_known else None
    return past_seconds


def _fitting(search: ShardSearch, page: Page[RecordHeader], cap: Cap) -> tuple[list[RecordHeader], bool]:
    """The page's first records, up to the cap in bytes and in seconds; and whether the seconds ended them."""
    size = search.bytes
    fitting: list[RecordHeader] = []
    until = search.first.arrival + cap.seconds if search.first is not None and cap.seconds else float("inf")
    for header in page.records:
        size += header.payload_bytes
        if header.arrival >= until:
            return fitting, True
        if cap.bytes and size > cap.bytes:
            break
        fitting.append(header)
    return fitting, False


def _rate(search: ShardSearch) -> RecordRate | None:
    """How dense the counted records were; None if they are too few, or the shard's last ones."""
    if search.first is None or search.last is None or search.records < MEASURED_RECORDS or search.finished:
        return None
    start, arrival, gaps = search.cursor, search.first.arrival, search.records - 1
    idle = arrival - start.arrival if start.position.is_record and start.arrival else 0.0
    if 0 < idle < (search.arrival - arrival) / 2:
        # Records come in bursts: the gap before the first one counts as well, unless the shard was idle in it.
        arrival, gaps = start.arrival, search.records
    return RecordRate(seconds=(search.arrival - arrival) / gaps, bytes=search.bytes / search.records)


def _can_extrapolate(search: ShardSearch, cap: Cap) -> bool:
    """Whether the shard held more than its last batch took, at a rate that was counted."""
    if cap.exact or cap.seconds or search.rate is None or search.rate.batches >= _EXTRAPOLATED_BATCHES:
        return False
    return search.verified and search.cursor.position.is_record


def _extrapolate(search: ShardSearch, cap: Cap) -> bool:
    """Lands about as far ahead as the cap allows, by the rate last counted; False if that fails."""
    rate, start = search.rate, search.cursor
    if rate is None:
        return False
    count = min(float(cap.records or "inf"), (cap.bytes or float("inf")) / max(1.0, rate.bytes))
    if count < MEASURED_RECORDS:
        return False
    moment = floor(start.arrival + count * rate.seconds)
    if moment < start.arrival + 1 or moment >= search.tip_time:
        return False
    page = search.page_at(moment, 1)
    if page is None or not search.accept(page):
        return False
    search.records, search.bytes = int(count), int(count * rate.bytes)
    search.rate = rate.used()
    return True
