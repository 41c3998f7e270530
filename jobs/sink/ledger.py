"""The ledger: one entry a batch, written last and once. A batch with an entry is final and is never written again.

`<lake>/_ledger/<query>/<batch>.json` holds the sequence range of each shard, counts, files, partitions, timings.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec

from jobs.contract.errors import AlreadyRunningError, BatchMismatchError
from jobs.contract.faults import point
from jobs.sink.lake import Lake
from jobs.sink.report import Kind, Report

TABLES: tuple[Kind, ...] = ("raw", "processed", "quarantine")
# The batch path's runs have their ledger beside those of the streaming queries.
_NO_QUERY = "batch"
_READERS = 16


class LedgerEntry(msgspec.Struct):
    """What a batch did. Times are UTC; `seconds` are of the driver's clock, `report.seconds` summed over tasks.

    `alarms`: what somebody should look at, in words, such as too many rejected records.
    """

    query: str
    batch: int
    stream: str
    started_at: datetime
    finished_at: datetime
    report: Report
    partitions: dict[Kind, list[str]]
    seconds: dict[str, float]
    alarms: list[str] = []
    version: int = 1


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
        point("ledger.looked_up")
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
        point("ledger.committing")
        if not self._lake.put_if_absent(self._path(entry.batch), msgspec.json.format(msgspec.json.encode(entry))):
            raise AlreadyRunningError(
                f"batch {entry.batch} of query {self.query} in {self._lake.uri} was written by another process "
                "meanwhile: two jobs share one checkpoint; stop one of them"
            )
        point("ledger.committed")

    def remove_leftovers(self, batch: int) -> list[str]:
        """Deletes the files that a dead run of this batch left in the tables; the paths deleted.

        Only for a batch without an entry, and only the first one after a start can have any.
        """
        prefix = f"{self.query}-{batch}-"
        found = [
            path
            for table in TABLES
            for path, _ in self._lake.list(f"{table}/")
            if path.rpartition("/")[2].startswith(prefix)
        ]
        self._lake.clear_drafts()
        point("leftovers.listed")
        self._lake.delete(found)
        point("leftovers.deleted")
        return found


def queries(lake: Lake) -> list[str]:
    """The streaming queries that have a ledger in the lake: one for each checkpoint there ever was."""
    return sorted(set(lake.folders("_ledger/")) - {_NO_QUERY})


def check_counts(entry: LedgerEntry) -> None:
    """read = raw = processed + quarantined, or BatchMismatchError with the figures."""
    report = entry.report
    if not report.read == report.raw == report.processed + report.quarantined:
        raise BatchMismatchError(
            f"batch {entry.batch} of query {entry.query}: {report.read} records read, {report.raw} raw lines, "
            f"{report.processed} processed rows, {report.quarantined} quarantined: these must add up. "
            "Nothing was committed; please report this with the job's log"
        )
