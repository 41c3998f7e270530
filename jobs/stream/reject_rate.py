"""Too many rejected records: an alarm, and a stop where the settings say so."""

from __future__ import annotations

from jobs.common.errors import TooManyRejectedError
from jobs.lake.task_report import TaskReport, sum_reports
from jobs.settings.sections import SinkSettings

# A share of fewer records says little: one bad record alone would be all of a batch.
MIN_RECORDS = 100


class RejectedShare:
    """The share of rejected records of one run of the job, batch by batch.

    Batches of fewer than MIN_RECORDS are judged together, once they are as many: else a quiet stream of which every
    record is rejected would never raise an alarm. They are kept in memory alone: a new start counts anew.
    """

    def __init__(self, sink: SinkSettings) -> None:
        self._sink = sink
        self._since: str | None = None  # the first of the batches that wait to be judged
        self._waiting = TaskReport()

    def alarms(self, report: TaskReport, batch: str) -> list[str]:
        """The alarm that the batch's rejections raise, in words, or none; for its ledger entry and the log.

        Call once a batch, before its partitions are registered. Raises TooManyRejectedError with
        `sink.fail_on_max_rejected_share`: the batch is then not final, and is read anew by the next start.
        """
        counts = TaskReport(read=report.read, quarantined=report.quarantined, reasons=report.reasons)
        since, together = self._since or batch, sum_reports([self._waiting, counts])
        if together.read < MIN_RECORDS:
            self._since, self._waiting = since, together
            return []
        self._since, self._waiting = None, TaskReport()
        if counts.read >= MIN_RECORDS and self._is_exceeded(counts):
            # Enough to be judged alone: good batches before it do not make it better.
            since, together = batch, counts
        elif not self._is_exceeded(together):
            return []
        alarm = self._alarm(together, f"batch {batch}" if since == batch else f"batches {since} to {batch}")
        if self._sink.fail_on_max_rejected_share:
            raise TooManyRejectedError(
                f"{alarm}. Stopped, as sink.fail_on_max_rejected_share says; batch {batch} is not final and its "
                "records are still on the stream. Correct the contract, or set a greater share, and start again"
            )
        return [alarm]

    def _is_exceeded(self, counts: TaskReport) -> bool:
        return counts.quarantined > self._sink.max_rejected_share * counts.read

    def _alarm(self, counts: TaskReport, batches: str) -> str:
        by_count = sorted(counts.reasons.items(), key=lambda item: -item[1])
        return (
            f"{batches}: {counts.quarantined} of {counts.read} records rejected "
            f"({counts.quarantined / counts.read:.1%}), more than sink.max_rejected_share="
            f"{self._sink.max_rejected_share:g} allows: {', '.join(f'{code} {count}' for code, count in by_count)}"
        )
