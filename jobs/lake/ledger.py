"""The ledger: one entry per batch, written once and last. A batch with an entry is final and is never written again.

`<lake>/_ledger/<query>/<batch>.json` holds each shard's sequence range, counts, files, partitions and timings.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

import msgspec

from jobs.common.errors import AlreadyRunningError, BatchMismatchError, TerminalError
from jobs.common.fault_points import fault_point
from jobs.lake.partition_locations import RELOCATED, batch_of
from jobs.lake.store import AT_ONCE, Lake, file_name, parallel_map
from jobs.lake.task_report import TableName, TaskReport

_FOLDER = "_ledger/"
# The folder of the batch path's entries, `_ledger/batch/`; it also starts the names of that job's files.
BATCH_PATH = "batch"
TABLES: tuple[TableName, ...] = ("raw", "processed", "quarantine")
# Entries that a reader asks for at once. Usually there is at most one new one; the others show a gap.
_PROBED = 4

log = logging.getLogger(__name__)


class LedgerEntry(msgspec.Struct):
    """What a batch did. Times are UTC.

    report        counts, files and sequence ranges; `report.seconds` is summed over the batch's tasks
    partitions    by table, the partitions that the batch wrote to
    seconds       by stage (clear, write, register), on the driver's clock
    alarms        conditions for a person to look at, such as too many rejected records
    registered    partitions that the job sent to the catalog for the first time since its start
    offset        the source's offset at the batch's end, as in the checkpoint; the next batch starts there. None in
                  entries of releases that did not store it
    rebuilt_at    when `movement replay --raw` wrote the batch again; the counts, partitions and quarantine files are
                  then those of that time, and no entry names the files with its rows (see `files_of_entries`)
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
    offset: dict[str, Any] | None = None
    version: int = 1

    @property
    def name(self) -> str:
        """`<query>-<batch>`, such as `3f2a91b07c44-17`: the rows' column `batch`, and the start of file names."""
        return f"{self.query}-{self.batch}"

    @property
    def duration(self) -> float:
        """Seconds from the batch's start until it became final."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def shard_ages(self) -> dict[str, int]:
        """By shard: the age of the batch's last record when the batch became final, in ms.

        If that record arrived at 10:00:00 and the batch became final at 10:00:05, the age is 5000. No unread record of
        the shard can be older. Omits shards whose arrival time is unknown (older releases, the JVM connector).
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


decode_entry = msgspec.json.Decoder(LedgerEntry).decode


