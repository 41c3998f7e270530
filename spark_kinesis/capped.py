"""Ends a batch at its cap: by counting, or about there, going by what was counted before. Part of `search`."""

from __future__ import annotations

from math import floor

from spark_kinesis.client import Page, RecordHeader
from spark_kinesis.cursor import Cap, Density
from spark_kinesis.shard_search import Search

# A density is measured on at least so many records, and trusted for so many batches.
_MEASURED_RECORDS = 100
_USES = 24


def within_seconds(search: Search, seconds: int) -> Page[RecordHeader] | None:
    """Sets `limit`: the first record that arrived `seconds` after the batch's first one, or later. Answers with the
    page that begins with it."""
    first = search.best
    if first is None:
        return None
    moment = floor(first.arrival) + seconds
    page = search.at(moment, _MEASURED_RECORDS)
    if page is None:
        search.empty_from = moment
    elif page.records[0].number > first.number:
        search.limit = page.records[0]
        return page
    return None


def estimate_seconds(search: Search, page: Page[RecordHeader]) -> None:
    """What lies before the limit that `page` begins with was not counted: estimated by the rate behind it."""
    headers = page.records
    times = (headers[0].arrival - search.arrival) / max(0.1, headers[-1].arrival - headers[0].arrival)
    search.taken = 2 + int((len(headers) - 1) * times)
    search.bytes = search.taken * sum(header.payload_bytes for header in headers) // len(headers)


def count(search: Search, cap: Cap) -> None:
    """Reads forward until the cap (or `limit`) is reached: the last record that still fits is the end."""
    timed = False
    while not search.settled:
        wanted = min(search.page_limit, cap.records - search.taken) if cap.records else search.page_limit
        if wanted <= 0 or (cap.bytes and search.bytes >= cap.bytes):
            break
        if cap.bytes:
            # As many as fit if they are like those so far, and a few more.
            wanted = min(wanted, (cap.bytes - search.bytes) * search.taken * 6 // (max(1, search.bytes) * 5) + 10)
        page = search.read_on(wanted)
        fitting = _fitting(search, page, cap)
        if fitting:
            search.best = fitting[-1]
            search.taken += len(fitting)
            search.bytes += sum(header.payload_bytes for header in fitting)
        if len(fitting) < len(page.records):
            search.iterator = None
            break
        search.iterator = page.next_iterator
        search.ended = page.next_iterator is None
        search.caught_up = page.caught_up
        timed = timed or page.millis_behind > 0
    search.limit = None
    _measure(search, timed)


def _measure(search: Search, timed: bool) -> None:
    """Keeps how dense the counted records were, for `extrapolate`."""
    search.density = None
    if search.first_new is None or search.best is None or search.taken < _MEASURED_RECORDS or search.settled:
        return
    number, arrival, gaps = search.first_new.number, search.first_new.arrival, search.taken - 1
    start = search.cursor
    idle = number - start.position.number if start.position.is_record and start.arrival else 0
    if 0 < idle < (search.best.number - number) // 2:
        # Records come in bursts: the gap before the first one counts as well, unless the shard was idle there.
        number, arrival, gaps = start.position.number, start.arrival, search.taken
    search.density = Density(
        numbers=(search.best.number - number) // gaps,
        seconds=(search.best.arrival - arrival) / gaps,
        bytes=search.bytes / search.taken,
        timed=timed,
    )


def predicts(search: Search, cap: Cap) -> bool:
    """Whether the shard held more than its last batch took, as dense as was counted: `extrapolate` may then do."""
    if cap.exact or cap.seconds or search.density is None or search.density.uses >= _USES:
        return False
    return search.verified and search.cursor.position.is_record


def extrapolate(search: Search, cap: Cap) -> bool:
    """Lands about as far ahead as the cap allows, going by the density last counted; False where that fails.

    Counting reads the whole batch, so a backlog would cost twice its bytes of the shard's 2 MB/s.
    """
    density = search.density
    start = search.cursor
    if density is None or not predicts(search, cap):
        return False
    count = min(float(cap.records or "inf"), (cap.bytes or float("inf")) / max(1.0, density.bytes))
    if count < _MEASURED_RECORDS:
        return False
    if density.timed:
        moment = floor(start.arrival + count * density.seconds)
        if moment < start.arrival + 1 or moment >= search.horizon:
            return False
        page = search.at(moment, 1)
    else:
        page = search.at_number(density.ahead(start.position.number, int(count)))
    if page is None or not search.take(page):
        return False
    search.bytes, search.taken = int(count * density.bytes), int(count)
    search.density = density.used()
    return True


def _fitting(search: Search, page: Page[RecordHeader], cap: Cap) -> list[RecordHeader]:
    """The page's first records, up to the cap in bytes and to `limit`."""
    size, fitting = search.bytes, []
    for header in page.records:
        size += header.payload_bytes
        if cap.bytes and size > cap.bytes:
            break
        if search.limit is not None and header.number > search.limit.number:
            break
        fitting.append(header)
    return fitting
