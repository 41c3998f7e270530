"""Any contract and any record: every value is that of a slow, obvious reader, or both refuse the record."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.schema.checks import RecordChecks
from jobs.schema.record_parser import RecordParser
from jobs.schema.table import TableContract
from jobs.schema.types import ARROW_TYPES
from tests.helpers.examples import examples
from tests.helpers.reference_reader import Refused, read_row
from tests.helpers.samples import as_data

KINDS = st.recursive(
    st.sampled_from([*ARROW_TYPES, "decimal(10,2)", "decimal(38,38)", "decimal(5,0)"]),
    lambda inner: st.one_of(
        inner.map(lambda kind: f"array<{kind}>"),
        inner.map(lambda kind: f"map<string,{kind}>"),
        st.lists(inner, min_size=1, max_size=2).map(
            lambda kinds: f"struct<{','.join(f'{name}:{kind}' for name, kind in zip('ab', kinds, strict=False))}>"
        ),
    ),
    max_leaves=4,
)
PLACES = st.one_of(
    st.sampled_from("abx").map(lambda name: {"source": name}),
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3).map(lambda path: {"path": path}),
    st.tuples(st.sampled_from("ab"), st.integers(0, 1)).map(lambda path: {"path": list(path)}),
)
COLUMNS = st.lists(st.tuples(PLACES, KINDS, st.booleans()), min_size=1, max_size=4).map(
    lambda drawn: {
        f"c{number}": {**place, "type": kind, "required": required}
        for number, (place, kind, required) in enumerate(drawn)
    }
)
NUMBERS = st.one_of(st.integers(-(2**33), 2**33), st.sampled_from([0, 1, 2**31, 2**63, 10**30, -0.0, 446.0, 1.5]))
LEAVES = st.one_of(
    st.none(), st.booleans(), NUMBERS, NUMBERS.map(str), st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-1000, 1000, places=2).map(str), st.text(max_size=3),
    st.sampled_from(["", " ", "true", "2026-11-23", "2026-11-23T01:02:03.5+01:00", "aGk=", "aGk", "null", "[1]", "{}",
                     '{"a": 1.50}', '""', "1e400", "1e2", "-1.50", "0.005"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3), inner.map(json.dumps)
    ),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from("abx"), VALUES, max_size=3), min_size=1, max_size=6)


def contract_of(columns: dict[str, Any]) -> TableContract:
    folder = {"folder": {"type": "string"}}
    return TableContract.model_validate(
        {
            "version": 2,
            "name": "any",
            "columns": columns | folder,
            "partition_by": ["folder"],
            "stream_partition_key": ["folder"],
        }
    )


def rows(record: bytes, contract: TableContract) -> dict[str, Any] | None:
    try:
        return read_row(record, contract)
    except Refused:
        return None


def plain(value: Any) -> Any:
    """Arrow gives a map as a list of pairs."""
    if isinstance(value, list) and value and all(isinstance(each, tuple) for each in value):
        return {name: plain(each) for name, each in value}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return {name: plain(each) for name, each in value.items()} if isinstance(value, dict) else value


@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(COLUMNS, RECORDS)
def test_every_value_is_that_of_the_reference_reader_or_the_record_is_rejected(
    columns: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    contract = contract_of(columns)
    data = [json.dumps(record).encode() for record in records]
    parsed = RecordParser(contract).parse(as_data(data))
    parsed.columns.validate(full=True)
    checks = RecordChecks(contract)
    found = parsed.columns.to_pylist()
    for number, record in enumerate(data):
        expected = rows(record, contract)
        assert parsed.rejections.get(number) == checks.reject_bytes(record), record
        assert (number in parsed.rejections) == (expected is None), (record, expected, parsed.rejections)
        if expected is not None:
            for name, value in expected.items():
                assert plain(found[number][name]) == value or value == {}, (record, name)
