"""The gold job's reader, without Spark: processed files in, Arrow batches of gold's columns out."""

from __future__ import annotations

import io
import random
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.common.errors import TransientError
from jobs.gold.reader import RowReader, split_into_tasks
from jobs.gold.tables import GoldTable
from jobs.gold.zones import ZoneReader
from jobs.lake.store import lake_at
from jobs.lake.table_files import LiveFile
from jobs.settings.settings import Settings, load_settings
from tests.helpers import plain_gold as plain
from tests.helpers.made_gold import finish, some_records
from tests.helpers.plain_gold import CORRIDORS, ZONES
from tests.helpers.samples import TRAVEL_TIMES, good


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, [f"lake={tmp_path / 'lake'}"])


def files(settings: Settings) -> list[LiveFile]:
    return [
        LiveFile(path.removeprefix("processed/").rpartition("/")[0], path, size)
        for path, size in lake_at(settings.lake).list("processed/")
    ]


def reader(settings: Settings, *batches: str) -> RowReader:
    return RowReader([[file] for file in files(settings)], frozenset(batches), settings.lake, needs(CORRIDORS))


def needs(table: GoldTable) -> tuple[tuple[str, str], ...]:
    return tuple((name, TRAVEL_TIMES.row_types[name]) for name in table.needs)


def rows_of(read: RowReader | ZoneReader, tasks: int) -> list[dict[str, object]]:
    numbers = pa.record_batch({"id": pa.array(range(tasks), pa.int64())})
    return [row for batch in read(iter([numbers])) for row in batch.to_pylist()]


def test_partition_values_become_columns_and_rows_of_other_batches_are_skipped(settings: Settings) -> None:
    finish(settings, "q", 0, [good(City="a/b")])
    finish(settings, "q", 1, [good(City="a/b")])

    rows = rows_of(reader(settings, "q-1"), 2)

    assert [(row["city"], row["start_date"], row["batch"]) for row in rows] == [("a/b", date(2016, 9, 3), "q-1")]
    assert list(rows[0]) == [name for name, _, _ in CORRIDORS.columns]


def test_a_column_that_the_file_does_not_have_is_null(settings: Settings) -> None:
    finish(settings, "q", 0, [good()])
    (file,) = files(settings)
    lake = lake_at(settings.lake)
    older = pq.read_table(io.BytesIO(lake.get(file.path) or b"")).drop_columns(["time_filter"])
    content = io.BytesIO()
    pq.write_table(older, content)
    content.seek(0)
    lake.put(file.path, content)

    assert [row["time_filter"] for row in rows_of(reader(settings, "q-0"), 1)] == [None]


def test_the_error_for_a_deleted_file_names_it(settings: Settings) -> None:
    finish(settings, "q", 0, [good()])
    read = reader(settings, "q-0")
    lake_at(settings.lake).delete([file.path for file in files(settings)])

    with pytest.raises(TransientError, match=r"processed/city=Paris.*is gone since the run was planned"):
        rows_of(read, 1)


def test_zones_equal_a_plain_computation_for_any_tasks(settings: Settings) -> None:
    chance = random.Random(7)
    for query in ("a", "b"):
        for number in range(3):
            finish(settings, query, number, *some_records(chance, 80))
    rows = plain.processed(lake_at(settings.lake))
    names = {str(row["batch"]) for row in rows}
    found = files(settings)
    one_task = RowReader([found], frozenset(names), settings.lake, needs(ZONES))

    zones = rows_of(ZoneReader(one_task, ZONES), 1)

    assert {(zone["city"], zone["movement_id"]): zone for zone in zones} == {
        (zone["city"], zone["movement_id"]): zone for zone in plain.zones(rows)
    }
    assert len(zones) == len(plain.zones(rows))
    assert list(zones[0]) == [name for name, _, _ in ZONES.columns]


def test_every_file_is_in_exactly_one_task() -> None:
    small = [LiveFile("p", f"f{number}", 1000) for number in range(36)]
    assert sorted(file for task in split_into_tasks(small, 4) for file in task) == sorted(small)
    assert len(split_into_tasks(small, 4)) <= 4
    large = [LiveFile("p", f"f{number}", 128 * 1024 * 1024) for number in range(10)]
    assert [len(task) for task in split_into_tasks(large, 4)] == [1] * 10
    assert split_into_tasks([], 4) == []