class Ledger:
    """The ledger of one streaming query."""

    def __init__(self, lake: Lake, query: str) -> None:
        self._lake = lake
        self.query = query

    def entry(self, batch: int) -> LedgerEntry | None:
        """The batch's entry, or None if the batch is not final."""
        content = self._lake.get(_path(self.query, batch))
        fault_point("ledger.looked_up")
        return None if content is None else decode_entry(content)

    def entries_after(self, batch: int) -> Iterator[LedgerEntry]:
        """The entries after `batch`, in order. `entries_after(-1)` starts with the lowest entry there is.

        Final batches have consecutive numbers. They begin above 0 in a lake that a running query was moved to, and
        where a lifecycle rule deletes old entries. Reads entry by entry, and lists the ledger only if the entry of
        `batch` is missing too, which happens at the first reading and after a loss.

        Raises TerminalError if an entry is missing and a later one exists.
        """
        wanted, at_once = batch + 1, _PROBED
        while True:
            found = list(parallel_map(self.entry, range(wanted, wanted + at_once)))
            for entry in takewhile(lambda entry: entry is not None, found):
                yield entry  # type: ignore[misc]
                wanted += 1
            if found[0] is not None:
                at_once = min(2 * at_once, AT_ONCE) if found[-1] is not None else _PROBED
                continue
            if wanted > batch + 1 or (batch >= 0 and self.entry(batch) is not None):
                later = [entry.batch for entry in found if entry is not None and entry.batch > wanted]
            else:
                later = [number for number in self.numbers() if number >= wanted]
            if not later:
                return
            if self.entry(wanted) is not None:
                continue  # the job has committed it meanwhile
            if wanted > 0:
                raise _missing_entry(self._lake, self.query, wanted, later[0])
            log.warning("the ledger of query %s in %s begins at batch %d", self.query, self._lake.uri, later[0])
            wanted = later[0]

    def numbers(self) -> list[int]:
        """The numbers of the query's entries, in order. Lists them: one request per 1,000."""
        return sorted(_numbers(self._lake, self.query))

    def commit(self, entry: LedgerEntry) -> None:
        """Makes a batch final.

        Raises BatchMismatchError if its counts do not add up, AlreadyRunningError if another process has made the same
        batch final with another entry.
        """
        check_counts(entry)
        fault_point("ledger.committing")
        if not self._lake.put_if_absent(_path(self.query, entry.batch), _encode(entry)):
            raise AlreadyRunningError(
                f"batch {entry.batch} of query {self.query} in {self._lake.uri} was written by another process "
                "meanwhile: two jobs share one checkpoint; stop one of them"
            )
        fault_point("ledger.committed")

    def leftovers(self, batch: int) -> list[str]:
        """The files in the tables, found by name, of this and of later batches without an entry. Lists every table."""
        found: dict[int, list[str]] = {}
        for table in (*TABLES, RELOCATED):
            for path, _ in self._lake.list(f"{table}/"):
                query, _, number = (batch_of(path) or "").rpartition("-")
                if query == self.query and int(number) >= batch:
                    found.setdefault(int(number), []).append(path)
        return [path for number in sorted(found) if self.entry(number) is None for path in found[number]]

    def remove_leftovers(self, batch: int) -> list[str]:
        """Deletes the files that a run which died wrote for this batch, or for later ones. Returns their paths.

        Files of batches with an entry stay. Only the first batch after a start can have leftovers; later batches have
        some if the ledger has lost its last entries.
        """
        found = self.leftovers(batch)
        self._lake.clear_drafts()
        fault_point("leftovers.listed")
        self._lake.delete(found)
        fault_point("leftovers.deleted")
        return found


def _missing_entry(lake: Lake, query: str, missing: int, later: int) -> TerminalError:
    """The error for a gap in a query's ledger: batch `missing` has no entry, the later batch `later` has one."""
    return TerminalError(
        f"{lake.uri}/{_path(query, missing)} is missing, although batch {later} is in the ledger: ledger entries must "
        "not be deleted. Restore it from the bucket's older object versions, then run this again"
    )


def check_counts(entry: LedgerEntry) -> None:
    """Raises BatchMismatchError unless read = raw = processed + quarantined."""
    report = entry.report
    if not report.read == report.raw == report.processed + report.quarantined:
        raise BatchMismatchError(
            f"batch {entry.batch} of query {entry.query}: {report.read} records read, {report.raw} raw lines, "
            f"{report.processed} processed rows, {report.quarantined} quarantined: these must add up. "
            "Nothing was committed; please report this with the job's log"
        )


def replace_entry(lake: Lake, entry: LedgerEntry) -> None:
    """Replaces the entry of a batch that was rebuilt. Raises BatchMismatchError if its counts do not add up.

    The caller holds the lease on the table: nobody else changes an existing entry.
    """
    check_counts(entry)
    lake.put(_path(entry.query, entry.batch), io.BytesIO(_encode(entry)))


def is_final(lake: Lake, batch: str) -> bool:
    """Whether the batch `<query>-<batch>` has an entry."""
    query, _, number = batch.rpartition("-")
    return lake.get(f"{_FOLDER}{query}/{number}.json") is not None


def final_batches(lake: Lake, queries: Iterable[str]) -> set[str]:
    """`<query>-<batch>` of every final batch of the queries."""
    return {f"{query}-{number}" for query in queries for number in _numbers(lake, query)}


def queries(lake: Lake) -> list[str]:
    """The streaming queries that have a ledger: one for each checkpoint there ever was."""
    return sorted(set(lake.folders(_FOLDER)) - {BATCH_PATH})


