"""The contract's YAML: each mistake is named, and a contract for another stream works from record to Parquet."""

from __future__ import annotations

import copy
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from jobs.catalog.tables import lake_tables
from jobs.common.errors import ConfigurationError
from jobs.schema.record_parser import RecordParser
from jobs.schema.table import TableContract, load_contract
from jobs.settings.sections import SinkSettings
from jobs.write.task import WriteTask
from tests.helpers.samples import READING, READINGS_YAML, TRAVEL_TIMES, arrived, bytes_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "readings.yaml"


def changed(path: str, value: Any) -> str:
    """The readings' YAML with the value at a path such as `columns.0.type` changed; `...` removes the key."""
    content = copy.deepcopy(yaml.safe_load(READINGS_YAML))
    *way, last = path.split(".")
    at = content
    for part in way:
        at = at[int(part)] if part.isdigit() else at[part]
    if value is ...:
        del at[last]
    elif isinstance(at, list):
        at.insert(int(last), value)
    else:
        at[last] = value
    return str(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("version", 3, "version: input should be 1 or 2; got 3"),
        ("name", ..., "name: is missing"),
        (
            "file_name",
            {"pattern": "(.+)[.]csv"},
            "file_name: pattern: Regular expression contains unnamed groups (RE2;",
        ),
        ("file_name", {"pattern": ".+[.]csv"}, "file_name: the pattern has no group; write (?P<field>…)"),
        ("file_name", {"pattern": "(?P<city>.+)"}, "file_name: no source field is named 'city'"),
        ("file_name", {"pattern": "(?P<s>.+)", "fields": {"t": "sensor"}}, "fields: the pattern has no group 't'"),
        ("name", "Read Ings", "name: string should match pattern"),
        ("colums", [], "colums: unknown key; did you mean 'columns'?"),
        ("columns", [], "columns: tuple should have at least 1 item"),
        ("columns.0.typ", "int", "columns.sensor.typ: unknown key; did you mean 'type'?"),
        (
            "columns.0.type",
            "text",
            "columns.sensor.type: unknown type 'text'; did you mean string? types are string, boolean, int",
        ),
        ("columns.0.source", "", "columns.sensor.source: string should have at least 1 character"),
        ("columns.0.column", "2nd", "columns.2nd.column: string should match pattern"),
        ("columns.0.min", 5, "columns.sensor: min and max are for numbers, not for string"),
        ("columns.1.default", "now", "columns.read_at: parse and default are for strings, not for timestamp"),
        ("columns.0.default", "s0", "columns.sensor: a required column has no default"),
        ("columns.6.pattern", "[0-9]+", "columns.high: pattern is for strings, not for int"),
        ("columns.6.max_length", 3, "columns.high: max_length is for strings, not for int"),
        ("columns.6.allowed", ["1"], "columns.high: allowed: '1' is no int"),
        ("columns.6.allowed", [True], "columns.high: allowed: True is no int"),
        ("columns.6.allowed", [2**31], "columns.high: allowed: 2147483648 is no int"),
        ("columns.6.allowed", [], "columns.high.allowed: tuple should have at least 1 item"),
        (
            "columns.1.allowed",
            ["2026-11-23"],
            "columns.read_at: allowed is for string, int, long, boolean, date, not for",
        ),
        ("columns.0.allowed", [""], "columns.sensor: allowed: an empty text counts as absent"),
        ("columns.0.allowed", [7], "columns.sensor: allowed: 7 is no string"),
        ("columns.0.pattern", "(a", "columns.sensor: pattern: Invalid regular expression: missing )"),
        ("columns.0.pattern", r"\Q1+1", "columns.sensor: pattern: Invalid regular expression: missing )"),
        ("columns.0.pattern", r"a|\Q", "columns.sensor: pattern: Invalid regular expression: missing )"),
        ("columns.0.pattern", "(?=a)", "RE2 has no look-around and no back-references"),
        ("columns.0.pattern", r"(a)\1", "columns.sensor: pattern: Invalid regular expression"),
        ("columns.0.max_length", 0, "columns.sensor.max_length: input should be greater than or equal to 1"),
        ("columns.8.parse.into.1.pattern", "a", "columns.place.parse.into.1: pattern is for strings, not for"),
        ("columns.8.parse.pattern", "(", "columns.place.parse: pattern is not a regular expression"),
        ("columns.8.parse.pattern", "(.*)", "columns.place.parse: the pattern has 1 groups for 2 columns"),
        ("columns.8.parse.into.0.type", "array<int>", "columns.place.parse.into.0: a group of a pattern is one value"),
        ("columns.8.parse.into.1.format", "yyyy", "columns.place.parse.into.1: format and timezone are for dates"),
        ("columns.8.parse.reason", "Bad Place", "columns.place.parse.reason: string should match pattern"),
        ("columns.1.column", "sensor", "column 'sensor' is used more than once"),
        ("columns.1.column", "shard_id", "column 'shard_id' is used more than once"),
        ("columns.1.column", "extra", "column 'extra' is used more than once"),
        ("partition_by", [], "partition_by: tuple should have at least 1 item"),
        ("partition_by", ["dya"], "partition_by: no column is named 'dya'"),
        ("partition_by", ["day", "day"], "partition_by: a column is used more than once"),
        ("partition_by", ["reading"], "partition_by: 'reading' (double) cannot name folders"),
        ("partition_by", ["read_at"], "partition_by: 'read_at' (timestamp) cannot name folders"),
        ("partition_by", ["extra"], "partition_by: 'extra' (string) cannot name folders"),
        ("sort_by", ["x"], "sort_by: no column is named 'x'"),
        ("stream_partition_key", ["x"], "stream_partition_key: no source field or column is named 'x'"),
        ("stream_partition_key", [], "stream_partition_key: tuple should have at least 1 item"),
        ("checks.0.ascending", ["low"], "checks.0.ascending: tuple should have at least 2 items"),
        ("checks.0.ascending", ["low", "x"], "checks.band: no column is named 'x'"),
        ("checks.0.ascending", ["low", "day"], "checks.band: cannot compare date with number"),
        ("max_record_bytes", 0, "max_record_bytes: input should be greater than or equal to 1"),
        ("max_record_bytes", 2**30, "max_record_bytes: input should be less than or equal to 10485760"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_value(file: Path, path: str, value: Any, told: str) -> None:
    file.write_text(changed(path, value))
    with pytest.raises(ConfigurationError) as error:
        load_contract(str(file))
    assert str(error.value).startswith(f"{file}")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "got None"),
        ("- a", "got ['a']"),
        ("columns: [", "not readable as YAML"),
        ("version: 1\nversion: 1\n", "duplicate key 'version'"),
    ],
)
def test_a_file_without_a_contract_is_named(file: Path, content: str, told: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigurationError) as error:
        load_contract(str(file))
    assert str(error.value).startswith(f"{file}: ")
    assert told in str(error.value)


