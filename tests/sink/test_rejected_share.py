"""Too many rejected records: an alarm with the figures, a stop only where it is asked for."""

from __future__ import annotations

import pytest

from jobs.contract.errors import TooManyRejectedError
from jobs.contract.sink_settings import SinkSettings
from jobs.sink.rejected_share import rejected_alarms
from jobs.sink.report import Report


def report(read: int, **reasons: int) -> Report:
    rejected = sum(reasons.values())
    return Report(read=read, raw=read, processed=read - rejected, quarantined=rejected, reasons=reasons)


@pytest.mark.parametrize(
    ("read", "rejected", "share"), [(1000, 100, 0.1), (1000, 0, 0.0), (1000, 1000, 1.0), (99, 99, 0.1), (0, 0, 0.0)]
)
def test_a_share_that_is_allowed_or_says_little_is_no_alarm(read: int, rejected: int, share: float) -> None:
    sink = SinkSettings(max_rejected_share=share, stop_when_exceeded=True)
    assert rejected_alarms(report(read, not_json=rejected), sink, "q-1") == []


@pytest.mark.parametrize(("read", "rejected", "share"), [(1000, 101, 0.1), (100, 1, 0.0), (100, 100, 0.99)])
def test_a_greater_share_is_an_alarm_with_batch_figures_and_reasons(read: int, rejected: int, share: float) -> None:
    found = report(read, not_json=rejected)
    (alarm,) = rejected_alarms(found, SinkSettings(max_rejected_share=share), "q-1")
    for words in ("batch q-1", f"{rejected} of {read}", f"sink.max_rejected_share={share:g}", f"not_json {rejected}"):
        assert words in alarm


def test_the_most_frequent_reason_is_told_first() -> None:
    (alarm,) = rejected_alarms(report(100, not_json=5, wrong_type=60), SinkSettings(), "q-1")
    assert alarm.endswith("wrong_type 60, not_json 5")


def test_the_job_stops_only_where_it_is_told_to() -> None:
    bad = report(100, not_json=50)
    assert len(rejected_alarms(bad, SinkSettings(), "q-1")) == 1, "an alarm by default"
    with pytest.raises(TooManyRejectedError, match=r"50\.0%.*not final.*Correct the contract, or set a greater share"):
        rejected_alarms(bad, SinkSettings(stop_when_exceeded=True), "q-1")
