"""Derived columns: Iceberg's truncate and bucket, values of the clock, and constants."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from jobs.catalog.tables import lake_tables
from jobs.parity.job import compared_partitions
from jobs.schema.checks import RecordChecks
from jobs.schema.column_checks import TextColumnChecks
from jobs.schema.murmur3 import murmur3_32
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract, contract_of
from jobs.schema.transforms import transform_of
from jobs.schema.types import arrow_type
from jobs.settings.config_files import parse_yaml
from jobs.settings.sections import SinkSettings
from jobs.write.task import WriteTask
from tests.helpers.samples import arrived, as_data, mistake_in_column

SAO_PAULO = "America/Sao_Paulo"
HASHES = [
    # https://iceberg.apache.org/spec/#appendix-b-32-bit-hash-requirements
    ("int", 34, 2017239379),
    ("long", 34, 2017239379),
    ("decimal(9,2)", Decimal("14.20"), -500754589),
    ("date", date(2017, 11, 16), -653330422),
    ("timestamp", datetime(2017, 11, 16, 22, 31, 8, tzinfo=UTC), -2047944441),
    ("timestamp", datetime(2017, 11, 16, 22, 31, 8, 1, tzinfo=UTC), -1207196810),
    ("string", "iceberg", 1210000089),
    ("binary", bytes([0, 1, 2, 3]), -188683207),
]


@pytest.mark.parametrize(("kind", "value", "expected"), HASHES)
def test_bucket_has_the_hashes_of_icebergs_specification(kind: str, value: Any, expected: int) -> None:
    largest = (1 << 31) - 1
    found = transform_of(f"bucket[{largest}]", kind)
    assert found.apply(value) == (expected & largest) % largest
    column = found.to_arrow(pa.array([value, None], arrow_type(kind)))
    assert (column.values.to_pylist(), column.wrong) == ([found.apply(value), None], None)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"a", 0x3C2569B2), (b"aaa", 0xB4D05FB7), (b"Hello, world!", 0xC0363E43), ("ππ".encode(), 0xB1719E07)],
)
def test_the_hash_takes_bytes_of_any_length(data: bytes, expected: int) -> None:
    assert murmur3_32(data) == expected


@pytest.mark.parametrize(
    ("notation", "kind", "zone", "value", "expected"),
    [
        ("truncate[10]", "int", None, 1, 0),
        ("truncate[10]", "int", None, -1, -10),
        ("truncate[10]", "long", None, 2**63 - 1, 2**63 - 8),
        ("truncate[50]", "decimal(9,2)", None, Decimal("10.65"), Decimal("10.50")),
        ("truncate[50]", "decimal(9,2)", None, Decimal("-0.05"), Decimal("-0.50")),
        ("truncate[3]", "string", None, "iceberg", "ice"),
        ("truncate[2]", "string", None, "日本語", "日本"),
        ("truncate[2]", "binary", None, b"\0\1\2", b"\0\1"),
        ("lower", "string", None, "PARIS", "paris"),
        ("lower", "string", None, "ΟΔΟΣ İ", "οδος i̇"),
        ("date", "timestamp", None, datetime(2026, 11, 23, 23, 59, 59, 999999, UTC), date(2026, 11, 23)),
        ("date", "timestamp", None, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), date(1969, 12, 31)),
        ("date", "timestamp", SAO_PAULO, datetime(2026, 11, 23, 2, 59, 59, tzinfo=UTC), date(2026, 11, 22)),
        ("date", "timestamp", SAO_PAULO, datetime(2026, 11, 23, 3, tzinfo=UTC), date(2026, 11, 23)),
        ("hour", "timestamp", None, datetime(2026, 11, 23, 9, 59, tzinfo=UTC), 9),
        # Set back at midnight: 23:30 occurs twice, and both are of hour 23 of the same day.
        ("hour", "timestamp", SAO_PAULO, datetime(2018, 2, 18, 1, 30, tzinfo=UTC), 23),
        ("hour", "timestamp", SAO_PAULO, datetime(2018, 2, 18, 2, 30, tzinfo=UTC), 23),
        ("date", "timestamp", SAO_PAULO, datetime(2018, 2, 18, 2, 30, tzinfo=UTC), date(2018, 2, 17)),
        ("hour", "timestamp", SAO_PAULO, datetime(2018, 11, 4, 3, tzinfo=UTC), 1),
        ("hour", "timestamp", "Asia/Kolkata", datetime(2026, 11, 23, 9, 45, tzinfo=UTC), 15),
        ("month", "timestamp", SAO_PAULO, datetime(2027, 1, 1, 2, tzinfo=UTC), "2026-12"),
        ("month", "date", None, date(207, 1, 31), "0207-01"),
        ("year", "timestamp", SAO_PAULO, datetime(2027, 1, 1, 2, tzinfo=UTC), 2026),
        ("year", "date", None, date(2026, 1, 31), 2026),
    ],
)
def test_a_value_is_transformed_alike_alone_and_in_a_column(
    notation: str, kind: str, zone: str | None, value: Any, expected: Any
) -> None:
    found = transform_of(notation, kind, zone)
    assert found.apply(value) == expected
    column = found.to_arrow(pa.array([value, None, value], arrow_type(kind)))
    assert (column.values.to_pylist(), column.wrong) == ([expected, None, expected], None)
    assert column.values.type == arrow_type(found.result)


@pytest.mark.parametrize(
    ("notation", "kind", "zone", "value"),
    [
        ("truncate[10]", "int", None, -(2**31)),
        ("truncate[10]", "long", None, -(2**63)),
        ("truncate[1000]", "decimal(3,0)", None, Decimal(-999)),
        ("date", "timestamp", SAO_PAULO, datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_value_without_a_result_is_marked(notation: str, kind: str, zone: str | None, value: Any) -> None:
    found = transform_of(notation, kind, zone)
    with pytest.raises(ValueError):  # noqa: PT011
        found.apply(value)
    column = found.to_arrow(pa.array([None, value], arrow_type(kind)))
    assert column.values.to_pylist() == [None, None]
    assert column.wrong is not None
    assert column.wrong.to_pylist() == [False, True]


TRIPS_YAML = """
version: 2
name: trips
columns:
  id: {type: int}
  City: {column: city_name}
  pickup: {type: timestamp, timezone: America/Sao_Paulo}
  pickup_date: {from: pickup, transform: date}
  pickup_hour: {from: pickup, transform: hour}
  utc_hour: {from: pickup, transform: hour, timezone: UTC}
  tens: {from: id, transform: "truncate[10]"}
  city: {type: string}
  folder: {from: city, transform: lower}
  letter: {from: folder, transform: "truncate[1]"}
  place: {type: string, parse: {pattern: '(.)-(.+)', into: [{column: level, type: int}, {column: room, type: string}]}}
  shelf: {from: level, transform: "bucket[4]"}
  arrived: {metadata: arrival_time}
  arrival_date: {from: arrived, transform: date, timezone: America/Sao_Paulo}
  origin: {constant: taxi}
