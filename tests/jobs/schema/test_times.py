"""Dates and times in the formats that a contract names, and booleans in other words."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.schema.checks import RecordChecks
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract, contract_of
from jobs.schema.times import time_format, time_zone, to_local
from jobs.settings.config_files import parse_yaml
from producer.api_docs import post_documentation
from tests.helpers.samples import as_data, mistake_in_column

SAO_PAULO = "America/Sao_Paulo"  # 2018: back at midnight of 18 February, forward at midnight of 4 November


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("form", "zone", "value", "expected"),
    [
        ("M/d/yyyy", None, "1/1/2018", utc(2018, 1, 1)),
        ("M/d/yyyy", None, "12/31/2018", utc(2018, 12, 31)),
        ("dd-MMM-yy", None, "23-NOV-26", utc(2026, 11, 23)),
        ("dd-MMM-yy", None, "01-jan-99", utc(2099, 1, 1)),
        ("d MMMM yyyy", None, "3 September 2026", utc(2026, 9, 3)),
        ("yyyyMMdd", None, 20261123, utc(2026, 11, 23)),
        ("yyyy-MM-dd HH:mm:ss", None, "2026-11-23 10:30:05", utc(2026, 11, 23, 10, 30, 5)),
        ("yyyy-MM-dd HH:mm:ss", SAO_PAULO, "2026-11-23 10:30:05", utc(2026, 11, 23, 13, 30, 5)),
        ("M/d/yyyy h:mm:ss a", None, "1/2/2018 12:00:00 am", utc(2018, 1, 2)),
        ("M/d/yyyy h:mm:ss a", None, "1/2/2018 12:59:00 PM", utc(2018, 1, 2, 12, 59)),
        ("M/d/yyyy h:mm:ss a", None, "1/2/2018 1:00:00 PM", utc(2018, 1, 2, 13)),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSSSSSSS", None, "2026-11-23T10:30:05.1234567", utc(2026, 11, 23, 10, 30, 5, 123456)),
        ("dd/MMM/yyyy:HH:mm:ss X", SAO_PAULO, "23/Nov/2026:10:30:05 +0100", utc(2026, 11, 23, 9, 30, 5)),
        ("dd/MMM/yyyy:HH:mm:ss X", None, "23/Nov/2026:10:30:05 -05:30", utc(2026, 11, 23, 16, 0, 5)),
        ("yyyy-MM-dd HH'h'", None, "2026-11-23 10h", utc(2026, 11, 23, 10)),
        ("epoch_seconds", None, 1_700_000_000, utc(2023, 11, 14, 22, 13, 20)),
        ("epoch_seconds", None, "1700000000.1234569", utc(2023, 11, 14, 22, 13, 20, 123456)),
        ("epoch_seconds", None, -1, utc(1969, 12, 31, 23, 59, 59)),
        ("epoch_seconds", None, "-0.0000001", utc(1969, 12, 31, 23, 59, 59, 999999)),
        ("epoch_millis", None, 1_700_000_000_123, utc(2023, 11, 14, 22, 13, 20, 123000)),
        ("epoch_millis", None, "1.700000000123e12", utc(2023, 11, 14, 22, 13, 20, 123000)),
        ("epoch_micros", SAO_PAULO, "1700000000123456", utc(2023, 11, 14, 22, 13, 20, 123456)),
        ("iso", SAO_PAULO, "2026-11-23T10:30:05.5", utc(2026, 11, 23, 13, 30, 5, 500000)),
        ("iso", SAO_PAULO, "2026-11-23T10:30:05Z", utc(2026, 11, 23, 10, 30, 5)),
        ("iso", SAO_PAULO, "2026-11-23", utc(2026, 11, 23, 3)),
        # Twice at 23:30: the earlier one, before the clocks were set back.
        ("iso", SAO_PAULO, "2018-02-17T23:30:00", utc(2018, 2, 18, 1, 30)),
        # Never 00:30: forward by the gap of an hour.
        ("iso", SAO_PAULO, "2018-11-04T00:30:00", utc(2018, 11, 4, 3, 30)),
        ("yyyy-MM-dd HH:mm", "Australia/Lord_Howe", "2026-10-04 02:15", utc(2026, 10, 3, 15, 45)),
        ("iso", "Europe/Berlin", "2150-07-01T12:00:00", utc(2150, 7, 1, 10)),
    ],
)
def test_a_time_is_read_alike_alone_and_in_a_column(
    form: str, zone: str | None, value: Any, expected: datetime
) -> None:
    found = time_format("timestamp", form, zone)
    assert found.read(value) == expected
    assert found.to_arrow([value, None, ""]).to_pylist() == [expected, None, None]
    assert found.to_arrow([value, "no time"]).to_pylist() == [expected, None]


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("M/d/yyyy", "2/30/2018"),
        ("M/d/yyyy", "13/1/2018"),
        ("M/d/yyyy", "1/1/18"),
        ("M/d/yyyy", "1/1/0000"),
        ("M/d/yyyy", "001/1/2018"),
        ("M/d/yyyy", "1/1/2018 "),
        ("M/d/yyyy", "1/1/2018\n"),
        ("M/d/yyyy", "١/1/2018"),
        ("MM/dd/yyyy", "1/1/2018"),
        ("dd-MMM-yy", "23-Sept-26"),
        ("dd-MMM-yy", "23-ſep-26"),
        ("M/d/yyyy h:mm a", "1/2/2018 0:30 am"),
        ("M/d/yyyy h:mm a", "1/2/2018 13:30 PM"),
        ("yyyy-MM-dd HH:mm:ss", "2026-11-23 24:00:00"),
        ("yyyy-MM-dd HH:mm:ss", "2026-11-23 10:30:60"),
        ("yyyy-MM-dd HH:mm X", "2026-11-23 10:30 +24:00"),
        ("yyyy-MM-dd HH:mm X", "9999-12-31 23:30 -01:00"),
        ("yyyyMMdd", True),
        ("yyyyMMdd", [20261123]),
        ("epoch_seconds", 1_700_000_000_000),
        ("epoch_seconds", "1700000000s"),
        ("epoch_seconds", 10**40),
        ("epoch_millis", True),
        ("epoch_millis", "1e400000"),
        ("epoch_micros", {}),
        ("iso", 20261123),
        ("iso", "2026-02-30T00:00:00Z"),
        ("iso", "0000-01-01T00:00:00Z"),
        ("iso", "9999-12-31T23:59:59-05:00"),
    ],
)
def test_a_value_in_another_format_is_refused_alone_and_in_a_column(form: str, value: Any) -> None:
    found = time_format("timestamp", form)
    with pytest.raises(ValueError):  # noqa: PT011
        found.read(value)
    assert found.to_arrow([value]).to_pylist() == [None]


def test_a_date_of_an_epoch_is_the_day_in_the_time_zone() -> None:
    midnight = 1_700_017_200  # 2023-11-15 03:00 UTC
    assert time_format("date", "epoch_seconds").read(midnight - 1) == date(2023, 11, 15)
    local = time_format("date", "epoch_seconds", SAO_PAULO)
    assert (local.read(midnight - 1), local.read(midnight)) == (date(2023, 11, 14), date(2023, 11, 15))
    assert local.to_arrow([midnight - 1, midnight]).to_pylist() == [date(2023, 11, 14), date(2023, 11, 15)]


@pytest.mark.parametrize("name", [SAO_PAULO, "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Monrovia"])
def test_a_column_has_the_zones_clock_of_each_time(name: str) -> None:
    zone = time_zone(name)
    times = [
        datetime(1971, 12, 31, tzinfo=UTC) + timedelta(hours=hour * 7, minutes=hour) for hour in range(0, 80_000, 397)
    ]
    expected = [time.astimezone(zone).replace(tzinfo=None) for time in times]
    for time, local in zip(times, expected, strict=True):
        found = to_local(pa.array([time], pa.timestamp("us", tz="UTC")), zone)
        assert found is None or found.to_pylist() == [local]
    naive = time_format("timestamp", "iso", name)
    texts = [local.isoformat() for local in expected]
    assert naive.to_arrow(texts).to_pylist() == [naive.read(text) for text in texts]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{type: int, format: M/d/yyyy}", "format and timezone are for dates and timestamps, not for int"),
        ("{type: date, timezone: UTC}", "a date without a time is in no time zone"),
        ("{type: timestamp, timezone: America/Sao_Paolo}", "did you mean America/Sao_Paulo?"),
        ("{type: timestamp, timezone: ../etc/passwd}", "no time zone is named '../etc/passwd'"),
        ("{type: timestamp, format: yyyy-mm-dd}", "has no month"),
        ("{type: timestamp, format: YYYY-MM-dd}", "unknown letters 'YYYY'; did you mean yyyy?"),
        ("{type: timestamp, format: yyyy-MM-ddTHH}", "unknown letters 'T'; known: "),
        ("{type: timestamp, format: dMyyyy}", "where 'd' ends is unclear"),
        ("{type: timestamp, format: M/d/yyyy h:mm}", "hours of 12 (h) and a belong together"),
        ("{type: timestamp, format: M/d/yyyy H:ss}", "has a second and no minute"),
        ("{type: timestamp, format: M/d/yyyy d}", "the day occurs twice"),
        ('{type: timestamp, format: "M/d/yyyy \'x"}', "a quote is not closed"),
        ("{type: timestamp, format: epoch}", "unknown letters 'e'"),
        ("{type: boolean, true_values: [yes]}", "put yes, no, on and off in quotes, or YAML"),
        ("{type: boolean, true_values: [Y], false_values: [y]}", "'y' stands for both"),
        ("{type: boolean, false_values: ['true']}", "'true' stands for both"),
        ("{type: string, true_values: [Y]}", "true_values and false_values are for booleans, not for string"),
    ],
)
def test_a_mistake_in_a_format_is_named_with_its_column(tmp_path: Path, entry: str, told: str) -> None:
    error = mistake_in_column(tmp_path, entry)
    assert "line 5: columns.x" in error
    assert told in error


TRIPS = contract_of(
    parse_yaml(
        """
