"""Brings a search near the tip without reading what lies between. Part of `search`."""

from __future__ import annotations

from math import floor

from jobs.source.kinesis.client import Head, Page
from jobs.source.kinesis.cursor import Density
from jobs.source.kinesis.search import Search

# Pages that one search reads forward near the tip; whatever comes later belongs to the next batch.
_SCAN_PAGES = 40
# A window this short is read forward rather than halved again (at most 1 MB/s goes into a shard).
_WINDOW_SECONDS = 8
_STEPS_BACK = tuple(10**power for power in range(8))
_NEAR_LIMIT = 1000


def jump(search: Search, first: Page[Head]) -> None:
    """Lands near the tip: by time, where the first page says how far it is, else by sequence numbers."""
    if search.best is None:
        return
    if first.millis_behind == 0:
        _gallop(search)
        return
    now = floor(search.now)
    if search.best.arrival >= now - 1:
        return
    begin = search.best.arrival
    ahead = search.empty_from if search.empty_from is not None else now + 1
    # Where the server counts the lag from the last record, not from its clock, that is where the tip is.
    near = floor(search.horizon) - 1
    if begin < near < now - 1 and near < ahead and not _land(search, near):
        ahead = near
    for back in _STEPS_BACK:
        moment = now - back
        if moment <= search.best.arrival or search.settled or search.horizon - search.best.arrival <= _WINDOW_SECONDS:
            break
        if moment >= ahead:
            continue
        if _land(search, moment):
            break
        ahead = moment
    while not search.settled and min(ahead, search.horizon) - search.best.arrival > _WINDOW_SECONDS:
        moment = floor((ahead + search.best.arrival) / 2)
        if not _land(search, moment):
            ahead = moment
    # Between the first record and the landing nothing was counted: estimate by the rate near the tip.
    search.taken = 0
    search.bytes = int(search.bytes * max(1.0, (search.best.arrival - begin) / _WINDOW_SECONDS))


def _gallop(search: Search) -> None:
    """More was asked for than came although nothing is said to be ahead: looks ahead in growing steps."""
    if search.iterator is None:
        return
    page = search.heads(search.iterator, _NEAR_LIMIT)
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


def _land(search: Search, moment: float) -> bool:
    page = search.at(moment, _NEAR_LIMIT)
    return page is not None and search.take(page)


def scan(search: Search) -> None:
    """Reads forward from `best` to the tip, or to what arrived after the search began."""
    pages = 0
    while not search.settled and search.iterator is not None:
        if search.best is not None and search.best.arrival > search.now + 1:
            return
        if pages >= _SCAN_PAGES and not search.exhaustive:
            return
        page = search.heads(search.iterator, search.page_limit)
        pages += 1
        if not search.take(page):
            search.iterator = page.next_iterator
            search.ended = page.next_iterator is None
            search.caught_up = page.caught_up
