"""A changed contract and existing tables: allowed changes, refused changes, and a crash in between."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.schema_evolution import PARTITIONS_BEHIND, WIDER, mismatch, partition_update, table_update
from jobs.catalog.table_migrator import TableMigrator
from jobs.catalog.tables import glue_table, lake_tables, stream_tables
from jobs.common.errors import ConfigurationError, IncompatibleSchemaError, TerminalError
from jobs.common.retry import RetryPolicy
from jobs.schema.table import TableContract
from jobs.schema.types import ARROW_TYPES
from tests.helpers.glue_calls import LAKE, Calls, patient, table
from tests.helpers.samples import TRAVEL_TIMES, contract_with

KINDS = ["string", "int", "long", "double", "boolean", "date", "timestamp"]
PARTITION = "city=Paris/start_date=2016-09-03"
HOUR = "ingest_date=2026-11-23/hour=01"


def changed(**columns: dict[str, Any] | None) -> TableContract:
    """The travel times' contract with changed columns: the keys to change by column name; None removes a column.

    An unknown name adds a column. It comes first, where readers that go by position would notice it.
    """
    kept = [
        column.model_dump() | (columns.get(column.column) or {})
        for column in TRAVEL_TIMES.columns
        if columns.get(column.column, {}) is not None
    ]
    known = {column.column for column in TRAVEL_TIMES.columns}
    new = [
        {"source": name.title(), "column": name, **(keys or {})} for name, keys in columns.items() if name not in known
    ]
    checks = [] if None in columns.values() else [check.model_dump() for check in TRAVEL_TIMES.checks]
    return contract_with(columns=[*new, *kept], checks=checks)


FOLLOWING = changed(
    weather={"type": "string", "comment": "What it was like"},
    mean_travel_time_seconds={"type": "long"},
    date_range={"comment": "The period"},
)


def columns(shape: dict[str, Any]) -> dict[str, str]:
    return {column["Name"]: column["Type"] for column in shape["StorageDescriptor"]["Columns"]}


def partitions(glue: Calls, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = glue.get_partitions(DatabaseName="travel", TableName=name)["Partitions"]
    return found


# Decisions, without AWS


def shape(columns: dict[str, str], keys: dict[str, str] | None = None, **mapping: str) -> dict[str, Any]:
    return {
        "Name": "t",
        "Description": "",
        "Parameters": {"classification": "parquet"},
        "PartitionKeys": [{"Name": name, "Type": kind} for name, kind in (keys or {"day": "date"}).items()],
        "StorageDescriptor": {
            "Location": "s3://bucket/t/",
            "Columns": [{"Name": name, "Type": kind, "Comment": ""} for name, kind in columns.items()],
            "SerdeInfo": {"SerializationLibrary": "serde", "Parameters": mapping},
        },
    }


GLUE_KINDS = ["string", "int", "bigint", "double", "boolean", "date", "timestamp"]
TABLES = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(GLUE_KINDS), min_size=1)


@given(TABLES, st.data())
def test_any_mix_of_new_and_wider_columns_in_any_order_is_allowed(before: dict[str, str], data: st.DataObject) -> None:
    after = {name: data.draw(st.sampled_from([kind, *WIDER.get(kind, ())])) for name, kind in before.items()}
    after |= {name.upper(): kind for name, kind in data.draw(TABLES).items()}
    after = dict(data.draw(st.permutations(list(after.items()))))

    assert mismatch(shape(before), shape(after)) is None
    update = table_update(shape(before), shape(after))

    assert update is not None
    assert update.migrate_partitions
    assert columns(update.table) == after
    assert list(columns(update.table))[: len(before)] == list(before), "new columns come after the existing ones"
    # A second update changes nothing, and an older contract does not undo it.
    cleared = update.table | {"Parameters": {}}
    again = table_update(cleared | {"Parameters": {"classification": "parquet"}}, shape(after))
    assert again is None
    assert partition_update(update.table, shape(before)) is None


@given(TABLES, st.data())
def test_any_column_removed_narrowed_or_of_another_type_is_refused_and_named(
    before: dict[str, str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(before)))
    bad = [kind for kind in GLUE_KINDS if kind != before[name] and kind not in WIDER.get(before[name], ())]
    kind = data.draw(st.sampled_from([None, *bad]))
    after = {other: found for other, found in before.items() if other != name} | ({name: kind} if kind else {})

    found = mismatch(shape(before), shape(after))

    assert found is not None
    (why,) = found.why
    assert f"column {name} " in why
    assert before[name] in why


@pytest.mark.parametrize("keys", [{"hour": "date"}, {"day": "string"}, {"day": "date", "hour": "string"}])
def test_other_partition_columns_are_refused(keys: dict[str, str]) -> None:
    found = mismatch(shape({"a": "int"}), shape({"a": "int"}, keys))
    assert found is not None
    assert "its partition columns are day (date), not" in found.why[0]


def test_a_table_with_another_location_or_format_is_refused() -> None:
    other = shape({"a": "int"})
    other["StorageDescriptor"] |= {"Location": "s3://other/t/"}
    other["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"] = "csv"
    found = mismatch(other, shape({"a": "int"}))
    assert found is not None
    assert found.why == ("its files are read by csv, not by serde", "its location is s3://other/t/, not s3://bucket/t/")
    other["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"] = "serde"
    other["StorageDescriptor"]["Location"] = "s3a://bucket/t"
    assert mismatch(other, shape({"a": "int"})) is None


def test_what_others_have_set_on_the_table_stays() -> None:
    found = shape({"a": "int"}) | {
        "Owner": "team", "Retention": 7, "CreateTime": "now", "VersionId": "3", "DatabaseName": "d",
        "Parameters": {"projection.enabled": "true"},
    }  # fmt: skip
    found["StorageDescriptor"] |= {"Compressed": False}
    found["StorageDescriptor"]["SerdeInfo"]["Parameters"] = {"theirs": "x", "mapping.a": "old"}
    update = table_update(found, shape({"a": "int", "b": "string"}, **{"mapping.a": "new", "mapping.b": "B"}))
    assert update is not None
    assert update.table["Parameters"] == {
        "projection.enabled": "true",
        "classification": "parquet",
        PARTITIONS_BEHIND: "true",
    }
    assert (update.table["Owner"], update.table["Retention"]) == ("team", 7)
    assert update.table["StorageDescriptor"]["Compressed"] is False
    serde = update.table["StorageDescriptor"]["SerdeInfo"]["Parameters"]
    assert serde == {"theirs": "x", "mapping.a": "new", "mapping.b": "B"}
    assert not {"CreateTime", "VersionId", "DatabaseName"} & set(update.table), "UpdateTable takes none of these"


def test_an_old_partition_keeps_its_old_field_names() -> None:
    partition = {"Values": ["x"], **shape({"a": "string"}, **{"mapping.a": "Old name"})}
    update = partition_update(
        partition, shape({"a": "string", "b": "string"}, **{"mapping.a": "New", "mapping.b": "B"})
    )
    assert update is not None
    assert update["StorageDescriptor"]["SerdeInfo"]["Parameters"] == {"mapping.a": "Old name", "mapping.b": "B"}


# Readers can read what WIDER allows: pyarrow here, Spark in tests/system/test_evolving_lake.py

VALUES: dict[str, Any] = {
    "string": "São", "int": 7, "long": 2**40, "double": 0.5, "boolean": True, "date": date(2026, 11, 23),
    "timestamp": datetime(2026, 11, 23, 10, 30, tzinfo=UTC),
}  # fmt: skip
OURS = {"bigint": "long"}


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(KINDS), min_size=1), st.data())
def test_pyarrow_reads_old_and_new_files_as_one_table(before: dict[str, str], data: st.DataObject) -> None:
    after = {
        name: data.draw(st.sampled_from([kind, *(OURS[wider] for wider in WIDER.get(kind, ()))]))
        for name, kind in before.items()
    }
    after |= {name.upper(): kind for name, kind in data.draw(TABLES.map(_as_ours)).items()}
    files = []
    for kinds in (before, dict(data.draw(st.permutations(list(after.items()))))):
        file = io.BytesIO()
        pq.write_table(
            pa.table({name: pa.array([VALUES[kind]], ARROW_TYPES[kind]) for name, kind in kinds.items()}), file
        )
        files.append(pa.py_buffer(file.getvalue()))
    schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in after.items()])
    fragments = [ds.ParquetFileFormat().make_fragment(file) for file in files]
    old, new = ds.FileSystemDataset(fragments, schema, ds.ParquetFileFormat()).to_table().to_pylist()
    assert old == {name: VALUES[before[name]] if name in before else None for name in after}
    assert new == {name: VALUES[kind] for name, kind in after.items()}


def _as_ours(columns: dict[str, str]) -> dict[str, str]:
    return {name: OURS.get(kind, kind) for name, kind in columns.items()}


# In the catalog


def test_a_new_and_a_wider_column_reach_tables_and_their_partitions(glue: Calls, catalog: GlueCatalog) -> None:
    catalog.register("processed", [PARTITION])
    catalog.register("raw", [HOUR])
    before = columns(table(glue, "processed"))

    patient(glue).ensure_tables(lake_tables(FOLLOWING))

    processed = table(glue, "processed")
    assert columns(processed) == before | {"mean_travel_time_seconds": "bigint", "weather": "string"}
    assert list(columns(processed)) == [*before, "weather"]
    comments = {column["Name"]: column["Comment"] for column in processed["StorageDescriptor"]["Columns"]}
    assert (comments["weather"], comments["date_range"]) == ("What it was like", "The period")
    assert PARTITIONS_BEHIND not in processed["Parameters"]
    (partition,) = partitions(glue, "processed")
    assert columns(partition) == columns(processed)
    assert partition["StorageDescriptor"]["Location"] == f"{LAKE}/processed/{PARTITION}/"
    (hour,) = partitions(glue, "raw")
    assert columns(hour) == columns(table(glue, "raw"))
    assert hour["StorageDescriptor"]["SerdeInfo"]["Parameters"]["mapping.weather"] == "Weather"


def test_a_new_partition_lists_its_columns_in_the_tables_order(glue: Calls, catalog: GlueCatalog) -> None:
    followed = patient(glue)
    followed.ensure_tables(lake_tables(FOLLOWING))
    followed.register("processed", [PARTITION])
    (partition,) = partitions(glue, "processed")
    assert list(columns(partition)) == list(columns(table(glue, "processed")))


def test_an_unchanged_contract_costs_one_request_per_table(glue: Calls, catalog: GlueCatalog) -> None:
    glue.clear()
    patient(glue).ensure_tables(lake_tables(TRAVEL_TIMES))
    assert [operation for operation, _ in glue] == ["get_table"] * 3


def test_comments_and_checks_change_no_partitions(glue: Calls, catalog: GlueCatalog) -> None:
    catalog.register("processed", [PARTITION])
    glue.clear()
    contract = changed(date_range={"comment": "The period"}, origin_geometry={"required": True})
    patient(glue).ensure_tables(lake_tables(contract.model_copy(update={"checks": ()})))
    assert [operation for operation, _ in glue if operation.startswith("batch")] == []
    comments = {
        column["Name"]: column["Comment"] for column in table(glue, "processed")["StorageDescriptor"]["Columns"]
    }
    assert comments["date_range"] == "The period"


@pytest.mark.parametrize(
    ("contract", "why"),
    [
        (changed(origin_geometry=None), "column origin_geometry (string) is no longer in the contract"),
        (changed(mean_travel_time_seconds={"type": "double"}), "is int and cannot become double"),
        (changed(origin_geometry={"column": "ring"}), "column origin_geometry (string) is no longer in the contract"),
        (contract_with(partition_by=["city"]), "its partition columns are"),
    ],
)  # fmt: skip
def test_a_breaking_change_is_refused_with_both_schemas_and_nothing_is_changed(
    glue: Calls, catalog: GlueCatalog, contract: TableContract, why: str
) -> None:
    glue.clear()
    with pytest.raises(IncompatibleSchemaError) as error:
        patient(glue).ensure_tables(lake_tables(contract))
    text = str(error.value)
    for words in (
        "travel.processed",
        why,
        "in the catalog",
        "by the contract",
        "destination_movement_id",
        "Keep the column",
    ):
        assert words in text
    assert {operation for operation, _ in glue} == {"get_table"}
    assert isinstance(error.value, ConfigurationError), "exit code 2"


def test_the_error_shows_both_schemas_side_by_side_and_marks_the_refused_column(
    glue: Calls, catalog: GlueCatalog
) -> None:
    contract = changed(weather={"type": "string"}, origin_geometry=None, mean_travel_time_seconds={"type": "long"})
    with pytest.raises(IncompatibleSchemaError) as error:
        patient(glue).ensure_tables(lake_tables(contract))
    rows = {line.split()[0]: line.split()[1:] for line in str(error.value).splitlines() if line.startswith("  ")}
    assert rows["origin_geometry"] == ["string", "-", "<--", "refused"]
    assert rows["weather"] == ["-", "string", "would", "be", "added"]
    assert rows["mean_travel_time_seconds"] == ["int", "bigint", "would", "be", "widened"]
    assert rows["date_range"] == ["string", "string"]


def test_if_one_table_cannot_follow_no_table_is_changed(glue: Calls, catalog: GlueCatalog) -> None:
    found = table(glue, "quarantine")
    found["StorageDescriptor"]["Columns"].append({"Name": "foreign", "Type": "string"})
    glue.update_table(
        DatabaseName="travel",
        TableInput={key: found[key] for key in ("Name", "Parameters", "PartitionKeys", "StorageDescriptor")},
    )
    with pytest.raises(IncompatibleSchemaError, match=r"travel\.quarantine"):
        patient(glue).ensure_tables(lake_tables(FOLLOWING))
    assert "weather" not in columns(table(glue, "processed"))


@pytest.mark.parametrize("operation", ["batch_update_partition", "get_partitions"])
def test_after_a_job_dies_while_migrating_partitions_the_next_job_migrates_the_rest(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    catalog.register("processed", [f"city=c{number}/start_date=2016-09-03" for number in range(150)])
    with monkeypatch.context() as patched:
        if operation == "get_partitions":
            patched.setattr(TableMigrator, "migrate_all_partitions", _die)
        else:
            real, calls = glue.batch_update_partition, iter([True, False])
            patched.setattr(
                glue, operation, lambda **named: real(**named) if next(calls) else _die(), raising=False
            )  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            patient(glue).ensure_tables(lake_tables(FOLLOWING))
    at = "raw" if operation == "get_partitions" else "processed"
    assert table(glue, at)["Parameters"][PARTITIONS_BEHIND] == "true"

    patient(glue).ensure_tables(lake_tables(FOLLOWING))

    assert PARTITIONS_BEHIND not in table(glue, "processed")["Parameters"]
    pages = glue.get_paginator("get_partitions").paginate(DatabaseName="travel", TableName="processed")
    found = [partition for page in pages for partition in page["Partitions"]]
    assert len(found) == 150
    assert all("weather" in columns(partition) for partition in found)
    assert all(len(call["Entries"]) <= 100 for call in glue.of("batch_update_partition"))


def _die(*_: object) -> Any:
    raise KeyboardInterrupt


def test_a_running_job_with_the_older_contract_undoes_nothing(glue: Calls, catalog: GlueCatalog) -> None:
    newer = patient(glue)
    newer.ensure_tables(lake_tables(FOLLOWING))
    newer.register("processed", [PARTITION])
    other = "city=Lima/start_date=2016-09-03"

    catalog.register("processed", [PARTITION, other])

    by_city = {partition["Values"][0]: columns(partition) for partition in partitions(glue, "processed")}
    assert by_city["Paris"] == columns(table(glue, "processed"))
    assert "weather" not in by_city["Lima"], "the older job does not know the column"
    # The partition is migrated before the newer job's rows are visible.
    newer.register("processed", [other])
    by_city = {partition["Values"][0]: columns(partition) for partition in partitions(glue, "processed")}
    assert by_city["Lima"] == columns(table(glue, "processed"))


def test_a_moved_partition_keeps_its_location(glue: Calls, catalog: GlueCatalog) -> None:
    """Compaction or a replay of raw may have moved it."""
    catalog.register("processed", [PARTITION])
    (partition,) = partitions(glue, "processed")
    partition["StorageDescriptor"]["Location"] = "s3://bucket/lake/elsewhere/"
    glue.update_partition(
        DatabaseName="travel",
        TableName="processed",
        PartitionValueList=partition["Values"],
        PartitionInput={"Values": partition["Values"], "StorageDescriptor": partition["StorageDescriptor"]},
    )
    patient(glue).ensure_tables(lake_tables(FOLLOWING))
    (partition,) = partitions(glue, "processed")
    assert partition["StorageDescriptor"]["Location"] == "s3://bucket/lake/elsewhere/"
    assert "weather" in columns(partition)


def _versioned(monkeypatch: pytest.MonkeyPatch, glue: Calls, meanwhile: Callable[[], object]) -> None:
    """UpdateTable as AWS does it: refuses an old version. `meanwhile` runs before the first update."""
    real, pending = glue.update_table, [meanwhile]

    def update(**arguments: Any) -> Any:
        if pending:
            pending.pop()()
        if table(glue, arguments["TableInput"]["Name"])["VersionId"] != arguments["VersionId"]:
            glue.fail("update_table", "ConcurrentModificationException")
        return real(**arguments)

    monkeypatch.setattr(glue, "update_table", update, raising=False)


def test_two_jobs_that_start_with_the_new_contract_at_once_both_succeed(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.register("raw", [HOUR])
    other = Calls(glue._glue)
    _versioned(monkeypatch, glue, lambda: patient(other).ensure_tables(lake_tables(FOLLOWING)))

    patient(glue).ensure_tables(lake_tables(FOLLOWING))

    names = [column["Name"] for column in table(glue, "processed")["StorageDescriptor"]["Columns"]]
    assert names.count("weather") == 1
    assert PARTITIONS_BEHIND not in table(glue, "raw")["Parameters"]
    assert columns(partitions(glue, "raw")[0]) == columns(table(glue, "raw"))


def test_a_job_with_a_third_contract_does_not_overwrite_the_first_update(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Calls(glue._glue)
    _versioned(monkeypatch, glue, lambda: patient(other).ensure_tables(lake_tables(FOLLOWING)))
    with pytest.raises(IncompatibleSchemaError, match=r"column weather \(string\) is no longer in the contract"):
        patient(glue).ensure_tables(lake_tables(changed(traffic={"type": "string"})))
    assert "weather" in columns(table(glue, "raw"))


@pytest.mark.parametrize("operation", ["update_table", "batch_update_partition"])
def test_failures_are_retried_and_then_end_the_job(glue: Calls, catalog: GlueCatalog, operation: str) -> None:
    catalog.register("processed", [PARTITION])
    glue.fail(operation, "InternalServiceException", times=RetryPolicy.attempts)
    with pytest.raises(TerminalError, match=r"travel.*InternalServiceException.*given up after 6 attempts"):
        patient(glue).ensure_tables(lake_tables(FOLLOWING))
    glue.fail(operation, "InternalServiceException", times=RetryPolicy.attempts - 1)
    patient(glue).ensure_tables(lake_tables(FOLLOWING))
    assert "weather" in columns(partitions(glue, "processed")[0])


def test_descriptions_that_glue_stores_differently_do_not_stop_a_job(
    glue: Calls, catalog: GlueCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glue, "update_table", lambda **_: None, raising=False)
    patient(glue).ensure_tables(lake_tables(changed(date_range={"comment": "A  new comment"})))
    assert "A new comment" not in str(table(glue, "processed"))


@pytest.mark.parametrize(
    "contract",
    [
        changed(origin_geometry=None),
        changed(mean_travel_time_seconds={"type": "double"}),
        changed(origin_geometry={"column": "ring"}),
        contract_with(partition_by=["city"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sink_format", ["parquet", "delta"])
def test_tables_without_data_follow_every_contract(
    glue: Calls, tmp_path: Path, contract: TableContract, sink_format: str
) -> None:
    catalog = GlueCatalog(glue, "empty", str(tmp_path))
    catalog.ensure_tables(stream_tables(TRAVEL_TIMES, "parquet"))
    catalog.ensure_tables(stream_tables(contract, sink_format))
    found = glue.get_table(DatabaseName="empty", Name="processed")["Table"]
    [wanted] = [
        glue_table(each, catalog.root) for each in stream_tables(contract, sink_format) if each.name == "processed"
    ]
    assert {key: found[key] for key in wanted} == wanted
    glue.clear()
    GlueCatalog(glue, "empty", str(tmp_path)).ensure_tables(stream_tables(contract, sink_format))
    assert {operation for operation, _ in glue} == {"get_table"}, "the next start changes nothing"


def test_one_file_or_one_partition_makes_a_table_one_with_data(glue: Calls, tmp_path: Path) -> None:
    catalog, narrower = GlueCatalog(glue, "used", str(tmp_path)), changed(origin_geometry=None)
    catalog.ensure_tables(lake_tables(TRAVEL_TIMES))
    catalog.register("processed", [PARTITION])
    with pytest.raises(IncompatibleSchemaError, match="processed cannot follow"):
        GlueCatalog(glue, "used", str(tmp_path)).ensure_tables(lake_tables(narrower))
    catalog.remove("processed", [PARTITION])
    file = tmp_path / "processed" / PARTITION / "a.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    with pytest.raises(IncompatibleSchemaError, match="processed cannot follow"):
        GlueCatalog(glue, "used", str(tmp_path)).ensure_tables(lake_tables(narrower))
    file.unlink()
    GlueCatalog(glue, "used", str(tmp_path)).ensure_tables(lake_tables(narrower))


def test_an_empty_table_of_another_lake_is_refused(glue: Calls, tmp_path: Path) -> None:
    GlueCatalog(glue, "other", str(tmp_path / "a")).ensure_tables(lake_tables(TRAVEL_TIMES))
    with pytest.raises(IncompatibleSchemaError, match="its location is"):
        GlueCatalog(glue, "other", str(tmp_path / "b")).ensure_tables(lake_tables(TRAVEL_TIMES))