version: 2
name: trips
columns:
  id: {type: string}
  day: {source: Day, type: date, format: M/d/yyyy}
  started: {source: start, type: timestamp, format: epoch_millis, required: true}
  ended: {source: end, type: timestamp, timezone: America/Sao_Paulo}
  paid: {type: boolean, true_values: [Y, 1], false_values: [N, 0]}
  line:
    type: string
    parse:
      pattern: '\\[(.+)\\] (.+) (.+)'
      into:
        - {column: logged, type: timestamp, format: 'dd/MMM/yyyy:HH:mm:ss X'}
        - {column: cached, type: boolean, true_values: [HIT], false_values: [MISS]}
        - {column: price, type: "decimal(5,2)"}
partition_by: [day]
stream_partition_key: [id]
""",
        Path("trips.yaml"),
    ),
    Path("trips.yaml"),
)
TRIP: dict[str, Any] = {
    "id": "1",
    "Day": "1/1/2018",
    "start": 1_700_000_000_123,
    "end": "2026-11-23T10:30:00",
    "paid": "Y",
    "line": "[23/Nov/2026:10:30:05 +0100] MISS 1.50",
}


def parsed(record: Any, contract: TableContract = TRIPS) -> dict[str, Any] | Rejection:
    data = json.dumps(record).encode()
    found = RecordParser(contract).parse(as_data([data]))
    assert found.rejections.get(0) == RecordChecks(contract).reject_bytes(data)
    return found.rejections.get(0) or dict(found.columns.to_pylist()[0])


@pytest.mark.parametrize("added", [{}, {"unnamed": 1}], ids=["native", "by one"])
def test_a_record_of_formats_becomes_a_row(added: dict[str, int]) -> None:
    row = parsed(TRIP | added)
    assert isinstance(row, dict)
    assert (row["day"], row["paid"]) == (date(2018, 1, 1), True)
    assert row["started"] == utc(2023, 11, 14, 22, 13, 20, 123000)
    assert row["ended"] == utc(2026, 11, 23, 13, 30)
    assert (row["logged"], row["cached"], str(row["price"])) == (utc(2026, 11, 23, 9, 30, 5), False, "1.50")


@pytest.mark.parametrize("added", [{}, {"unnamed": 1}], ids=["native", "by one"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("Day", "2/30/2018"), ("Day", 1.5), ("start", "soon"), ("start", True), ("end", 20261123), ("paid", "yes"),
     ("paid", 2)],
)  # fmt: skip
def test_a_value_in_another_format_rejects_its_record(added: dict[str, int], field: str, value: Any) -> None:
    found = parsed(TRIP | added | {field: value})
    assert isinstance(found, Rejection)
    assert (found.reason, found.field) == ("wrong_type", field)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("Y", True), (" y ", True), (1, True), (1.0, True), ("1.0", True), ("1", True), (True, True), ("true", True),
     ("N", False), (0, False), (False, False), ("", None), (None, None)],
)  # fmt: skip
def test_booleans_are_the_words_and_numbers_of_the_contract(value: Any, expected: bool | None) -> None:
    for added in ({}, {"unnamed": 1}):
        row = parsed(TRIP | added | {"paid": value})
        assert isinstance(row, dict)
        assert row["paid"] is expected


def test_without_a_format_a_number_is_no_time_however_it_is_read() -> None:
    plain = contract_of(
        {"version": 2, "name": "t", "columns": {"a": {"type": "timestamp"}, "b": {"type": "string"}},
         "partition_by": ["b"], "stream_partition_key": ["b"]},
        Path("t"),
    )  # fmt: skip
    assert isinstance(parsed({"a": 20261123}, plain), Rejection)


def test_the_api_documents_what_a_format_takes() -> None:
    body = post_documentation(TRIPS, False, 10)["openapi_extra"]["requestBody"]["content"]["application/json"]
    fields = body["schema"]["oneOf"][0]["properties"]
    assert fields["start"]["type"] == ["number", "string"]
    assert fields["Day"]["type"] == ["string", "number", "null"]
    assert fields["paid"]["type"] == ["boolean", "number", "string", "null"]
    assert "pattern" not in fields["paid"]
