"""The journal of sent quarantine lines: the next run knows what a run has written."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.errors import AlreadyRunningError
from jobs.lake.sent_journal import JOURNAL, JournalRun, SentLines, as_ranges
from jobs.lake.store import Lake

LINES = st.sets(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 30)))


@given(LINES)
def test_ranges_name_the_same_lines_and_are_as_few_as_possible(lines: set[tuple[str, int]]) -> None:
    ranges = as_ranges(lines)
    again = [(path, n) for path, found in ranges.items() for first, last in found for n in range(first, last + 1)]
    assert sorted(again) == sorted(lines)
    for found in ranges.values():
        assert all(before[1] + 1 < after[0] for before, after in pairwise(found))


def test_a_closed_chunk_is_sent_and_an_open_one_in_doubt(folder_lake: Lake) -> None:
    run = JournalRun(folder_lake, "stream")
    first, second = run.chunk([("f", 0), ("f", 1), ("g", 5)]), run.chunk([("f", 2), ("f", 3)])
    for chunk in (first, second):
        chunk.open()
    assert SentLines(folder_lake).of("f") == (set(), {0, 1, 2, 3})
    first.close([("f", 0), ("f", 1), ("g", 5)])
    assert SentLines(folder_lake).of("f") == ({0, 1}, {2, 3})
    assert SentLines(folder_lake).of("g") == ({5}, set())
    assert SentLines(folder_lake).of("h") == (set(), set())


def test_a_line_that_a_later_run_has_sent_is_not_in_doubt(lake: Lake) -> None:
    JournalRun(lake, "stream").chunk([("f", 0), ("f", 1)]).open()
    again = JournalRun(lake, "stream").chunk([("f", 0)])
    again.open()
    again.close([("f", 0)])
    assert SentLines(lake).of("f") == ({0}, {1})


def test_an_abandoned_chunk_names_sent_lines_and_lines_in_doubt(lake: Lake) -> None:
    chunk = JournalRun(lake, "stream").chunk([("f", n) for n in range(4)])
    chunk.open()
    chunk.close([("f", 0)], [("f", 3)])
    assert SentLines(lake).of("f") == ({0}, {3})


def test_a_chunk_that_another_run_changed_is_an_error(lake: Lake) -> None:
    chunk = JournalRun(lake, "stream").chunk([("f", 0)])
    with pytest.raises(AlreadyRunningError, match=JOURNAL):
        chunk.close([("f", 0)])
    chunk.open()
    chunk.open()  # a retry after a lost answer
    chunk.close([("f", 0)])
    with pytest.raises(AlreadyRunningError, match=JOURNAL):
        chunk.open()