def test_a_missing_contract_is_named_with_those_that_ship() -> None:
    with pytest.raises(ConfigurationError, match=r"'travels.yaml'.*travel_times.yaml"):
        load_contract("travels.yaml")


def test_the_shipped_contract_is_the_table_of_the_design() -> None:
    assert [name for name, _, _ in TRAVEL_TIMES.table_columns] == [
        "origin_movement_id", "origin_display_name", "origin_geometry",
        "destination_movement_id", "destination_display_name", "destination_geometry",
        "date_range", "end_date", "day_filter", "time_filter",
        "mean_travel_time_seconds", "lower_bound_travel_time_seconds", "upper_bound_travel_time_seconds",
        "rescued_data", "shard_id", "sequence_number", "arrival_time", "batch",
    ]  # fmt: skip
    assert [(name, kind) for name, kind, _ in TRAVEL_TIMES.partition_columns] == [
        ("city", "string"),
        ("start_date", "date"),
    ]
    assert all(comment for _, _, comment in TRAVEL_TIMES.table_columns + TRAVEL_TIMES.partition_columns)


def test_a_contract_for_another_stream_works_from_record_to_parquet_and_glue(file: Path, tmp_path: Path) -> None:
    file.write_text(READINGS_YAML)
    contract = load_contract(str(file))
    records = [
        READING | {"place": "Lab/12", "ok": True, "unit": "°C"},
        READING | {"place": "Lab", "ok": "FALSE", "n": "4", "v": "1e1", "low": -5, "high": 21},
        READING | {"day": None, "ok": None, "place": None},
        READING | {"n": -1},
        READING | {"low": 30.0},
        READING | {"place": "a/b"},
    ]
    task = WriteTask(str(tmp_path / "lake"), "q-0", contract, SinkSettings())
    report = task.write(iter([arrived([bytes_of(record) for record in records])]), "q-0-00000")
    assert (report.read, report.raw, report.processed, report.quarantined) == (6, 6, 3, 3)
    assert report.reasons == {"failed_check": 2, "bad_place": 1}
    assert report.partitions("processed") == [
        "day=2026-11-23/ok=false/site=Lab",
        "day=2026-11-23/ok=true/site=Lab",
        "day=__HIVE_DEFAULT_PARTITION__/ok=__HIVE_DEFAULT_PARTITION__/site=__HIVE_DEFAULT_PARTITION__",
    ]
    written = next(found for found in report.files if found.partition == "day=2026-11-23/ok=true/site=Lab")
    row = pq.ParquetFile(tmp_path / "lake" / written.path).read().to_pylist()[0]
    assert row["read_at"] == datetime(2026, 11, 23, 1, 2, 3, 500000, UTC)
    assert (row["count"], row["reading"], row["room"], row["extra"]) == (3, 20.5, 12, '{"unit":"°C"}')
    processed = lake_tables(contract)[1]
    assert [name for name, _, _ in processed.partitions] == ["day", "ok", "site"]


def test_a_date_is_read_by_its_format() -> None:
    contract = TableContract.model_validate(
        {
            "version": 1,
            "name": "t",
            "partition_by": ["day"],
            "stream_partition_key": ["d"],
            "columns": [
                {
                    "source": "d",
                    "column": "text",
                    "type": "string",
                    "parse": {"pattern": "(.*)", "into": [{"column": "day", "type": "date", "format": "dd.MM.yyyy"}]},
                }
            ],
        }
    )
    parsed = RecordParser(contract).parse(arrived([b'{"d": "24.12.2026"}', b'{"d": "12/24/2026"}'])["data"])
    assert parsed.columns["day"].to_pylist() == [date(2026, 12, 24), None]
    assert [(at, found.reason) for at, found in parsed.rejections.items()] == [(1, "unparsable")]


def test_a_contract_of_version_1_without_file_name_takes_the_city_from_it() -> None:
    city = load_contract("travel_times.yaml").file_name
    readings = yaml.safe_load(READINGS_YAML)
    assert TableContract.model_validate(readings).file_name is None, "it has no field City"
    readings["columns"].append({"source": "City", "column": "city", "type": "string"})
    older = TableContract.model_validate(readings).file_name
    assert city is not None
    assert older is not None
    for name in ("Travel_Times - Paris.csv", "travel_times - São Paulo.csv.gz", "other.csv"):
        assert older.read(name) == city.read(name)
    assert TableContract.model_validate(readings | {"file_name": None}).file_name is None
