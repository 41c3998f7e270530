"""Checks of whole columns: every bad record is a suspect, and plain good records are not."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.schema.checks import RecordChecks
from jobs.schema.column_checks import TextColumnChecks
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from tests.helpers.examples import examples

FIELDS = ["place", "low", "high", "span", "note"]
CONTRACT = TableContract.model_validate(
    {
        "version": 1,
        "name": "spans",
        "columns": [
            {"source": "place", "column": "place", "type": "string", "required": True},
            {"source": "low", "column": "low", "type": "long", "required": True, "min": -3, "max": 2.5e18},
            {"source": "high", "column": "high", "type": "int", "max": 2.5},
            {
                "source": "span",
                "column": "span",
                "type": "string",
                "parse": {
                    "pattern": r"(\d)-(\d)",
                    "into": [{"column": "start", "type": "int"}, {"column": "end", "type": "int"}],
                },
            },
            {"source": "note", "column": "note", "type": "string"},
        ],
        "checks": [
            {"name": "bounds_in_order", "ascending": ["low", "high"]},
            {"name": "span_in_order", "ascending": ["start", "end"]},
        ],
        "partition_by": ["place"],
        "stream_partition_key": ["place"],
    }
)
CHECKS = RecordChecks(CONTRACT)

NINES = [digits + fraction for digits in ("9" * 18, "9" * 19) for fraction in ("", ".0")]
numbers = st.sampled_from(
    ["", "-3", "-4", "0", "1", "2", "3", "+1", " 1", "1.0", "2.00", "3.0", "1.5", "2e0", "x", *NINES]
)
rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "", "\x00", "x" * 300, "__HIVE_DEFAULT_PARTITION__"]),
        numbers,
        numbers,
        st.sampled_from(["1-2", "2-1", "1-1", "", "1-", "1-2 "]),
        st.text(max_size=3),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=examples(300), deadline=None)
@given(rows=rows, left_out=st.sets(st.sampled_from(FIELDS[2:])))
def test_a_row_that_is_no_suspect_passes_the_checks(rows: list[tuple[str, ...]], left_out: set[str]) -> None:
    fields = [field for field in FIELDS if field not in left_out]
    records = [{field: row[FIELDS.index(field)] for field in fields} for row in rows]
    checks = TextColumnChecks(CHECKS, {field: index for index, field in enumerate(fields)})
    columns = [pa.array([record[field] for record in records], pa.string()) for field in fields]
    for _ in range(2):  # the second time with the texts that the first has seen
        suspects = checks.suspects(columns)
        for record, suspect in zip(records, [False] * len(records) if suspects is None else suspects, strict=True):
            assert suspect or CHECKS.reject(record) is None


@pytest.mark.parametrize("fraction", ["", ".0"], ids=["digits", "pandas"])
def test_plain_good_rows_are_no_suspects(fraction: str) -> None:
    checks = TextColumnChecks(CHECKS, {field: index for index, field in enumerate(FIELDS)})
    good = [["a", "b"], ["0" + fraction, "1" + fraction], ["1" + fraction, "2"], ["1-2", "1-1"], ["", "n"]]
    assert checks.suspects([pa.array(column, pa.string()) for column in good]) is None


def test_a_contract_with_other_types_makes_every_row_a_suspect() -> None:
    columns = [*CONTRACT.model_dump()["columns"], {"source": "at", "column": "at", "type": "timestamp"}]
    contract = TableContract.model_validate(CONTRACT.model_dump() | {"columns": columns})
    fields = [*FIELDS, "at"]
    checks = TextColumnChecks(RecordChecks(contract), {field: index for index, field in enumerate(fields)})
    row = ["a", "0", "1", "1-2", "", "2026-11-23"]
    suspects = checks.suspects([pa.array([value], pa.string()) for value in row])
    assert suspects is not None
    assert suspects.to_pylist() == [True]


@pytest.mark.parametrize(
    ("low", "why"),
    [
        (2**53 + 1, None),
        (5 * 10**17 * 5, None),
        (5 * 10**17 * 5 + 1, "failed_check"),
        (2**63 - 1, "failed_check"),
        (-(2**53) - 1, "failed_check"),
        (-(2**63), "failed_check"),
        (-4, "failed_check"),
        (-3, None),
    ],
)
def test_a_number_that_no_float_holds_is_compared_with_the_bounds(low: int, why: str | None) -> None:
    found = RecordParser(CONTRACT).reject(json.dumps({"place": "a", "low": low}).encode())
    assert found == (None if why is None else Rejection(why, "low", str(low)))
