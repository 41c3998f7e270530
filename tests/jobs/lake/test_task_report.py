"""The reports of tasks add up to the batch's, in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.lake.task_report import SequenceRange, TaskReport, WrittenFile, sum_reports

MOMENT = datetime(2026, 11, 23, tzinfo=UTC)
COUNTS = st.integers(0, 10**9)
RANGES = st.tuples(st.integers(1, 10**56), st.integers(0, 1000)).map(
    lambda drawn: SequenceRange(str(drawn[0]), str(drawn[0] + drawn[1]), drawn[1] + 1)
)
FILES = st.builds(
    WrittenFile,
    kind=st.sampled_from(["raw", "processed", "quarantine"]),
    path=st.uuids().map(str),
    partition=st.sampled_from(["city=a", "city=b"]),
    rows=COUNTS,
    bytes=COUNTS,
)
REPORTS = st.builds(
    TaskReport,
    read=COUNTS, read_bytes=COUNTS, raw=COUNTS, processed=COUNTS, quarantined=COUNTS, rescued=COUNTS,
    reasons=st.dictionaries(st.sampled_from(["not_json", "wrong_type"]), COUNTS),
    shards=st.dictionaries(st.sampled_from(["s0", "s1", "s2"]), RANGES),
    files=st.lists(FILES, max_size=3),
    seconds=st.dictionaries(st.sampled_from(["parse", "raw"]), st.integers(0, 1000).map(float)),
)  # fmt: skip


@given(st.lists(REPORTS, max_size=5), st.randoms())
def test_the_order_of_tasks_does_not_matter(reports: list[TaskReport], random: object) -> None:
    shuffled = list(reports)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sum_reports(reports) == sum_reports(shuffled)


@given(st.lists(REPORTS, max_size=4), st.lists(REPORTS, max_size=4))
def test_a_sum_of_sums_is_the_sum(one: list[TaskReport], other: list[TaskReport]) -> None:
    assert sum_reports([sum_reports(one), sum_reports(other)]) == sum_reports(one + other)


@given(st.lists(REPORTS, max_size=5))
def test_summing_changes_no_report(reports: list[TaskReport]) -> None:
    before = msgspec.json.encode(reports)
    sum_reports(reports)
    assert msgspec.json.encode(reports) == before


@given(REPORTS)
def test_a_report_can_be_encoded_as_json(report: TaskReport) -> None:
    assert msgspec.json.decode(msgspec.json.encode(report), type=TaskReport) == report


def test_no_reports_give_an_empty_report() -> None:
    assert sum_reports([]) == TaskReport()


def test_sequence_numbers_compare_as_numbers() -> None:
    both = sum_reports(
        [TaskReport(shards={"s": SequenceRange("9", "99", 2)}), TaskReport(shards={"s": SequenceRange("10", "100", 3)})]
    )
    assert both.shards == {"s": SequenceRange("9", "100", 5)}


def test_user_records_of_a_kpl_aggregate_compare_by_their_sub_sequence_number() -> None:
    ranges = [SequenceRange("9:0", "9:11", 12, MOMENT), SequenceRange("9:12", "10:2", 3, MOMENT + timedelta(hours=1))]
    for order in (ranges, ranges[::-1]):
        both = sum_reports(TaskReport(shards={"s": found}) for found in order)
        assert both.shards == {"s": SequenceRange("9:0", "10:2", 15, MOMENT + timedelta(hours=1))}


@pytest.mark.parametrize(("kind", "expected"), [("raw", []), ("processed", ["city=a", "city=b"])])
def test_partitions_are_distinct_and_sorted(kind: str, expected: list[str]) -> None:
    files = [WrittenFile("processed", f"{at}", f"city={at}", 1, 1) for at in ("b", "a", "b")]
    assert TaskReport(files=files).partitions(kind) == expected  # type: ignore[arg-type]
