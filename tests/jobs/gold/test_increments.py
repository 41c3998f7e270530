"""The plan of the next increment."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from jobs.gold.increments import CommittedBatch, lagging_sources, next_increment
from jobs.gold.job import find_increment
from jobs.lake.delta import NO_BATCH
from jobs.lake.store import lake_at
from jobs.settings.settings import load_settings
from tests.helpers.made_gold import finish
from tests.helpers.samples import good

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


def test_a_source_that_lacks_batches_of_its_summary_is_named() -> None:
    sources = {"city_summary": "corridors"}
    assert lagging_sources({"corridors": 4, "city_summary": 4, "zones": 1}, sources) == {}
    assert lagging_sources({"corridors": 5, "city_summary": 4}, sources) == {}, "the summary is next"
    assert lagging_sources({"corridors": -1, "city_summary": 4, "zones": 1}, sources) == {
        "corridors": -1, "city_summary": 4
    }  # fmt: skip


class FakeTable:
    """A Delta table's progress by query."""

    def __init__(self, **progress: int) -> None:
        self.transaction_version = progress.get


def test_a_deleted_source_catches_up_in_every_query_before_anything_else(tmp_path: Path) -> None:
    settings = load_settings(None, [f"lake={tmp_path / 'lake'}"])
    for number in range(3):
        finish(settings, "a", number, [good()])
        finish(settings, "b", number, [good()])
    lake, sources = lake_at(settings.lake), {"city_summary": "corridors"}

    def planned(**tables: FakeTable | None) -> tuple[str, list[int], tuple[str, ...]]:
        increment = find_increment(lake, settings, tables, sources)  # type: ignore[arg-type]
        assert increment is not None
        return increment.query, numbers(increment), increment.tables

    # The summary has a-0 and all of b. Until corridors has these, no group may be computed from it.
    summary = FakeTable(a=0, b=2)
    assert planned(corridors=None, city_summary=summary) == ("a", [0], ("corridors",))
    assert planned(corridors=FakeTable(a=0), city_summary=summary) == ("b", [0, 1, 2], ("corridors",))
    assert planned(corridors=FakeTable(a=0, b=2), city_summary=summary) == ("a", [1, 2], ("city_summary", "corridors"))


def test_a_source_that_only_lacks_batches_without_rows_holds_nothing_up(tmp_path: Path) -> None:
    settings = load_settings(None, [f"lake={tmp_path / 'lake'}"])
    finish(settings, "a", 0, [])
    finish(settings, "a", 1, [good()])
    tables = {"corridors": FakeTable(a=-1), "city_summary": FakeTable(a=0)}
    found = find_increment(lake_at(settings.lake), settings, tables, {"city_summary": "corridors"})  # type: ignore[arg-type]
    assert found is not None
    assert numbers(found) == [1]
