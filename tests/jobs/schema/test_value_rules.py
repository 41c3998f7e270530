"""`allowed`, `max_length` and `pattern`: columns and single records agree, null passes, texts match as a whole."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.schema.checks import RecordChecks
from jobs.schema.column_checks import TextColumnChecks
from jobs.schema.columns import SourceColumn
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.schema.value_rules import broken_rule, broken_rules
from tests.helpers.examples import examples

FIELDS = ["city", "zone", "hour", "span"]
CONTRACT = TableContract.model_validate(
    {
        "version": 1,
        "name": "spans",
        "columns": [
            {"source": "city", "column": "city", "type": "string", "default": "none", "pattern": "[a-zé ]+|none"},
            {"source": "zone", "column": "zone", "type": "string", "max_length": 3, "allowed": ["a", "é"]},
            {"source": "hour", "column": "at_hour", "type": "int", "allowed": [0, 12]},
            {
                "source": "span",
                "column": "span",
                "type": "string",
                "max_length": 8,
                "parse": {
                    "pattern": r"(\w+)-(\d{4}-\d{2}-\d{2})?",
                    "into": [
                        {"column": "kind", "type": "string", "allowed": ["day", "night"]},
                        {"column": "start", "type": "date", "format": "yyyy-MM-dd", "allowed": [date(2026, 11, 23)]},
                    ],
                },
            },
        ],
        "partition_by": ["city"],
        "stream_partition_key": ["zone"],
    }
)
CHECKS, PARSER = RecordChecks(CONTRACT), RecordParser(CONTRACT)
values = st.one_of(
    st.none(),
    st.sampled_from(["", "a", "é", "paris", "par\nis", "a\n", "day-", "night-", "noon-", "day-2026-11-23", "12", "3"]),
    st.sampled_from([0, 12, 3, True, 1.5]),
    st.text(max_size=4),
)


def one(**column: Any) -> RecordParser:
    content = CONTRACT.model_dump() | {"columns": [{"source": "x", "column": "x", **column}]}
    return RecordParser(TableContract.model_validate(content | {"partition_by": ["x"], "stream_partition_key": ["x"]}))


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS, values)), min_size=1, max_size=20))
def test_whole_columns_and_single_records_agree(records: list[dict[str, Any]]) -> None:
    data = [msgspec.json.encode(record) for record in records]
    parsed = PARSER.parse(pa.array(data, pa.binary()))
    # The same records one by one, without the fast checks.
    assert parsed.rejections == {
        index: why for index, record in enumerate(data) if (why := CHECKS.reject_bytes(record)) is not None
    }
    texts = [{field: "" if record[field] is None else str(record[field]) for field in FIELDS} for record in records]
    columns = [pa.array([row[field] for row in texts], pa.string()) for field in FIELDS]
    suspects = TextColumnChecks(CHECKS, {field: index for index, field in enumerate(FIELDS)}).suspects(columns)
    for row, suspect in zip(texts, [False] * len(texts) if suspects is None else suspects.to_pylist(), strict=True):
        assert suspect or CHECKS.reject(row) is None


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ({"type": "string", "allowed": ["Boston", "Paris"]}, "Rome", "not_allowed"),
        ({"type": "string", "allowed": ["Boston", "Paris"]}, "Paris", None),
        ({"type": "string", "max_length": 2}, "éé", None),
        ({"type": "string", "max_length": 2}, "ééé", "too_long"),
        ({"type": "string", "pattern": "a|b"}, "ab", "pattern_mismatch"),
        ({"type": "string", "pattern": "a|b"}, "a\n", "pattern_mismatch"),
        ({"type": "string", "pattern": "(?i)paris"}, "PARIS", None),
        ({"type": "string", "pattern": "a", "max_length": 1}, "bb", "too_long"),
        ({"type": "string", "pattern": "(?:a|b)*a(?:a|b){900}c"}, "ab" * 450_000, "too_long"),
        ({"type": "int", "allowed": [1, 2]}, 3, "not_allowed"),
        ({"type": "int", "allowed": [1, 2]}, "2.0", None),
        ({"type": "int", "allowed": [1, 2], "max": 2}, 3, "failed_check"),
        ({"type": "long", "allowed": [2**62]}, 2**62 + 1, "not_allowed"),
        ({"type": "boolean", "allowed": [True]}, False, "not_allowed"),
        ({"type": "date", "allowed": [date(2026, 11, 23)]}, "2026-11-24", "not_allowed"),
    ],
)
def test_a_value_that_breaks_a_rule_is_rejected_with_its_reason(
    column: dict[str, Any], value: Any, reason: str | None
) -> None:
    parser = one(**column)
    for absent in (None, ""):
        assert parser.reject(msgspec.json.encode({"x": absent})) is None
    found = parser.reject(msgspec.json.encode({"x": value}))
    assert (found and found.reason) == reason
    assert found is None or found.field == "x"


def test_a_part_of_a_text_is_rejected_under_the_field_that_it_comes_from() -> None:
    assert CHECKS.reject({"span": "noon-"}) == Rejection("not_allowed", "span", "noon")


def test_a_text_that_a_backtracking_engine_never_finishes_is_matched_at_once() -> None:
    found = one(type="string", pattern="(a+)+b", max_length=100_000).reject(msgspec.json.encode({"x": "a" * 100_000}))
    assert found is not None
    assert found.reason == "pattern_mismatch"


def test_only_texts_within_max_length_are_matched() -> None:
    column = SourceColumn(source="x", column="x", type="string", pattern="a", max_length=2)
    too_long, mismatch = broken_rules(pa.array(["a", "bb", "bbb", None]), column)
    assert too_long.to_pylist() == [False, False, True, False]
    assert mismatch.to_pylist() == [False, True, False, False]


@pytest.mark.parametrize(("max_length", "longest"), [(None, 4096), (5000, 5000)])
def test_a_column_with_a_pattern_has_a_limit_of_length_of_its_own_or_a_default(
    max_length: int | None, longest: int
) -> None:
    column = SourceColumn(source="x", column="x", type="string", pattern="é*", max_length=max_length)
    texts = ["é" * longest, "é" * (longest + 1)]
    assert [broken_rule(column, text) for text in texts] == [None, "too_long"]
    assert [mask.to_pylist() for mask in broken_rules(pa.array(texts), column)] == [[False, True], [False, False]]


@pytest.mark.parametrize("rule", [{"allowed": ["Paris"]}, {"max_length": 3}, {"pattern": "[A-Z].*"}])
def test_a_default_that_breaks_the_columns_own_rule_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="the default 'unknown' breaks"):
        SourceColumn(source="City", column="city", type="string", default="unknown", **rule)


def test_an_allowed_value_that_another_rule_rejects_is_refused() -> None:
    with pytest.raises(ValidationError, match="the pattern does not match 'a1'"):
        SourceColumn(source="x", column="x", type="string", pattern="[a-z]", allowed=("a", "a1"))
    with pytest.raises(ValidationError, match="longer than max_length"):
        SourceColumn(source="x", column="x", type="string", max_length=1, allowed=("a", "a1"))
