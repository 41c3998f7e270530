"""Rejected records that are no longer in quarantine, because `movement replay --quarantine` has sent them back.

In: ledger entries, and the journal of the lines that were sent. Out: by batch, how many of its rejected records are on
the stream again. Such a record becomes a row, or it is rejected again and counts in its new batch. So the rejected
records of all batches, without the replayed ones, have each record once.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta

from jobs.common.errors import TerminalError
from jobs.lake.ledger import LedgerEntry
from jobs.lake.quarantine_files import read_lines
from jobs.lake.sent_journal import ChunkEntry, SentLines
from jobs.lake.store import Lake

log = logging.getLogger(__name__)

# Greatest difference between the clocks of the job, which names the end of a batch, and of the machine that replays it.
_CLOCKS = timedelta(days=1)


class ReplayedRecords:
    """Counts a lake's replayed records. Keeps what does not change, for a page that asks again and again."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._closed: dict[str, ChunkEntry] = {}
        # By quarantine file: the reason of each line. A file with a sent line never changes.
        self._reasons: dict[str, list[str]] = {}

    def by_reason(self, entries: Iterable[LedgerEntry]) -> dict[str, Counter[str]]:
        """By batch (`entry.name`): the replayed records of each reason. Leaves out batches without any.

        Without rejected records it sends no request. Otherwise it reads the journal of the runs since the oldest batch,
        and the quarantine files of batches of which only a part was replayed.
        """
        rejected = [entry for entry in entries if entry.report.quarantined]
        if not rejected:
            return {}
        oldest = min(entry.started_at for entry in rejected)
        sent = SentLines(self._lake, oldest - _CLOCKS, self._closed)
        found = {entry.name: self._of_batch(entry, sent) for entry in rejected}
        return {name: reasons for name, reasons in found.items() if reasons}

    def _of_batch(self, entry: LedgerEntry, sent: SentLines) -> Counter[str]:
        lines = {file.path: sent.of(file.path)[0] for file in entry.report.files if file.kind == "quarantine"}
        if sum(map(len, lines.values())) == entry.report.quarantined:
            return Counter(entry.report.reasons)
        reasons: Counter[str] = Counter()
        for path, numbers in lines.items():
            if numbers:
                of_lines = self._reasons_of(path)
                reasons.update(of_lines[number] for number in numbers if number < len(of_lines))
        return reasons

    def _reasons_of(self, path: str) -> list[str]:
        if path not in self._reasons:
            try:
                self._reasons[path] = [sys.intern(line.reason) for line in read_lines(self._lake, path)]
            except TerminalError as error:
                log.warning("%s. Its replayed records count as rejected", error)
                self._reasons[path] = []
        return self._reasons[path]
