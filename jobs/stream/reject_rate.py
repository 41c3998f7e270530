"""Checks the share of rejected records: raises an alarm, or stops the job if the settings say so."""

from __future__ import annotations

from jobs.common.errors import TooManyRejectedError
from jobs.lake.task_report import TaskCounts
from jobs.settings.sections import SinkSettings

# The share of fewer records says little: one bad record could be a whole batch.
MIN_RECORDS = 100


class RejectRateMonitor:
    """The share of rejected records in one run of the job, batch by batch.

    Small batches accumulate until they reach MIN_RECORDS and are then checked as one. Otherwise a quiet stream whose
    records are all rejected would never raise an alarm. The counters are kept in memory: a new start begins at 0.
    """

    def __init__(self, sink: SinkSettings) -> None:
        self._sink = sink
        self._first: str | None = None  # name of the first accumulated batch
        self._accumulated = TaskCounts()

    def check(self, counts: TaskCounts, batch: str) -> list[str]:
        """The alarms that the batch `<query>-<batch>` raises, at most one, as text for the ledger entry and the log.

        Call it once a batch, before its partitions are registered. Raises TooManyRejectedError instead if
        `sink.fail_on_max_rejected_share` is set: the batch does not become final, and the next start reads it again.
        """
        first, total = self._first or batch, self._accumulated
        total.add_counts(counts)
        if total.read < MIN_RECORDS:
            self._first = first
            return []
        self._first, self._accumulated = None, TaskCounts()
        if counts.read >= MIN_RECORDS and self._is_exceeded(counts):
            # Enough records to be checked alone: good batches before it do not excuse it.
            first, total = batch, counts
        elif not self._is_exceeded(total):
            return []
        alarm = self._alarm(total, f"batch {batch}" if first == batch else f"batches {first} to {batch}")
        if self._sink.fail_on_max_rejected_share:
            raise TooManyRejectedError(
                f"{alarm}. The job stops because of sink.fail_on_max_rejected_share; batch {batch} is not final and "
                "its records are still on the stream. Correct the contract, or allow a greater share, and start again"
            )
        return [alarm]

    def _is_exceeded(self, counts: TaskCounts) -> bool:
        return counts.quarantined > self._sink.max_rejected_share * counts.read

    def _alarm(self, counts: TaskCounts, batches: str) -> str:
        by_count = sorted(counts.reasons.items(), key=lambda item: -item[1])
        return (
            f"{batches}: {counts.quarantined} of {counts.read} records rejected "
            f"({counts.quarantined / counts.read:.1%}), more than sink.max_rejected_share="
            f"{self._sink.max_rejected_share:g} allows: {', '.join(f'{code} {count}' for code, count in by_count)}"
        )
