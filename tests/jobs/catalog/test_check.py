"""The catalog compared with the lake's files and repaired: dropped, moved, foreign, empty and unfinished partitions."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from jobs.catalog.check import RepairResult, TableDifferences, catalog_check
from jobs.catalog.glue import GlueCatalog
from jobs.common.aws import client
from jobs.common.errors import TerminalError
from jobs.lake.partition_locations import default_folder
from jobs.lake.store import lake_at
from jobs.maintenance.compact import run as compact
from jobs.settings.settings import Settings
from jobs.stream.catalog_watch import CatalogWatch
from tests.helpers.compaction_lakes import catalog_of, forget_catalog, poll, set_compact, write_batch
from tests.helpers.lakes import make_lake
from tests.helpers.samples import good

pytestmark = pytest.mark.aws

ROWS = 50
CITIES = [f"City {number}" for number in range(5)]
PARTITIONS = [f"city={city}/start_date=2016-09-03" for city in CITIES]


@pytest.fixture
def lake(lake_settings: Settings) -> Settings:
    """A lake with 250 rows in five partitions, in two batches, and its catalog."""
    fill(lake_settings)
    return lake_settings


def fill(settings: Settings, query: str = "a" * 12) -> None:
    for batch in range(2):
        write_batch(settings, batch, [[good(City=city) for city in CITIES for _ in range(ROWS // 2)]], query=query)


def moved(settings: Settings) -> Settings:
    """Compacts everything; the replaced files stay."""
    settings = set_compact(settings, min_files=2, grace_seconds=3600)
    assert len(compact(settings).partitions) == len(CITIES)
    return settings


def visible(settings: Settings) -> int:
    return poll(settings)[0].total()


def glue_names(settings: Settings, table: str = "processed") -> Any:
    return {"DatabaseName": settings.database, "TableName": table}


def drop(settings: Settings, *cities: str) -> None:
    for city in cities:
        client("glue").delete_partition(**glue_names(settings), PartitionValues=[city, "2016-09-03"])


def point(settings: Settings, city: str, location: str) -> None:
    """Points a partition elsewhere, as MSCK, a crawler or a person does."""
    glue, values = client("glue"), [city, "2016-09-03"]
    found = glue.get_partition(**glue_names(settings), PartitionValues=values)["Partition"]
    changed: Any = {"Values": values, "StorageDescriptor": found["StorageDescriptor"] | {"Location": location}}
    glue.update_partition(**glue_names(settings), PartitionValueList=values, PartitionInput=changed)


def differences(settings: Settings) -> dict[str, TableDifferences]:
    return {each.table: each for each in catalog_check(settings).differences()}


def repair(settings: Settings) -> RepairResult:
    return catalog_check(settings).repair(remove_empty=True)


def assert_all_right(settings: Settings) -> None:
    assert {table: each.count for table, each in differences(settings).items()} == {
        "raw": 0,
        "processed": 0,
        "quarantine": 0,
    }
    assert visible(settings) == len(CITIES) * ROWS


def test_a_lake_as_the_job_and_compaction_leave_it_has_no_differences(lake: Settings) -> None:
    assert_all_right(lake)
    assert_all_right(moved(lake))
    found = differences(lake)
    assert (found["raw"].partitions, found["processed"].partitions) == (1, 5)


def test_dropped_partitions_are_found_and_registered_again_in_place_and_moved(lake: Settings) -> None:
    drop(lake, CITIES[0])
    assert differences(lake)["processed"].unregistered == PARTITIONS[:1]
    repair(lake)
    assert_all_right(lake)
    moved(lake)
    drop(lake, *CITIES[1:3])
    assert visible(lake) == 150
    assert differences(lake)["processed"].unregistered == PARTITIONS[1:3]
    assert repair(lake).left == {}
    assert_all_right(lake)


def test_a_moved_partition_that_msck_created_again_at_its_plain_folder_is_pointed_to_its_files(lake: Settings) -> None:
    moved(lake)
    write_batch(lake, 2, [[good(City=city) for city in CITIES]], query="a" * 12)  # to the new locations
    plain = f"{lake.lake}/{default_folder('processed', PARTITIONS[0])}"
    point(lake, CITIES[0], plain)
    assert visible(lake) == 254
    assert differences(lake)["processed"].elsewhere == {PARTITIONS[0]: plain}
    repair(lake)
    assert visible(lake) == 255
    assert differences(lake)["processed"].count == 0


def test_after_the_lake_was_emptied_and_the_catalog_kept_every_row_is_visible(lake: Settings) -> None:
    moved(lake)
    files = lake_at(lake.lake)
    files.delete([path for path, _ in files.list("")])
    found = differences(lake)
    assert (found["processed"].empty, len(found["raw"].empty)) == (PARTITIONS, 1)
    forget_catalog(lake)  # a new process has registered nothing yet
    fill(lake, query="b" * 12)
    assert_all_right(lake)


@pytest.mark.parametrize("dropped", ["table", "database"])
def test_a_catalog_that_is_gone_is_built_again_in_full(lake: Settings, dropped: str) -> None:
    settings = moved(lake)
    glue = client("glue")
    if dropped == "table":
        glue.delete_table(DatabaseName=lake.database, Name="processed")
    else:
        glue.delete_database(Name=lake.database)
    found = differences(settings)
    assert found["processed"].missing
    assert found["processed"].unregistered == PARTITIONS
    assert repair(settings).left == {}
    assert_all_right(settings)


def test_a_partition_without_files_is_found_and_removed_and_no_file_is_deleted(lake: Settings) -> None:
    files = lake_at(lake.lake)
    before = {path for path, _ in files.list("")}
    catalog_of(lake).register("processed", ["city=Nowhere/start_date=2016-09-03"])
    assert differences(lake)["processed"].empty == ["city=Nowhere/start_date=2016-09-03"]
    repair(lake)
    assert_all_right(lake)
    assert {path for path, _ in files.list("")} == before


def test_files_of_a_batch_that_is_not_final_are_no_difference(lake: Settings) -> None:
    write_batch(lake, 2, [[good(City="Running")]], query="a" * 12, final=False)
    write_batch(lake, 0, [[good(City="Beginning")]], query="b" * 12, final=False)
    assert_all_right(lake)


def test_what_a_second_look_does_not_find_again_is_no_difference() -> None:
    first = TableDifferences("processed", True, 1, ["a", "b"], {"c": "x", "d": "x"}, ["e", "f"])
    later = TableDifferences("processed", False, 2, ["b"], {"c": "y", "d": "x"}, ["f", "g"])
    assert first.confirmed_by(later) == TableDifferences("processed", False, 2, ["b"], {"d": "x"}, ["f"])


def test_a_partition_is_registered_although_the_ledger_entries_of_its_batches_are_gone(lake: Settings) -> None:
    drop(lake, CITIES[0])
    lake_at(lake.lake).delete(path for path, _ in lake_at(lake.lake).list("_ledger/"))
    assert differences(lake)["processed"].unregistered == PARTITIONS[:1]


def test_a_partition_that_shows_files_outside_of_the_lake_is_left_alone(lake: Settings) -> None:
    catalog_of(lake).register("processed", ["city=Archive/start_date=2016-09-03"])
    point(lake, "Archive", "s3://archive/travel/city=Archive/")
    assert differences(lake)["processed"].count == 0
    assert repair(lake).left == {}
    assert "s3://archive/travel/city=Archive/" in catalog_of(lake).locations("processed").values()


def test_rows_that_only_the_catalog_still_names_are_not_hidden(lake: Settings) -> None:
    """After the layout's file was lost, the catalog alone knows where the moved partitions are."""
    moved(lake)
    files = lake_at(lake.lake)
    files.delete(["_layout/processed.json"])
    result = repair(lake)
    assert sorted(result.left) == [f"processed/{name}" for name in PARTITIONS]
    assert "restore _layout/processed.json" in result.left[f"processed/{PARTITIONS[0]}"]
    assert visible(lake) == 250
    with pytest.raises(TerminalError, match=r"_layout/processed\.json is gone.*restore the file"):
        compact(set_compact(lake, grace_seconds=0))
    assert visible(lake) == 250, "compaction has not deleted the moved files"


