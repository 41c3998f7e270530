"""What a run of a job did, over all its batches or runs: the counters that the streaming and the batch job share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from jobs.sink.report import Report


@dataclass
class Totals:
    """Records by fate, partitions written to, rejections by reason, seconds of the whole run.

    `rescued`: those of `processed` with fields that the contract does not name.
    """

    read: int = 0
    processed: int = 0
    quarantined: int = 0
    rescued: int = 0
    partitions: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, report: Report, partitions: Iterable[str]) -> None:
        """Takes in what one batch or run wrote."""
        self.read += report.read
        self.processed += report.processed
        self.quarantined += report.quarantined
        self.rescued += report.rescued
        self.partitions = sorted({*self.partitions, *partitions})
        for reason, count in report.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
