"""Too many rejected records raise an alarm with figures, and stop the job only if the settings say so."""

from __future__ import annotations

import pytest

from jobs.common.errors import TooManyRejectedError
from jobs.lake.task_report import TaskCounts
from jobs.settings.sections import SinkSettings
from jobs.stream.reject_rate import RejectRateMonitor


def counts(read: int, **reasons: int) -> TaskCounts:
    rejected = sum(reasons.values())
    return TaskCounts(read=read, raw=read, processed=read - rejected, quarantined=rejected, reasons=reasons)


def alarms(found: TaskCounts, **settings: object) -> list[str]:
    """What the first batch of a job raises."""
    return RejectRateMonitor(SinkSettings.model_validate(settings)).check(found, "q-1")


@pytest.mark.parametrize(
    ("read", "rejected", "share"), [(1000, 100, 0.1), (1000, 0, 0.0), (1000, 1000, 1.0), (99, 99, 0.1), (0, 0, 0.0)]
)
def test_no_alarm_for_an_allowed_share_or_too_few_records(read: int, rejected: int, share: float) -> None:
    assert alarms(counts(read, not_json=rejected), max_rejected_share=share, fail_on_max_rejected_share=True) == []


@pytest.mark.parametrize(("read", "rejected", "share"), [(1000, 101, 0.1), (100, 1, 0.0), (100, 100, 0.99)])
def test_a_greater_share_raises_an_alarm_with_batch_figures_and_reasons(read: int, rejected: int, share: float) -> None:
    (alarm,) = alarms(counts(read, not_json=rejected), max_rejected_share=share)
    for words in ("batch q-1", f"{rejected} of {read}", f"sink.max_rejected_share={share:g}", f"not_json {rejected}"):
        assert words in alarm


def test_the_most_frequent_reason_comes_first() -> None:
    (alarm,) = alarms(counts(100, not_json=5, wrong_type=60))
    assert alarm.endswith("wrong_type 60, not_json 5")


def test_the_job_stops_only_if_the_settings_say_so() -> None:
    bad = counts(100, not_json=50)
    assert len(alarms(bad)) == 1, "an alarm by default"
    with pytest.raises(
        TooManyRejectedError, match=r"50\.0%.*not final.*Correct the contract, or allow a greater share"
    ):
        alarms(bad, fail_on_max_rejected_share=True)


def test_a_quiet_stream_that_rejects_everything_raises_an_alarm_after_100_records() -> None:
    monitor = RejectRateMonitor(SinkSettings())
    found = [monitor.check(counts(40, not_json=30, wrong_type=10), f"q-{number}") for number in range(1, 7)]
    assert [len(alarms) for alarms in found] == [0, 0, 1, 0, 0, 1]
    assert found[2][0].startswith("batches q-1 to q-3: 120 of 120 records rejected (100.0%)")
    assert found[2][0].endswith("not_json 90, wrong_type 30")
    assert found[5][0].startswith("batches q-4 to q-6: 120 of 120")


def test_small_batches_within_the_share_raise_no_alarm_together() -> None:
    monitor = RejectRateMonitor(SinkSettings())
    assert [monitor.check(counts(50, not_json=5), f"q-{number}") for number in range(20)] == [[]] * 20


def test_a_batch_of_100_records_is_also_checked_alone() -> None:
    monitor = RejectRateMonitor(SinkSettings())
    monitor.check(counts(99), "q-1")
    (alarm,) = monitor.check(counts(100, not_json=11), "q-2")
    assert alarm.startswith("batch q-2: 11 of 100")
    monitor.check(counts(99, not_json=99), "q-3")
    (alarm,) = monitor.check(counts(100), "q-4")
    assert alarm.startswith("batches q-3 to q-4: 99 of 199")