def test_a_repair_beside_a_compaction_and_a_running_job_doubles_and_hides_no_row(lake: Settings) -> None:
    stop, seen = threading.Event(), list[int]()

    def read() -> None:
        while not stop.is_set():
            seen.append(visible(lake))

    def keep_repairing() -> None:
        while not stop.is_set():
            repair(lake)

    threads = [threading.Thread(target=read), threading.Thread(target=keep_repairing)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            compact(set_compact(lake, min_files=2, grace_seconds=3600))
            compact(set_compact(lake, min_files=1, grace_seconds=3600))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(seen) == {250}
    assert_all_right(lake)


def test_more_partitions_than_one_call_takes_are_registered_and_removed(lake_settings: Settings) -> None:
    cities = [f"c{number}" for number in range(130)]
    write_batch(lake_settings, 0, [[good(City=city) for city in cities]])
    client("glue").delete_table(DatabaseName=lake_settings.database, Name="processed")
    steps = list[tuple[int, int, str]]()
    catalog_check(lake_settings, lambda *step: steps.append(step)).repair(remove_empty=True)
    assert visible(lake_settings) == 130
    assert ("processed: registering partitions" in {text for _, _, text in steps}) is True
    files = lake_at(lake_settings.lake)
    files.delete([path for path, _ in files.list("processed/")])
    repair(lake_settings)
    assert catalog_of(lake_settings).locations("processed") == {}


def test_a_delta_lake_is_checked_without_the_partitions_of_processed(tmp_path: Path, embedded_aws: object) -> None:
    settings = make_lake(tmp_path, "sink.format=delta")
    found = {each.table: each for each in catalog_check(settings).differences()}
    assert found["processed"].missing
    repair(settings)
    assert {each.count for each in catalog_check(settings).differences()} == {0}


def test_the_watch_repairs_what_is_dropped_while_the_job_runs(lake: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.stream.catalog_watch.PAUSE_FACTOR", 0)
    with CatalogWatch(lake, threading.Event(), every_seconds=0.1):
        for city in CITIES[:2]:
            drop(lake, city)
            for _ in range(200):
                if visible(lake) == 250:
                    break
        client("glue").delete_table(DatabaseName=lake.database, Name="processed")
        for _ in range(200):
            if not differences(lake)["processed"].count:
                break
    assert_all_right(lake)


def test_the_first_check_is_completed_even_if_the_job_ends_at_once(lake: Settings) -> None:
    drop(lake, CITIES[0])
    with CatalogWatch(lake, threading.Event()):
        pass
    assert_all_right(lake)


def test_a_check_that_fails_is_a_warning_and_the_job_goes_on(
    lake: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("as told")

    monkeypatch.setattr(GlueCatalog, "missing_tables", fail)
    with CatalogWatch(lake, threading.Event()):
        pass
    assert "the catalog could not be compared with the lake; the next check tries again: as told" in caplog.text
