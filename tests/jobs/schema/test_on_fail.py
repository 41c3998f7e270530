"""`on_fail`: what becomes of a value that fails a check, and of its record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.common.errors import ConfigurationError
from jobs.schema.checks import RecordChecks
from jobs.schema.on_fail import count_failed
from jobs.schema.record_parser import ParsedRecords, RecordParser
from jobs.schema.table import TableContract, contract_of
from producer.api_docs import post_documentation
from tests.helpers.paths import ROOT
from tests.helpers.samples import as_data


def contract(columns: dict[str, Any], **more: Any) -> TableContract:
    content = {
        "version": 2,
        "name": "trips",
        "columns": {"city": {"type": "string"}} | columns,
        "partition_by": ["city"],
        "stream_partition_key": ["city"],
    }
    return contract_of(content | more, ROOT / "conf" / "travel_times.yaml")


def parse(made: TableContract, *records: dict[str, Any]) -> ParsedRecords:
    data = [json.dumps({"city": "Paris"} | record).encode() for record in records]
    parsed = RecordParser(made).parse(as_data(data))
    checks = RecordChecks(made)
    assert [parsed.rejections.get(number) for number in range(len(data))] == [
        checks.reject_bytes(each) for each in data
    ]
    return parsed


def counts(parsed: ParsedRecords, action: str) -> dict[str, int]:
    return count_failed(parsed.failed, parsed.rejections, action)


def test_with_null_a_failed_value_becomes_null_and_counts_by_its_reason() -> None:
    made = contract({"speed": {"type": "int", "min": 0, "max": 300, "on_fail": None}})
    parsed = parse(made, {"speed": 30}, {"speed": -1}, {"speed": 301}, {"speed": "fast"}, {})
    assert parsed.columns["speed"].to_pylist() == [30, None, None, None, None]
    assert not parsed.rejections
    assert counts(parsed, "null") == {"speed.wrong_type": 1, "speed.failed_check": 2}
    assert counts(parsed, "warn") == {}


def test_with_warn_a_failed_value_stays_and_counts_once() -> None:
    made = contract({"plate": {"type": "string", "max_length": 3, "pattern": "[a-z]+", "on_fail": "warn"}})
    parsed = parse(made, {"plate": "abc"}, {"plate": "A"}, {"plate": "ABCD"}, {"plate": ""})
    assert parsed.columns["plate"].to_pylist() == ["abc", "A", "ABCD", ""]
    assert not parsed.rejections
    assert counts(parsed, "warn") == {"plate.too_long": 1, "plate.pattern_mismatch": 1}


def test_with_warn_a_value_of_another_type_still_rejects_its_record() -> None:
    parsed = parse(contract({"speed": {"type": "int", "min": 0, "on_fail": "warn"}}), {"speed": "fast"}, {"speed": -1})
    assert {at: each.reason for at, each in parsed.rejections.items()} == {0: "wrong_type"}
    assert counts(parsed, "warn") == {"speed.failed_check": 1}


def test_values_of_rejected_records_do_not_count() -> None:
    made = contract({"speed": {"type": "int", "min": 0, "on_fail": None}, "id": {"type": "int", "required": True}})
    parsed = parse(made, {"speed": -1}, {"speed": -1, "id": 1})
    assert counts(parsed, "null") == {"speed.failed_check": 1}


def test_a_missing_value_of_a_required_column_can_be_a_warning() -> None:
    made = contract({"id": {"type": "string", "required": True, "on_fail": "warn"}})
    parsed = parse(made, {}, {"id": ""}, {"id": "7"})
    assert not parsed.rejections
    assert counts(parsed, "warn") == {"id.missing_field": 2}


def test_a_text_that_cannot_be_split_becomes_null_or_stays_without_parts() -> None:
    parts = {
        "pattern": "([0-9]+)-([0-9]+)",
        "into": [{"column": "low", "type": "int"}, {"column": "high", "type": "int"}],
    }
    for on_fail, kept in ((None, None), ("warn", "x")):
        made = contract({"span": {"type": "string", "parse": parts, "on_fail": on_fail}})
        parsed = parse(made, {"span": "1-2"}, {"span": "x"}, {"span": None})
        assert not parsed.rejections
        assert parsed.columns.select(["span", "low", "high"]).to_pylist() == [
            {"span": "1-2", "low": 1, "high": 2},
            {"span": kept, "low": None, "high": None},
            {"span": None, "low": None, "high": None},
        ]
        assert counts(parsed, "warn" if on_fail else "null") == {"span.unparsable": 1}


def test_a_part_of_a_split_text_has_an_on_fail_of_its_own() -> None:
    part = {"column": "day", "type": "string", "allowed": ["mo", "tu"], "on_fail": None}
    made = contract({"span": {"type": "string", "parse": {"pattern": "(..)", "into": [part]}}})
    parsed = parse(made, {"span": "mo"}, {"span": "xx"})
    assert parsed.columns.select(["span", "day"]).to_pylist() == [
        {"span": "mo", "day": "mo"},
        {"span": "xx", "day": None},
    ]
    assert counts(parsed, "null") == {"day.not_allowed": 1}


def test_a_partition_value_that_cannot_name_a_folder_becomes_null_with_null_only() -> None:
    for on_fail, reasons in ((None, {}), ("warn", {0: "bad_partition_value"})):
        parsed = parse(contract({"city": {"type": "string", "on_fail": on_fail}}), {"city": "é" * 300})
        assert {at: each.reason for at, each in parsed.rejections.items()} == reasons
    assert counts(parse(contract({"city": {"type": "string", "on_fail": None}}), {"city": "é" * 300}), "null") == {
        "city.bad_partition_value": 1
    }


def test_a_check_across_columns_can_warn_and_skips_values_that_became_null() -> None:
    made = contract(
        {"low": {"type": "int", "min": 0, "on_fail": None}, "high": {"type": "int"}},
        checks=[{"name": "in_order", "ascending": ["low", "high"], "on_fail": "warn"}],
    )
    parsed = parse(made, {"low": 3, "high": 2}, {"low": -1, "high": -2}, {"low": 1, "high": 2})
    assert not parsed.rejections
    assert counts(parsed, "warn") == {"in_order.failed_check": 1}


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        ({"id": {"type": "int", "required": True, "on_fail": None}}, {}, "contradicts required"),
        ({"at": {"metadata": "arrival_time", "on_fail": "warn"}}, {}, "is not checked"),
        ({"id": {"type": "int", "on_fail": "skip"}}, {}, "'reject', 'null' or 'warn'; got 'skip'"),
        (
            {"a": {"type": "int"}, "b": {"type": "int"}},
            {"checks": [{"name": "in_order", "ascending": ["a", "b"], "on_fail": None}]},
            "does not say which of them is wrong",
        ),
    ],
)
def test_an_on_fail_that_makes_no_sense_is_refused(columns: Any, more: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        contract(columns, **more)


def test_the_api_documents_no_limits_that_it_does_not_enforce() -> None:
    made = contract(
        {
            "speed": {"type": "int", "min": 0, "on_fail": None},
            "plate": {"type": "string", "required": True, "on_fail": "warn"},
            "height": {"type": "int", "max": 4, "on_fail": "warn"},
        }
    )
    body = post_documentation(made, False, 10)["openapi_extra"]["requestBody"]
    record = body["content"]["application/json"]["schema"]["oneOf"][0]
    assert record["required"] == []
    assert record["properties"]["speed"] == {}
    assert record["properties"]["height"]["maximum"] == 2**31 - 1