def entries(lake: Lake, start: datetime | None = None, end: datetime | None = None) -> list[LedgerEntry]:
    """Every final streaming batch that ended in [start, end), of all queries, in the order of their ends.

    Reads every entry, but keeps only the ones in the window in memory.
    """

    def in_window(path: str) -> LedgerEntry | None:
        content = lake.get(path) or b""
        at = _FINISHED_AT.decode(content).finished_at
        if (start is not None and at < start) or (end is not None and at >= end):
            return None
        return decode_entry(content)

    paths = [_path(query, number) for query, numbers in batch_numbers(lake).items() for number in numbers]
    found = [entry for entry in parallel_map(in_window, paths) if entry is not None]
    return sorted(found, key=lambda entry: (entry.finished_at, entry.query, entry.batch))


class _FinishedAt(msgspec.Struct):
    """The one field that decides whether an entry is in a window; msgspec skips the rest."""

    finished_at: datetime


_FINISHED_AT = msgspec.json.Decoder(_FinishedAt)


@dataclass(frozen=True)
class QueryLedger:
    """One query's ledger: the number of its entries, and the newest of them, newest first."""

    query: str
    batches: int
    entries: list[LedgerEntry]


def newest_entries(lake: Lake, count: int) -> list[QueryLedger]:
    """The newest `count` entries of every query. The query that finished a batch last comes first.

    Lists the whole ledger (one request per 1,000 entries) but reads only the entries that it returns.
    """
    numbers = batch_numbers(lake)
    wanted = [(query, number) for query, found in numbers.items() for number in sorted(found)[-count:]]
    read = list(parallel_map(lambda each: _listed_entry(lake, *each), wanted))
    ledgers = [
        QueryLedger(query, len(numbers[query]), [entry for entry in reversed(read) if entry.query == query])
        for query in numbers
    ]
    return sorted(ledgers, key=lambda each: each.entries[0].finished_at, reverse=True)


def last_sequence_numbers(lake: Lake, query: str, newest: list[LedgerEntry]) -> dict[str, str]:
    """By shard: the last sequence number in the query's ledger. `newest`: entries that are already read.

    Reads every other entry: only an old entry names a shard that has had no record for long.
    """
    known = {entry.batch: entry for entry in newest}
    older = sorted(set(_numbers(lake, query)) - set(known), reverse=True)
    last: dict[str, str] = {}

    def add(entry: LedgerEntry) -> None:
        for shard, part in entry.report.shards.items():
            last.setdefault(shard, part.last)

    for entry in sorted(newest, key=lambda each: -each.batch):
        add(entry)
    for start in range(0, len(older), 256):  # bounds the entries in memory
        for entry in parallel_map(lambda batch: _listed_entry(lake, query, batch), older[start : start + 256]):
            add(entry)
    return last


def batch_numbers(lake: Lake) -> dict[str, list[int]]:
    """By streaming query: the numbers of its final batches, unsorted. Leaves out the batch path's entries."""
    found: dict[str, list[int]] = {}
    for path, _ in lake.list(_FOLDER):
        query, _, name = path.removeprefix(_FOLDER).partition("/")
        number = name.removesuffix(".json")
        if query != BATCH_PATH and number.isdigit():
            found.setdefault(query, []).append(int(number))
    return found


def _numbers(lake: Lake, query: str) -> Iterator[int]:
    names = (file_name(path).removesuffix(".json") for path, _ in lake.list(f"{_FOLDER}{query}/"))
    return (int(name) for name in names if name.isdigit())


def _listed_entry(lake: Lake, query: str, batch: int) -> LedgerEntry:
    content = lake.get(_path(query, batch))
    if content is None:
        raise TerminalError(
            f"{lake.uri}/{_path(query, batch)} was listed and is gone: ledger entries must not be deleted. Restore "
            "it from the bucket's older object versions"
        )
    return decode_entry(content)


def _path(query: str, batch: int) -> str:
    return f"{_FOLDER}{query}/{batch}.json"


def _encode(entry: LedgerEntry) -> bytes:
    return msgspec.json.format(msgspec.json.encode(entry))
