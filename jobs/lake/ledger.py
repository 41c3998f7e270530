"""The ledger: one entry a batch, written last and once. A batch with an entry is final and is never written again.

`<lake>/_ledger/<query>/<batch>.json` holds the sequence range of each shard, counts, files, partitions, timings.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import msgspec

from jobs.common.errors import AlreadyRunningError, BatchMismatchError, TerminalError
from jobs.common.fault_points import fault_point
from jobs.lake.lease import ClaimEntry
from jobs.lake.partition_locations import ASIDE
from jobs.lake.store import Lake
from jobs.lake.task_report import TableName, TaskReport

_READERS = 16
# The folder of the batch path's entries, `_ledger/batch/`; it also starts the names of that job's files.
BATCH_PATH = "batch"
TABLES: tuple[TableName, ...] = ("raw", "processed", "quarantine")


class LedgerEntry(msgspec.Struct):
    """What a batch did. Times are UTC; `seconds` are of the driver's clock, `report.seconds` summed over tasks.

    `alarms`: what somebody should look at, in words, such as too many rejected records. `registered`: partitions that
    the job sent to the catalog for the first time since its start.
    `rebuilt_at`: when `movement replay --raw` read the batch anew; counts, partitions and quarantine files are then
    those of that time, and its rows stand in files that no entry names (`live_files.files_of` finds them).
    """

    query: str
    batch: int
    stream: str
    started_at: datetime
    finished_at: datetime
    report: TaskReport
    partitions: dict[TableName, list[str]]
    seconds: dict[str, float]
    alarms: list[str] = []
    registered: int = 0
    rebuilt_at: datetime | None = None
    version: int = 1

    @property
    def name(self) -> str:
        """`<query>-<batch>`: the start of its files' names, and the column `batch` of its rows."""
        return f"{self.query}-{self.batch}"

    @property
    def duration(self) -> float:
        """Seconds from the batch's start until it became final."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def shard_ages(self) -> dict[str, int]:
        """By shard: how long its last record of the batch had been on the stream when the batch became final, in ms.

        No unread record of the shard can be older. Omits shards whose arrival time is unknown (older releases, the
        JVM connector).
        """
        return {
            shard: max(0, int((self.finished_at - range_.arrived).total_seconds() * 1000))
            for shard, range_ in self.report.shards.items()
            if range_.arrived is not None
        }

    @property
    def age(self) -> int | None:
        """The greatest age of a shard, in ms. None for a batch without records, or if no shard's age is known."""
        return max(self.shard_ages.values(), default=None)


def is_final(lake: Lake, batch: str) -> bool:
    """Whether the batch `<query>-<batch>` has an entry."""
    query, _, number = batch.rpartition("-")
    return lake.get(f"_ledger/{query}/{number}.json") is not None


def final_batches(lake: Lake, queries: Iterable[str]) -> set[str]:
    """`<query>-<batch>` of every batch of the queries that has an entry."""
    found = set()
    for query in queries:
        for path, _ in lake.list(f"_ledger/{query}/"):
            number = path.rpartition("/")[2].removesuffix(".json")
            if number.isdigit():
                found.add(f"{query}-{number}")
    return found


def numbers(lake: Lake) -> dict[str, list[int]]:
    """By streaming query: the numbers of its entries, as they are listed (a request for every 1,000).

    The batch path's entries, which are of another kind, are left out.
    """
    found: dict[str, list[int]] = {}
    for path, _ in lake.list("_ledger/"):
        query, _, name = path.removeprefix("_ledger/").partition("/")
        number = name.removesuffix(".json")
        if query != BATCH_PATH and number.isdigit():
            found.setdefault(query, []).append(int(number))
    return found


class _Ended(msgspec.Struct):
    """Of an entry, what says whether it is wanted: the rest, which names every file, is skipped unread."""

    finished_at: datetime


def entries(lake: Lake, start: datetime | None = None, end: datetime | None = None) -> list[LedgerEntry]:
    """Every streaming batch that is final and ended in [start, end), of all queries, by the time of its end.

    Each entry is read; in memory are only those that are wanted.
    """

    def wanted(path: str) -> LedgerEntry | None:
        content = lake.get(path) or b""
        at = msgspec.json.decode(content, type=_Ended).finished_at
        if (start is not None and at < start) or (end is not None and at >= end):
            return None
        return msgspec.json.decode(content, type=LedgerEntry)

    paths = [f"_ledger/{query}/{number}.json" for query, found in numbers(lake).items() for number in found]
    with ThreadPoolExecutor(_READERS) as readers:
        found = [entry for entry in readers.map(wanted, paths) if entry is not None]
    return sorted(found, key=lambda entry: (entry.finished_at, entry.query, entry.batch))


