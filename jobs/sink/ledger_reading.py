"""Reads ledgers from outside of a job: which queries there are, and the newest entries, without reading all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from jobs.contract.errors import TerminalError
from jobs.sink.claim import ClaimEntry
from jobs.sink.lake import Lake
from jobs.sink.ledger import LedgerEntry, numbers

_READERS = 16


@dataclass(frozen=True)
class QueryLedger:
    """One query's ledger: how many entries, and the newest of them, newest first."""

    query: str
    batches: int
    entries: list[LedgerEntry]


def newest_entries(lake: Lake, count: int) -> list[QueryLedger]:
    """The newest `count` entries of every query, the query that finished a batch last first.

    Lists the ledger's names (a request for every 1,000), and reads only the entries that it returns.
    """
    batches = numbers(lake)
    wanted = [(query, number) for query, found in batches.items() for number in sorted(found)[-count:]]
    with ThreadPoolExecutor(_READERS) as readers:
        entries = list(readers.map(lambda each: _entry(lake, *each), wanted))
    found = [
        QueryLedger(query, len(batches[query]), [entry for entry in reversed(entries) if entry.query == query])
        for query in batches
    ]
    return sorted(found, key=lambda each: each.entries[0].finished_at, reverse=True)


def _entry(lake: Lake, query: str, batch: int) -> LedgerEntry:
    content = lake.get(f"_ledger/{query}/{batch}.json")
    if content is None:
        raise TerminalError(f"_ledger/{query}/{batch}.json in {lake.uri} was listed and is gone: who deletes entries?")
    return msgspec.json.decode(content, type=LedgerEntry)


def last_read(lake: Lake, query: str, newest: list[LedgerEntry]) -> dict[str, str]:
    """By shard: the last sequence number that the query's entries hold, the whole ledger read where need be.

    A shard that had no record for long stands only in an old entry, so every entry is read, a few at a time.
    """
    names = (path.rpartition("/")[2].removesuffix(".json") for path, _ in lake.list(f"_ledger/{query}/"))
    known = {entry.batch: entry for entry in newest}
    older = sorted((int(name) for name in names if name.isdigit() and int(name) not in known), reverse=True)
    found: dict[str, str] = {}

    def take(entry: LedgerEntry) -> None:
        for shard, part in entry.report.shards.items():
            found.setdefault(shard, part.last)

    for entry in sorted(newest, key=lambda each: -each.batch):
        take(entry)
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(older), 256):
            for entry in readers.map(lambda batch: _entry(lake, query, batch), older[start : start + 256]):
                take(entry)
    return found


def claims(lake: Lake) -> list[ClaimEntry]:
    """Who runs, or ran last, on each checkpoint."""
    contents = (lake.get(path) for path, _ in lake.list("_claims/"))
    return [msgspec.json.decode(content, type=ClaimEntry) for content in contents if content]
