"""Too many rejected records: an alarm with the figures, a stop only where it is asked for."""

from __future__ import annotations

import pytest

from jobs.common.errors import TooManyRejectedError
from jobs.lake.task_report import TaskReport
from jobs.settings.sections import SinkSettings
from jobs.stream.reject_rate import RejectedShare


def report(read: int, **reasons: int) -> TaskReport:
    rejected = sum(reasons.values())
    return TaskReport(read=read, raw=read, processed=read - rejected, quarantined=rejected, reasons=reasons)


def alarms(found: TaskReport, **settings: object) -> list[str]:
    """What the first batch of a job raises."""
    return RejectedShare(SinkSettings.model_validate(settings)).alarms(found, "q-1")


@pytest.mark.parametrize(
    ("read", "rejected", "share"), [(1000, 100, 0.1), (1000, 0, 0.0), (1000, 1000, 1.0), (99, 99, 0.1), (0, 0, 0.0)]
)
def test_a_share_that_is_allowed_or_says_little_is_no_alarm(read: int, rejected: int, share: float) -> None:
    assert alarms(report(read, not_json=rejected), max_rejected_share=share, fail_on_max_rejected_share=True) == []


@pytest.mark.parametrize(("read", "rejected", "share"), [(1000, 101, 0.1), (100, 1, 0.0), (100, 100, 0.99)])
def test_a_greater_share_is_an_alarm_with_batch_figures_and_reasons(read: int, rejected: int, share: float) -> None:
    (alarm,) = alarms(report(read, not_json=rejected), max_rejected_share=share)
    for words in ("batch q-1", f"{rejected} of {read}", f"sink.max_rejected_share={share:g}", f"not_json {rejected}"):
        assert words in alarm


def test_the_most_frequent_reason_is_told_first() -> None:
    (alarm,) = alarms(report(100, not_json=5, wrong_type=60))
    assert alarm.endswith("wrong_type 60, not_json 5")


def test_the_job_stops_only_where_it_is_told_to() -> None:
    bad = report(100, not_json=50)
    assert len(alarms(bad)) == 1, "an alarm by default"
    with pytest.raises(TooManyRejectedError, match=r"50\.0%.*not final.*Correct the contract, or set a greater share"):
        alarms(bad, fail_on_max_rejected_share=True)


def test_a_quiet_stream_that_rejects_everything_raises_an_alarm_once_a_hundred_records_came() -> None:
    share = RejectedShare(SinkSettings())
    told = [share.alarms(report(40, not_json=30, wrong_type=10), f"q-{number}") for number in range(1, 7)]
    assert [len(found) for found in told] == [0, 0, 1, 0, 0, 1]
    assert told[2][0].startswith("batches q-1 to q-3: 120 of 120 records rejected (100.0%)")
    assert told[2][0].endswith("not_json 90, wrong_type 30")
    assert told[5][0].startswith("batches q-4 to q-6: 120 of 120")


def test_small_batches_within_the_share_are_no_alarm_together_and_are_judged_once() -> None:
    share = RejectedShare(SinkSettings())
    assert [share.alarms(report(50, not_json=5), f"q-{number}") for number in range(20)] == [[]] * 20


def test_a_batch_of_a_hundred_is_judged_alone_too() -> None:
    share = RejectedShare(SinkSettings())
    share.alarms(report(99), "q-1")
    (alarm,) = share.alarms(report(100, not_json=11), "q-2")
    assert alarm.startswith("batch q-2: 11 of 100")
    share.alarms(report(99, not_json=99), "q-3")
    (alarm,) = share.alarms(report(100), "q-4")
    assert alarm.startswith("batches q-3 to q-4: 99 of 199")
