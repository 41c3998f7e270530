"""The plan of the next increment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.gold.increments import CommittedBatch, next_increment
from jobs.lake.delta import NO_BATCH

EVEN = {"corridors": NO_BATCH, "zones": NO_BATCH}


def batches(*rows: int, first: int = 0) -> list[CommittedBatch]:
    return [CommittedBatch("q", number, count, ()) for number, count in enumerate(rows, first)]


def numbers(increment: object) -> list[int]:
    return [batch.number for batch in increment.batches]  # type: ignore[attr-defined]


def test_all_new_batches_are_one_increment() -> None:
    increment = next_increment("q", EVEN, batches(5, 6, 7), 500, 1000)
    assert increment is not None
    assert (numbers(increment), increment.rows, increment.last) == ([0, 1, 2], 18, 2)
    assert increment.tables == ("corridors", "zones")


def test_without_a_new_batch_there_is_no_increment() -> None:
    assert next_increment("q", EVEN, batches(), 500, 1000) is None
    assert next_increment("q", EVEN, batches(0, 0), 500, 1000) is None


def test_an_increment_has_at_most_so_many_batches_and_rows_but_at_least_one_batch() -> None:
    assert numbers(next_increment("q", EVEN, batches(5, 5, 5), 2, 1000)) == [0, 1]
    assert numbers(next_increment("q", EVEN, batches(5, 5, 5), 500, 10)) == [0, 1]
    assert numbers(next_increment("q", EVEN, batches(5000, 5), 500, 10)) == [0]


def test_batches_without_rows_do_not_count_and_do_not_start_an_increment() -> None:
    assert numbers(next_increment("q", EVEN, batches(0, 0, 5, 0, 0, 5, 0), 1, 1000)) == [2, 3, 4]


def test_a_table_that_lacks_batches_after_a_crash_gets_them_first() -> None:
    progress = {"corridors": 4, "zones": 2, "city_summary": 2}
    increment = next_increment("q", progress, batches(1, 1, 1, 1, first=3), 500, 1000)
    assert increment is not None
    assert (numbers(increment), increment.tables) == ([3, 4], ("city_summary", "zones"))


def test_batches_without_rows_between_two_tables_progress_are_skipped() -> None:
    progress = {"corridors": 4, "zones": 3}
    increment = next_increment("q", progress, batches(0, 7, first=4), 500, 1000)
    assert increment is not None
    assert (numbers(increment), increment.tables) == ([5], ("corridors", "zones"))


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.integers(1, 5),
    st.integers(1, 8),
    st.lists(st.integers(0, 2), max_size=60),
)
def test_after_any_crashes_each_table_has_each_batch_with_rows_once_and_in_order(
    rows: list[int], max_batches: int, max_rows: int, crashes: list[int]
) -> None:
    ledger = batches(*rows)
    progress = dict.fromkeys(("a", "b", "c"), NO_BATCH)
    taken: dict[str, list[int]] = {name: [] for name in progress}
    crash = iter(crashes)
    while True:
        after = min(progress.values())
        increment = next_increment("q", progress, ledger[after + 1 :], max_batches, max_rows)
        if increment is None:
            break
        # Killed after this many of the increment's tables; 3: not killed.
        for name in increment.tables[: next(crash, 3)]:
            taken[name] += [batch.number for batch in increment.batches if batch.rows]
            progress[name] = increment.last
    assert list(taken.values()) == [[number for number, count in enumerate(rows) if count]] * 3
