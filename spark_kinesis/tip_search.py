"""Brings a search near the tip without reading what lies between. Part of `search`."""

from __future__ import annotations

from math import floor

from spark_kinesis.client import Page, RecordHeader
from spark_kinesis.cursor import Density
from spark_kinesis.shard_search import Search

# Pages that one search reads forward near the tip; whatever comes later belongs to the next batch.
_SCAN_PAGES = 40
# A window this short is read forward rather than halved again (at most 1 MB/s goes into a shard).
_WINDOW_SECONDS = 4
_STEPS_BACK = (0, *(10**power for power in range(8)))
_NEAR_LIMIT = 1000
# A rate is not taken from less time than this.
_SHORTEST_SECONDS = 0.1


def approach(search: Search, first: Page[RecordHeader]) -> None:
    """Moves to the tip: by time, where the first page says how far it is, else by sequence numbers."""
    if search.best is None:
        return
    if first.millis_behind == 0:
        _gallop(search)
        _scan(search)
        return
    landing = _Landing(search, search.best.arrival)
    _land_near(search, landing)
    _scan(search)
    landing.estimate()


def _land_near(search: Search, landing: _Landing) -> None:
    now = floor(search.now)
    ahead = search.empty_from if search.empty_from is not None else now + 1
    # The second in which the tip is: this one by the server's clock, or, where the server counts the lag from the last
    # record (moto), that record's. What arrived in it is all that is read twice.
    last = min(floor(search.horizon), now)
    for back in _STEPS_BACK:
        moment = last - back
        if moment <= search.arrival or search.settled:
            break
        if moment >= ahead:
            continue
        if landing.at(moment):
            break
        ahead = moment
    while not search.settled and min(ahead, search.horizon) - search.arrival > _WINDOW_SECONDS:
        moment = floor((ahead + search.arrival) / 2)
        if moment <= search.arrival:
            break
        if not landing.at(moment):
            ahead = moment


class _Landing:
    """The last landing of a search, and what had been counted before it."""

    def __init__(self, search: Search, begin: float) -> None:
        self._search = search
        self._begin = begin
        self._moment: float | None = None
        self._counted = (0, 0)

    def at(self, moment: float) -> bool:
        search = self._search
        counted = (search.taken, search.bytes)
        page = search.at(moment, _NEAR_LIMIT)
        if page is None or not search.take(page):
            return False
        self._moment, self._counted = moment, counted
        return True

    def estimate(self) -> None:
        """Between the first record and the landing nothing was counted: estimated by the rate from there to the tip."""
        search = self._search
        if self._moment is None or search.best is None:
            return
        end = max(search.best.arrival, search.horizon if search.settled else 0.0)
        times = max(0.0, self._moment - self._begin) / max(_SHORTEST_SECONDS, end - self._moment)
        records, size = self._counted
        search.taken += int((search.taken - records) * times)
        search.bytes += int((search.bytes - size) * times)


def _gallop(search: Search) -> None:
    """More was asked for than came although nothing is said to be ahead: looks ahead in growing steps."""
    if search.iterator is None:
        return
    page = search.headers(search.iterator, _NEAR_LIMIT)
    if not search.take(page) or search.settled or search.first_new is None or search.best is None:
        search.caught_up = search.caught_up or page.caught_up
        return
    gap = max(1, (search.best.number - search.first_new.number) // (search.taken - 1))
    density = Density(numbers=gap, seconds=0.0, bytes=search.bytes / search.taken, timed=False)
    begin, records = search.first_new.number, 8 * _NEAR_LIMIT
    target = density.ahead(search.best.number, records)
    while _land_at(search, target):
        records *= 2
        target = density.ahead(search.best.number, records)
    ahead = target
    while not search.settled and ahead - search.best.number > gap * search.page_limit:
        target = density.ahead(search.best.number, (ahead - search.best.number) // gap // 2)
        if target >= ahead or target <= search.best.number:
            break
        if not _land_at(search, target):
            ahead = target
    search.taken = (search.best.number - begin) // gap
    search.bytes = int(search.taken * density.bytes)


def _land_at(search: Search, number: int) -> bool:
    page = search.at_number(number)
    return page is not None and search.take(page)


def _scan(search: Search) -> None:
    """Reads forward from `best` to the tip, or to what arrived after the search began."""
    pages = 0
    while not search.settled and search.iterator is not None:
        if search.best is not None and search.best.arrival > search.now + 1:
            return
        if pages >= _SCAN_PAGES and not search.exhaustive:
            return
        page = search.headers(search.iterator, search.page_limit)
        pages += 1
        if not search.take(page):
            search.iterator = page.next_iterator
            search.ended = page.next_iterator is None
            search.caught_up = page.caught_up