def amend(lake: Lake, entry: LedgerEntry) -> None:
    """Puts a rebuilt batch's entry in place of the one before. Raises BatchMismatchError where counts do not add up.

    Whoever calls it holds the claim on the table: nobody else changes an entry that is there.
    """
    check_counts(entry)
    lake.put(f"_ledger/{entry.query}/{entry.batch}.json", io.BytesIO(_encoded(entry)))


def _encoded(entry: LedgerEntry) -> bytes:
    return msgspec.json.format(msgspec.json.encode(entry))


class Ledger:
    """The ledger of one query in a lake."""

    def __init__(self, lake: Lake, query: str) -> None:
        self._lake = lake
        self.query = query

    def _path(self, batch: int) -> str:
        return f"_ledger/{self.query}/{batch}.json"

    def entry(self, batch: int) -> LedgerEntry | None:
        """The batch's entry, or None where the batch is not final."""
        content = self._lake.get(self._path(batch))
        fault_point("ledger.looked_up")
        return None if content is None else msgspec.json.decode(content, type=LedgerEntry)

    def following(self, batch: int) -> Iterator[LedgerEntry]:
        """The entries after `batch`, in order: final batches are numbered without a gap, from 0.

        One request for each, a few at once, and one for the end; nothing is listed, however long the ledger is.
        """
        at_once = 1  # mostly nothing has come since the last look, or one batch
        with ThreadPoolExecutor(_READERS) as readers:
            while True:
                numbers = range(batch + 1, batch + 1 + at_once)
                for entry in readers.map(self.entry, numbers):
                    if entry is None:
                        return
                    yield entry
                batch, at_once = batch + at_once, min(2 * at_once, _READERS)

    def commit(self, entry: LedgerEntry) -> None:
        """Makes a batch final. Raises BatchMismatchError where its counts do not add up, AlreadyRunningError
        where another process has made the same batch final meanwhile."""
        check_counts(entry)
        fault_point("ledger.committing")
        if not self._lake.put_if_absent(self._path(entry.batch), _encoded(entry)):
            raise AlreadyRunningError(
                f"batch {entry.batch} of query {self.query} in {self._lake.uri} was written by another process "
                "meanwhile: two jobs share one checkpoint; stop one of them"
            )
        fault_point("ledger.committed")

    def leftovers(self, batch: int) -> list[str]:
        """The batch's files in the tables, found by their names: lists every table."""
        prefix = f"{self.query}-{batch}-"
        return [
            path
            for table in (*TABLES, ASIDE)
            for path, _ in self._lake.list(f"{table}/")
            if path.rpartition("/")[2].startswith(prefix)
        ]

    def remove_leftovers(self, batch: int) -> list[str]:
        """Deletes the files that a dead run of this batch left in the tables; the paths deleted.

        Only for a batch without an entry, and only the first one after a start can have any.
        """
        found = self.leftovers(batch)
        self._lake.clear_drafts()
        fault_point("leftovers.listed")
        self._lake.delete(found)
        fault_point("leftovers.deleted")
        return found


def queries(lake: Lake) -> list[str]:
    """The streaming queries that have a ledger in the lake: one for each checkpoint there ever was."""
    return sorted(set(lake.folders("_ledger/")) - {BATCH_PATH})


def check_counts(entry: LedgerEntry) -> None:
    """read = raw = processed + quarantined, or BatchMismatchError with the figures."""
    report = entry.report
    if not report.read == report.raw == report.processed + report.quarantined:
        raise BatchMismatchError(
            f"batch {entry.batch} of query {entry.query}: {report.read} records read, {report.raw} raw lines, "
            f"{report.processed} processed rows, {report.quarantined} quarantined: these must add up. "
            "Nothing was committed; please report this with the job's log"
        )


# Reads ledgers from outside of a job: which queries there are, and the newest entries, without reading all.


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
