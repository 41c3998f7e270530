"""Partition locations: the layout, the live files, and the copies that a batch makes before it is final."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.common.errors import TerminalError, TransientError
from jobs.lake.partition_locations import (
    LayoutFile,
    NextLocation,
    OldLocation,
    PartitionLocation,
    batch_of,
    check_layout,
    copy_to_live_locations,
    default_folder,
    point_to_files,
    relocated_folder,
)
from jobs.lake.store import FolderLake
from jobs.lake.table_files import live_files
from jobs.lake.task_report import TaskReport, WrittenFile
from tests.helpers.compaction_lakes import write_batch
from tests.helpers.lakes import make_lake
from tests.helpers.samples import TRAVEL_TIMES, good

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

A, B = "city=a/start_date=2016-09-03", "city=b/start_date=2016-09-03"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> FolderLake:
    return FolderLake(str(tmp_path / "lake"))


def put(lake: FolderLake, *paths: str) -> None:
    for path in paths:
        lake.put(path, io.BytesIO(path.encode()))


def paths(lake: FolderLake, prefix: str = "") -> list[str]:
    return sorted(path for path, _ in lake.list(prefix))


def test_without_a_layout_every_partition_is_in_its_default_folder(lake: FolderLake) -> None:
    layout = LayoutFile(lake, "processed").read()
    assert layout.location(A) == PartitionLocation(f"processed/{A}/")
    assert (layout.relocated, layout.revision) == ({}, 0)


def test_of_two_changes_at_once_one_succeeds(lake: FolderLake) -> None:
    layouts = LayoutFile(lake, "processed")
    seen = layouts.read()
    changed = layouts.change(seen, {A: PartitionLocation("elsewhere/")})
    assert changed is not None
    assert layouts.read() == changed
    assert layouts.change(seen, {B: PartitionLocation("nowhere/")}) is None
    again = layouts.change(changed, {A: PartitionLocation(default_folder("processed", A))})
    assert again is not None
    assert (again.partitions, again.revision) == ({}, 2), "a partition in its default folder is no longer named"


def test_a_file_name_tells_which_batch_wrote_it() -> None:
    assert batch_of("processed/x/96ce03e0832d-12-00003-000.parquet") == "96ce03e0832d-12"
    assert batch_of("quarantine/x/batch-7-00003-000.json.gz") == "batch-7"
    assert batch_of("processed/x/compacted-123456789012-000.parquet") is None
    assert batch_of("processed/x/rebuilt-1-2-00000-000.parquet") is None
    assert batch_of("processed/x/by-hand.parquet") is None


def test_live_files_are_only_those_in_current_locations(lake: FolderLake) -> None:
    new = relocated_folder("processed", A, "run")
    put(lake, f"processed/{A}/q-0-00000-000.parquet", f"processed/{B}/q-0-00000-000.parquet", f"{new}compacted-x-000")
    layouts = LayoutFile(lake, "processed")
    assert [file.partition for file in live_files(lake, "processed")] == [A, B]
    first = layouts.change(layouts.read(), {A: PartitionLocation(f"processed/{A}/", NextLocation(new))})
    assert first is not None
    assert [file.path for file in live_files(lake, "processed")] == paths(lake, "processed/"), (
        "the next location is not live yet"
    )
    layouts.change(first, {A: PartitionLocation(new, None, (OldLocation(f"processed/{A}/", NOW),))})
    assert sorted(file.path for file in live_files(lake, "processed")) == [
        f"processed/{B}/q-0-00000-000.parquet", f"{new}compacted-x-000",
    ]  # fmt: skip
    assert [file.path for file in live_files(lake, "processed", [A])] == [f"{new}compacted-x-000"]


def report(*partitions: str) -> TaskReport:
    files = [WrittenFile("processed", f"processed/{name}/q-0-00000-000.parquet", name, 1, 1) for name in partitions]
    return TaskReport(files=[*files, WrittenFile("raw", "raw/x/q-0-00000-000.json.gz", "x", 1, 1)])


def test_without_a_move_a_batch_copies_nothing_and_reads_the_layout_once(
    lake: FolderLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    get = lake.get
    monkeypatch.setattr(lake, "get", lambda path: asked.append(path) or get(path))
    batch = report(A, B)
    put(lake, *(file.path for file in batch.files))
    before = list(batch.files)
    copy_to_live_locations(lake, LayoutFile(lake, "processed"), batch, "processed", lambda: None)
    assert asked == ["_layout/processed.json"]
    assert sorted(batch.files, key=repr) == sorted(before, key=repr)


def test_a_batch_writes_to_the_current_and_the_next_location(lake: FolderLake) -> None:
    batch, held = report(A, B), []
    put(lake, *(file.path for file in batch.files))
    layouts = LayoutFile(lake, "processed")
    layouts.change(layouts.read(), {A: PartitionLocation("here/", NextLocation("there/"))})

    copy_to_live_locations(lake, layouts, batch, "processed", lambda: held.append(1))

    assert paths(lake, "here/") + paths(lake, "there/") == ["here/q-0-00000-000.parquet", "there/q-0-00000-000.parquet"]
    assert [file.path for file in batch.files] == [
        "here/q-0-00000-000.parquet", f"processed/{B}/q-0-00000-000.parquet", "raw/x/q-0-00000-000.json.gz",
    ]  # fmt: skip
    assert held == [1]


def test_a_file_that_another_job_has_deleted_stops_the_batch(lake: FolderLake) -> None:
    layouts = LayoutFile(lake, "processed")
    layouts.change(layouts.read(), {A: PartitionLocation("here/")})
    with pytest.raises(
        TransientError, match=f"copy .*/processed/{A}/q-0-00000-000.parquet to here/.*: the file is gone"
    ):
        copy_to_live_locations(lake, layouts, report(A), "processed", lambda: None)


@pytest.mark.spark
@pytest.mark.aws
def test_the_parity_check_reads_moved_partitions(spark: SparkSession, tmp_path: Path) -> None:
    from jobs.maintenance import compact
    from jobs.parity import job as parity_job

    settings = make_lake(tmp_path, "compact.min_files=2", "compact.grace_seconds=3600")
    for batch in range(3):
        write_batch(settings, batch, [[good(), good(City="a/b")], [good(City="München")]])
    before = parity_job.read_table(spark, settings.lake, "processed", TRAVEL_TIMES).collect()
    result = compact.run(settings, ["city=a%2Fb/start_date=2016-09-03", "city=Paris/start_date=2016-09-03"])
    assert len(result.partitions) == 2
    after = parity_job.read_table(spark, settings.lake, "processed", TRAVEL_TIMES).collect()
    assert sorted(after, key=repr) == sorted(before, key=repr)
    assert len(after) == 9


def test_a_lost_layout_is_refused_only_if_moved_partitions_have_files(lake: FolderLake) -> None:
    check_layout(lake, "processed")
    lake.put(f"relocated/processed/{A}/run/x.parquet", io.BytesIO(b"1"))
    with pytest.raises(TerminalError, match=r"_layout/processed\.json is gone.*restore the file"):
        check_layout(lake, "processed")
    layouts = LayoutFile(lake, "processed")
    layouts.change(layouts.read(), {A: PartitionLocation(f"relocated/processed/{A}/run/")})
    check_layout(lake, "processed")


def test_the_catalog_is_pointed_again_until_the_layout_no_longer_changes(lake: FolderLake) -> None:
    default, moved = default_folder("processed", A), f"relocated/processed/{A}/run/"
    layouts, pointed = LayoutFile(lake, "processed"), list[dict[str, str]]()

    def point(wanted: Mapping[str, str]) -> None:
        pointed.append(dict(wanted))
        if len(pointed) == 1:  # meanwhile a run completes the next location
            layouts.change(layouts.read(), {A: PartitionLocation(default, NextLocation(moved, switching=True))})

    point_to_files(layouts.read, [A, B], point)
    assert pointed == [{A: default, B: default_folder("processed", B)}, {A: moved}]
