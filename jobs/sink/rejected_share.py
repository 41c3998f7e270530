"""A batch with too many rejected records: an alarm, and a stop where the settings say so."""

from __future__ import annotations

from jobs.contract.errors import TooManyRejectedError
from jobs.contract.sink_settings import SinkSettings
from jobs.sink.report import Report

# A share of fewer records says little: one bad record alone would be all of a batch.
MIN_RECORDS = 100


def rejected_alarms(report: Report, sink: SinkSettings, batch: str) -> list[str]:
    """The alarm that a batch's rejections raise, in words, or none; for the batch's ledger entry and the log.

    Call before partitions are registered. Raises TooManyRejectedError with `sink.stop_when_exceeded`: the batch is
    then not final, and is read anew by the next start.
    """
    if report.read < MIN_RECORDS or report.quarantined <= sink.max_rejected_share * report.read:
        return []
    reasons = ", ".join(f"{code} {count}" for code, count in sorted(report.reasons.items(), key=lambda item: -item[1]))
    share = report.quarantined / report.read
    alarm = (
        f"batch {batch}: {report.quarantined} of {report.read} records rejected ({share:.1%}), more than "
        f"sink.max_rejected_share={sink.max_rejected_share:g} allows: {reasons}"
    )
    if sink.stop_when_exceeded:
        raise TooManyRejectedError(
            f"{alarm}. Stopped, as sink.stop_when_exceeded says; the batch is not final and its records are still on "
            "the stream. Correct the contract, or set a greater share, and start again"
        )
    return [alarm]
