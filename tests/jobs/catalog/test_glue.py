"""Tables as Athena needs them, partitions that match the folders, calls that are safe to repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import lake_tables
from jobs.common.errors import AwsAccessError, TerminalError
from jobs.common.retry import RetryPolicy
from jobs.lake.partition_locations import LayoutFile, NextLocation, PartitionLocation
from jobs.lake.store import FolderLake
from jobs.schema.partitions import NULL_PARTITION, partition_path
from tests.helpers.glue_calls import LAKE, TABLES, Calls, patient, table, values
from tests.helpers.samples import ODD_NAMES, TRAVEL_TIMES, contract_with


def test_the_three_tables_of_the_lake_are_created(glue: Calls, catalog: GlueCatalog) -> None:
    found = glue.get_tables(DatabaseName="travel")["TableList"]
    assert sorted(table["Name"] for table in found) == ["processed", "quarantine", "raw"]
    for each in found:
        assert each["TableType"] == "EXTERNAL_TABLE"
        assert each["Parameters"]["EXTERNAL"] == "TRUE"
        assert each["StorageDescriptor"]["Location"] == f"{LAKE}/{each['Name']}/"
        assert each["Description"]


def test_processed_is_parquet_with_the_contracts_columns_types_and_comments(glue: Calls, catalog: GlueCatalog) -> None:
    found = table(glue, "processed")
    storage = found["StorageDescriptor"]
    assert storage["SerdeInfo"]["SerializationLibrary"].endswith("ParquetHiveSerDe")
    assert storage["InputFormat"].endswith("MapredParquetInputFormat")
    assert found["Parameters"]["classification"] == "parquet"
    assert [(column["Name"], column["Type"], column["Comment"]) for column in storage["Columns"]] == [
        (name, {"long": "bigint"}.get(kind, kind), comment) for name, kind, comment in TRAVEL_TIMES.table_columns
    ]
    assert [(key["Name"], key["Type"]) for key in found["PartitionKeys"]] == [
        ("city", "string"),
        ("start_date", "date"),
    ]
    assert all(key["Comment"] for key in found["PartitionKeys"])


def test_raw_and_quarantine_are_json_whose_fields_find_their_columns(glue: Calls, catalog: GlueCatalog) -> None:
    for name in ("raw", "quarantine"):
        found = table(glue, name)
        assert found["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"] == "org.openx.data.jsonserde.JsonSerDe"
        assert found["Parameters"]["classification"] == "json"
        assert all(column["Type"] == "string" for column in found["StorageDescriptor"]["Columns"])
    parameters = table(glue, "raw")["StorageDescriptor"]["SerdeInfo"]["Parameters"]
    assert parameters["mapping.mean_travel_time_seconds"] == "Mean Travel Time (Seconds)"
    assert parameters["case.insensitive"] == "false", "otherwise the SerDe looks for lower-case field names"
    assert parameters["ignore.malformed.json"] == "true", "raw may hold records that are not JSON"
    assert [key["Name"] for key in table(glue, "raw")["PartitionKeys"]] == ["ingest_date", "hour"]
    assert [key["Name"] for key in table(glue, "quarantine")["PartitionKeys"]] == ["ingest_date"]


def test_a_comment_is_cut_to_the_one_line_that_glue_takes(glue: Calls) -> None:
    columns = tuple(
        column.model_dump() | ({"comment": "two\nlines " + "c" * 300} if column.column == "city" else {})
        for column in TRAVEL_TIMES.columns
    )
    GlueCatalog(glue, "travel", LAKE).ensure_tables(lake_tables(contract_with(columns=columns)))
    comment = table(glue, "raw")["StorageDescriptor"]["Columns"][0]["Comment"]
    assert comment.startswith("two lines ccc")
    assert len(comment) == 255


def test_existing_tables_are_no_error(glue: Calls, catalog: GlueCatalog) -> None:
    before = table(glue, "processed")
    GlueCatalog(glue, "travel", LAKE).ensure_tables(TABLES)
    catalog.ensure_tables(TABLES)
    assert table(glue, "processed") == before


def test_a_partitions_location_is_its_folder(glue: Calls, catalog: GlueCatalog) -> None:
    assert catalog.register("processed", ["city=a%2Fb/start_date=2016-09-03"]) == 1
    found = glue.get_partition(DatabaseName="travel", TableName="processed", PartitionValues=["a/b", "2016-09-03"])
    storage = found["Partition"]["StorageDescriptor"]
    assert storage["Location"] == f"{LAKE}/processed/city=a%2Fb/start_date=2016-09-03/"
    assert storage["SerdeInfo"] == table(glue, "processed")["StorageDescriptor"]["SerdeInfo"]
    assert storage["Columns"] == table(glue, "processed")["StorageDescriptor"]["Columns"]


def test_odd_names_are_the_same_in_path_and_catalog(catalog: GlueCatalog) -> None:
    folders = {
        partition_path(["city", "start_date"], {"city": name, "start_date": "2016-09-03"}): name for name in ODD_NAMES
    }
    catalog.register("processed", folders)
    found = catalog.partitions("processed")
    assert sorted(values["city"] for values in found) == sorted(ODD_NAMES)
    assert {partition_path(["city", "start_date"], values) for values in found} == set(folders)


def test_the_null_partition_has_hives_name_in_the_catalog_too(glue: Calls, catalog: GlueCatalog) -> None:
    catalog.register("processed", [f"city=x/start_date={NULL_PARTITION}"])
    assert values(glue, "processed") == [["x", NULL_PARTITION]]


def test_more_than_100_partitions_go_in_several_calls(glue: Calls, catalog: GlueCatalog) -> None:
    folders = [f"city=c{number}/start_date=2016-09-03" for number in range(250)]
    assert catalog.register("processed", folders) == 250
    assert [len(call["PartitionInputList"]) for call in glue.of("batch_create_partition")] == [100, 100, 50]
    assert len(values(glue, "processed")) == 250


def test_partitions_that_this_process_has_registered_are_not_sent_again(glue: Calls, catalog: GlueCatalog) -> None:
    assert catalog.register("raw", ["ingest_date=2026-11-23/hour=01"]) == 1
    assert catalog.register("raw", ["ingest_date=2026-11-23/hour=01"]) == 0
    assert catalog.register("raw", ["ingest_date=2026-11-23/hour=01", "ingest_date=2026-11-23/hour=02"]) == 1
    assert catalog.register("raw", []) == 0
    assert len(glue.of("batch_create_partition")) == 2


def test_existing_partitions_are_no_error_and_new_ones_are_created(glue: Calls, catalog: GlueCatalog) -> None:
    catalog.register("raw", ["ingest_date=2026-11-23/hour=01"])
    other = GlueCatalog(glue, "travel", LAKE)
    other.ensure_tables(TABLES)
    assert other.register("raw", [f"ingest_date=2026-11-23/hour={hour:02}" for hour in range(3)]) == 3
    assert sorted(values(glue, "raw")) == [["2026-11-23", f"{hour:02}"] for hour in range(3)]


def test_the_same_folder_twice_in_one_call_is_sent_once(glue: Calls, catalog: GlueCatalog) -> None:
    """Glue answers a duplicate entry in one call with its own error."""
    assert catalog.register("raw", ["ingest_date=2026-11-23/hour=01"] * 2) == 1
    (call,) = glue.of("batch_create_partition")
    assert len(call["PartitionInputList"]) == 1


def _refuse(monkeypatch: pytest.MonkeyPatch, glue: Calls, code: str, times: int) -> list[int]:
    """Makes BatchCreatePartition refuse hour 01 `times` times. Returns the sizes of its calls."""
    real, sizes = glue.batch_create_partition, list[int]()

    def refusing(**arguments: Any) -> dict[str, Any]:
        inputs = arguments["PartitionInputList"]
        sizes.append(len(inputs))
        if len(sizes) > times:
            answer: dict[str, Any] = real(**arguments)
            return answer
        failed = {"PartitionValues": ["2026-11-23", "01"], "ErrorDetail": {"ErrorCode": code, "ErrorMessage": "no"}}
        others = [entry for entry in inputs if entry["Values"] != failed["PartitionValues"]]
        return {
            "Errors": [
                failed,
                *(real(**arguments | {"PartitionInputList": others}).get("Errors", []) if others else []),
            ]
        }

    monkeypatch.setattr(glue, "batch_create_partition", refusing, raising=False)
    return sizes


HOURS = [f"ingest_date=2026-11-23/hour={hour:02}" for hour in range(3)]


def test_a_refused_partition_is_retried_alone(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = _refuse(monkeypatch, glue, "InternalServiceException", times=2)
    assert catalog.register("raw", HOURS) == 3
    assert sizes == [3, 1, 1]
    assert sorted(values(glue, "raw")) == [["2026-11-23", f"{hour:02}"] for hour in range(3)]


@pytest.mark.parametrize("code", ["OperationTimeoutException", "ResourceNumberLimitExceeded"])
def test_a_partition_that_glue_keeps_refusing_ends_the_job_and_is_not_registered(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    with monkeypatch.context() as patched:
        sizes = _refuse(patched, glue, code, times=100)
        with pytest.raises(TerminalError) as error:
            catalog.register("raw", HOURS)
    assert len(sizes) == RetryPolicy.attempts
    for words in ("['2026-11-23', '01']", "travel.raw", code, "no"):
        assert words in str(error.value)
    assert catalog.register("raw", HOURS) == 3
    assert len(values(glue, "raw")) == 3


@pytest.mark.parametrize(
    ("operation", "code", "kind"),
    [
        ("create_database", "AccessDeniedException", AwsAccessError),
        ("create_database", "InternalServiceException", TerminalError),
        ("get_table", "AccessDeniedException", AwsAccessError),
        ("create_table", "AccessDeniedException", AwsAccessError),
        ("create_table", "OperationTimeoutException", TerminalError),
    ],
)
def test_an_error_names_the_table_that_cannot_be_created_and_the_reason(
    glue: Calls, operation: str, code: str, kind: type[Exception]
) -> None:
    glue.fail(operation, code, times=RetryPolicy.attempts)
    with pytest.raises(kind, match=f"travel.*{code}"):
        patient(glue).ensure_tables(TABLES)


@pytest.mark.parametrize("operation", ["create_database", "get_table", "create_table"])
def test_a_table_is_created_although_glue_fails_a_few_times(glue: Calls, operation: str) -> None:
    glue.fail(operation, "OperationTimeoutException", times=RetryPolicy.attempts - 1)
    patient(glue).ensure_tables(TABLES)
    assert len(glue.get_tables(DatabaseName="travel")["TableList"]) == 3


@pytest.mark.parametrize(
    ("code", "kind"), [("AccessDeniedException", AwsAccessError), ("ThrottlingException", TerminalError)]
)
def test_a_call_that_fails_registers_nothing_and_can_be_repeated(
    glue: Calls, catalog: GlueCatalog, code: str, kind: type[Exception]
) -> None:
    glue.fail("batch_create_partition", code, times=1 if kind is AwsAccessError else RetryPolicy.attempts)
    with pytest.raises(kind, match=f"register 1 partitions of travel.raw: .*{code}"):
        catalog.register("raw", ["ingest_date=2026-11-23/hour=01"])
    assert catalog.register("raw", ["ingest_date=2026-11-23/hour=01"]) == 1


def test_a_lake_in_a_folder_has_file_locations(glue: Calls) -> None:
    catalog = GlueCatalog(glue, "travel", "/data/lake")
    catalog.ensure_tables(TABLES)
    assert table(glue, "raw")["StorageDescriptor"]["Location"] == "file:///data/lake/raw/"


def test_partitions_missing_in_an_answer_are_requested_again(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [f"ingest_date=2026-11-23/hour={hour:02}" for hour in range(3)]
    catalog.register("raw", hours)
    real, asked = glue.batch_get_partition, list[list[list[str]]]()

    def one_at_a_time(**arguments: Any) -> dict[str, Any]:
        first, *others = arguments["PartitionsToGet"]
        asked.append([key["Values"] for key in (first, *others)])
        answer: dict[str, Any] = real(**arguments | {"PartitionsToGet": [first]})
        return answer | {"UnprocessedKeys": others}

    monkeypatch.setattr(glue, "batch_get_partition", one_at_a_time, raising=False)
    other = patient(glue)
    other.ensure_tables(TABLES)
    other.register("raw", hours)
    assert [len(keys) for keys in asked] == [3, 2, 1]

    def none_ever(**arguments: Any) -> dict[str, Any]:
        return {"Partitions": [], "UnprocessedKeys": arguments["PartitionsToGet"]}

    monkeypatch.setattr(glue, "batch_get_partition", none_ever, raising=False)
    another = patient(glue)
    another.ensure_tables(TABLES)
    with pytest.raises(TerminalError, match=r"3 were left out, such as .*given up after 6 attempts"):
        another.register("raw", hours)


PARIS = "city=Paris/start_date=2016-09-03"


def folder_catalog(glue: Calls, folder: Path) -> GlueCatalog:
    """A catalog of a lake in a folder, as a new process has it."""
    found = GlueCatalog(glue, "travel", str(folder), RetryPolicy(sleep=lambda _: None))
    found.ensure_tables(TABLES)
    return found


def test_an_existing_partition_that_points_elsewhere_is_pointed_to_its_files(glue: Calls, tmp_path: Path) -> None:
    """As after the lake was emptied and the catalog kept: the old location is that of a move."""
    folder_catalog(glue, tmp_path).register("processed", [PARIS], {PARIS: "relocated/processed/old/"})
    found = folder_catalog(glue, tmp_path)
    found.register("processed", [PARIS])
    assert found.locations("processed") == {PARIS: f"file://{tmp_path}/processed/{PARIS}/"}


@pytest.mark.parametrize(("switching", "expected"), [(False, "processed/"), (True, "relocated/next/")])
def test_a_partition_that_was_moved_meanwhile_is_pointed_to_where_the_layout_says(
    glue: Calls, tmp_path: Path, switching: bool, expected: str
) -> None:
    folder_catalog(glue, tmp_path).register("processed", [PARIS], {PARIS: "relocated/next/"})
    layouts = LayoutFile(FolderLake(str(tmp_path)), "processed")
    moving = PartitionLocation(f"processed/{PARIS}/", NextLocation("relocated/next/", switching))
    layouts.change(layouts.read(), {PARIS: moving})
    found = folder_catalog(glue, tmp_path)
    found.register("processed", [PARIS])  # by a layout that was read before the move
    (location,) = found.locations("processed").values()
    assert location.startswith(f"file://{tmp_path}/{expected}")


def test_a_correction_keeps_everything_else_that_the_catalog_says(glue: Calls, tmp_path: Path) -> None:
    names: Any = {"DatabaseName": "travel", "TableName": "processed"}
    folder_catalog(glue, tmp_path).register("processed", [PARIS], {PARIS: "somewhere/"})
    before = glue.get_partition(**names, PartitionValues=["Paris", "2016-09-03"])["Partition"]
    kept = {"Values": before["Values"], "StorageDescriptor": before["StorageDescriptor"], "Parameters": {"by": "them"}}
    glue.update_partition(**names, PartitionValueList=before["Values"], PartitionInput=kept)
    folder_catalog(glue, tmp_path).register("processed", [PARIS])
    after = glue.get_partition(**names, PartitionValues=before["Values"])["Partition"]
    assert after["Parameters"] == {"by": "them"}
    assert after["StorageDescriptor"].pop("Location").endswith(f"/processed/{PARIS}/")
    before["StorageDescriptor"].pop("Location")
    assert after["StorageDescriptor"] == before["StorageDescriptor"]


def test_a_dropped_table_or_database_is_created_again(glue: Calls, catalog: GlueCatalog) -> None:
    catalog.register("raw", HOURS[:1])
    glue.delete_table(DatabaseName="travel", Name="raw")
    catalog.register("raw", HOURS[1:2])
    assert values(glue, "raw") == [["2026-11-23", "01"]]
    glue.delete_database(Name="travel")
    catalog.register("raw", HOURS)
    assert sorted(values(glue, "raw")) == [["2026-11-23", f"{hour:02}"] for hour in range(3)]
    assert len(glue.get_tables(DatabaseName="travel")["TableList"]) == 3


@pytest.mark.parametrize("code", ["InvalidInputException", "ValidationException"])
def test_a_partition_that_glue_refuses_for_good_is_set_aside_and_named(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    with monkeypatch.context() as patched:
        sizes = _refuse(patched, glue, code, times=100)
        assert catalog.register("raw", HOURS) == 3
    assert sizes == [3], "it is not sent again: Glue would refuse it again"
    assert sorted(values(glue, "raw")) == [["2026-11-23", "00"], ["2026-11-23", "02"]]
    (text,) = catalog.refused("raw", HOURS)
    for words in ("ingest_date=2026-11-23/hour=01", "travel.raw", f"{code}: no", "movement catalog repair"):
        assert words in text
    catalog.register("raw", HOURS)  # the next batch that writes to it tries again
    assert catalog.refused("raw", HOURS) == []
    assert len(values(glue, "raw")) == 3


def test_one_entry_that_makes_glue_refuse_the_whole_request_is_found(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = glue.batch_create_partition

    def refusing(**arguments: Any) -> Any:
        if any(entry["Values"][0] == "c77" for entry in arguments["PartitionInputList"]):
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "as told"}}, "BatchCreatePartition")
        return real(**arguments)

    monkeypatch.setattr(glue, "batch_create_partition", refusing, raising=False)
    folders = [f"city=c{number}/start_date=2016-09-03" for number in range(150)]
    catalog.register("processed", folders)
    assert len(values(glue, "processed")) == 149
    assert catalog.refused("processed", folders)[0].startswith("partition city=c77/start_date=2016-09-03 of travel.")


def test_a_request_that_glue_refuses_for_good_is_sent_once(glue: Calls) -> None:
    glue.fail("create_table", "InvalidInputException")
    with pytest.raises(TerminalError, match=r"travel\..*refused it for good \(InvalidInputException: as told\)"):
        patient(glue).ensure_tables(TABLES)
    assert len(glue.of("create_table")) == 1


def test_a_partition_that_another_job_registers_during_a_move_is_moved_too(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = glue.create_partition

    def second(**arguments: Any) -> Any:
        other = patient(glue)
        other.ensure_tables(TABLES)
        other.register("processed", [PARIS])
        return real(**arguments)

    monkeypatch.setattr(glue, "create_partition", second, raising=False)
    catalog.relocate("processed", PARIS, "relocated/somewhere/")
    assert catalog.locations("processed") == {PARIS: f"{LAKE}/relocated/somewhere/"}


def test_a_partition_that_is_dropped_while_it_moves_is_registered_where_its_files_are(
    glue: Calls, catalog: GlueCatalog
) -> None:
    catalog.register("processed", [PARIS])
    glue.fail("update_partition", "EntityNotFoundException")
    catalog.relocate("processed", PARIS, "relocated/somewhere/")
    assert catalog.locations("processed") == {PARIS: f"{LAKE}/relocated/somewhere/"}


@pytest.mark.parametrize("operation", ["get_partition", "update_partition"])
def test_a_partition_is_moved_although_glue_fails_a_few_times(
    glue: Calls, catalog: GlueCatalog, operation: str
) -> None:
    catalog.register("processed", ["city=x/start_date=2016-09-03"])
    glue.fail(operation, "InternalServiceException", times=RetryPolicy.attempts - 1)
    catalog.relocate("processed", "city=x/start_date=2016-09-03", "relocated/somewhere/")
    assert catalog.locations("processed") == {"city=x/start_date=2016-09-03": f"{LAKE}/relocated/somewhere/"}


def test_partitions_are_listed_although_glue_fails_a_few_times(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.register("processed", ["city=x/start_date=2016-09-03"])
    real, failures = glue.get_paginator("get_partitions"), [1] * (RetryPolicy.attempts - 1)

    class Failing:
        def paginate(self, **arguments: Any) -> Any:
            if failures:
                failures.pop()
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "as told"}}, "GetPartitions")
            return real.paginate(**arguments)

    monkeypatch.setattr(glue, "get_paginator", lambda _: Failing(), raising=False)
    assert list(catalog.locations("processed")) == ["city=x/start_date=2016-09-03"]
    assert failures == []