partition_by: [pickup_date, pickup_hour, folder]
stream_partition_key: [id]
""".replace("  City: {column: city_name}\n", "")


def trips(text: str = TRIPS_YAML) -> TableContract:
    return contract_of(parse_yaml(text, Path("trips.yaml")), Path("trips.yaml"))


def model(text: str) -> TableContract:
    return TableContract.model_validate(parse_yaml(text, Path("trips.yaml")))


def parsed(record: Any) -> dict[str, Any] | Rejection:
    data = json.dumps(record).encode()
    found = RecordParser(trips()).parse(as_data([data]))
    assert found.rejections.get(0) == RecordChecks(trips()).reject_bytes(data)
    return found.rejections.get(0) or dict(found.columns.to_pylist()[0])


@pytest.mark.parametrize("added", [{}, {"unnamed": 1}], ids=["native", "by one"])
def test_a_record_gets_its_derived_columns(added: dict[str, int]) -> None:
    row = parsed({"id": -3, "pickup": "2026-11-23T23:30:00", "city": "PARIS", "place": "7-b"} | added)
    assert isinstance(row, dict)
    assert (row["pickup_date"], row["pickup_hour"], row["utc_hour"]) == (date(2026, 11, 23), 23, 2)
    assert (row["tens"], row["folder"], row["letter"], row["origin"]) == (-10, "paris", "p", "taxi")
    assert row["shelf"] == transform_of("bucket[4]", "int").apply(7)
    assert "arrival_date" not in row


def test_a_derived_column_of_an_absent_value_is_null() -> None:
    row = parsed({})
    assert isinstance(row, dict)
    assert {name for name, value in row.items() if value is not None} == {"origin"}


def test_a_value_without_a_result_rejects_its_record() -> None:
    found = parsed({"id": -(2**31)})
    assert isinstance(found, Rejection)
    assert (found.reason, found.field, found.value) == ("failed_check", "id", str(-(2**31)))


def test_a_derived_text_that_cannot_name_a_folder_rejects_its_record() -> None:
    found = parsed({"city": "A\u202eB"})
    assert isinstance(found, Rejection)
    assert (found.reason, found.field) == ("bad_partition_value", "city")


def test_the_tables_have_the_derived_columns() -> None:
    _, processed, _ = lake_tables(trips())
    kinds = {name: kind for name, kind, _ in (*processed.columns, *processed.partitions)}
    assert [name for name, _, _ in processed.partitions] == ["pickup_date", "pickup_hour", "folder"]
    assert (kinds["pickup_date"], kinds["pickup_hour"], kinds["arrival_date"], kinds["origin"]) == (
        "date", "int", "date", "string",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{from: nothing, transform: date}", "from: no column above this one is named 'nothing'"),
        ("{from: x, transform: date}", "from: no column above this one is named 'x'"),
        ("{from: y}", "from: needs a transform: date, hour"),
        ("{transform: date, type: date}", "transform: needs the column that it is applied to, as `from`"),
        ("{from: t, transform: day}", "unknown transform 'day'; did you mean date?"),
        ("{from: t, transform: dates}", "did you mean date?"),
        ("{from: y, transform: date}", "transform date takes timestamp, not string"),
        ("{from: y, transform: bucket}", "write bucket[16]"),
        ("{from: y, transform: 'lower[3]'}", "write lower"),
        ("{from: y, transform: 'bucket[0]'}", "the number is 1 to 2147483647"),
        ("{from: y, transform: lower, type: int}", "transform lower of string gives string, not int"),
        ("{from: y, transform: lower, required: true}", "a derived column is not checked"),
        ("{from: y, transform: lower, source: y}", "a value has one origin, not source and from"),
        ("{from: y, transform: lower, timezone: UTC}", "timezone is for date, hour, month and year"),
        ("{from: t, transform: hour, timezone: Nowhere}", "no time zone is named 'Nowhere'"),
        ("{constant: a, type: int}", "a constant is a string, not int"),
    ],
)
def test_a_mistake_in_a_derived_column_is_named_with_its_line(tmp_path: Path, entry: str, told: str) -> None:
    error = mistake_in_column(tmp_path, entry, "  t: {type: timestamp}\n")
    assert "line 6: columns.x" in error
    assert told in error


def test_a_batch_is_partitioned_by_the_local_date_of_arrival(tmp_path: Path) -> None:
    contract = trips(TRIPS_YAML.replace("[pickup_date, pickup_hour, folder]", "[arrival_date, origin]"))
    times = [datetime(2026, 11, 23, 2, 59, 59, tzinfo=UTC), datetime(2026, 11, 23, 3, tzinfo=UTC)]
    task = WriteTask(str(tmp_path), "q-0", contract, SinkSettings())
    report = task.write(iter([arrived([b'{"id": 1}', b'{"id": 2}'], at=times)]), "q-0-00000")
    written = {file.path.rpartition("/")[0] for file in report.files if file.kind == "processed"}
    assert written == {
        "processed/arrival_date=2026-11-22/origin=taxi",
        "processed/arrival_date=2026-11-23/origin=taxi",
    }
    assert compared_partitions(contract) == ["origin"]


def test_texts_of_the_metadata_and_unusable_constants_cannot_partition() -> None:
    key = (
        "  key: {metadata: partition_key}\n  low: {from: key, transform: lower}\n"
        "  bucket: {from: key, transform: 'bucket[4]'}\n"
    )
    text = TRIPS_YAML.replace("  origin: {", f"{key}  origin: {{")
    for name in ("arrived", "key", "low"):
        with pytest.raises(ValidationError, match=f"partition_by: '{name}'"):
            model(text.replace("[pickup_date, pickup_hour, folder]", f"[{name}]"))
    assert model(text.replace("[pickup_date, pickup_hour, folder]", "[bucket]")).partition_by == ("bucket",)
    with pytest.raises(ValidationError, match=r"the constant .* cannot name a folder"):
        model(text.replace("pickup_date, pickup_hour, folder", "origin").replace("taxi", '"a\\u202eb"'))


@pytest.mark.parametrize("privacy", ["drop", "sha256"])
def test_nothing_is_derived_from_a_private_column(privacy: str) -> None:
    text = TRIPS_YAML.replace("city: {type: string}", f"city: {{type: string, privacy: {privacy}}}")
    with pytest.raises(ValidationError, match="'city' is private, and a derived column would show its value"):
        model(text.replace(", folder]", "]"))


def test_a_row_of_texts_is_suspect_if_a_derived_text_cannot_name_a_folder() -> None:
    contract = contract_of(
        {"version": 2, "name": "t", "columns": {"city": {"type": "string"}, "n": {"type": "int"},
         "folder": {"from": "city", "transform": "lower"}, "tens": {"from": "n", "transform": "truncate[10]"}},
         "partition_by": ["folder"], "stream_partition_key": ["city"]},
        Path("t"),
    )  # fmt: skip
    checks = TextColumnChecks(RecordChecks(contract), {"city": 0, "n": 1})
    texts = [pa.array(["Paris", "a\u202eb", "Paris"]), pa.array(["1", "2", "-2147483648"])]
    suspects = checks.suspects(texts)
    assert suspects is not None
    assert suspects.to_pylist() == [False, True, True]


def test_a_field_named_hour_is_a_column_of_the_tables(tmp_path: Path) -> None:
    contract = trips(TRIPS_YAML.replace("  id: {type: int}", "  id: {type: int}\n  hour: {type: int}"))
    raw, processed, _ = lake_tables(contract)
    assert "hour" in [name for name, _, _ in processed.columns]
    names = [name for name, _, _ in (*raw.columns, *raw.partitions)]
    assert len(set(names)) == len(names)
    assert raw.storage["SerdeInfo"]["Parameters"]["mapping.field_hour"] == "hour"
