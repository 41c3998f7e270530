"""Any contract and any record: every value is that of a slow, obvious reader, or both refuse the record."""

from __future__ import annotations

import json
from itertools import chain, starmap
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.schema.checks import RecordChecks
from jobs.schema.privacy import Salt
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
ZONES = st.sampled_from([None, "America/Sao_Paulo", "Australia/Lord_Howe", "UTC"])
EPOCHS = st.sampled_from(["epoch_seconds", "epoch_millis", "epoch_micros"])
PATTERNS = st.sampled_from(["M/d/yyyy", "dd-MMM-yy", "yyyyMMdd", "yyyy-MM-dd HH:mm:ss", "M/d/yyyy h:mm a"])
TYPES = st.one_of(
    KINDS.map(lambda kind: {"type": kind}),
    st.builds(
        lambda form, zone: {"type": "timestamp", "format": form, "timezone": zone},
        st.one_of(EPOCHS, PATTERNS, st.sampled_from(["iso", "yyyy-MM-dd HH:mm:ss.SSS X"])), ZONES,
    ),
    st.builds(lambda form, zone: {"type": "date", "format": form, "timezone": zone}, EPOCHS, ZONES),
    PATTERNS.map(lambda form: {"type": "date", "format": form}),
    st.just({"type": "boolean", "true_values": ["Y", 1], "false_values": ["N", 0]}),
)  # fmt: skip
RULES = st.one_of(
    st.sampled_from(["int", "long", "double", "decimal(10,2)"]).map(lambda kind: {"type": kind, "min": 0, "max": 446}),
    st.sampled_from(["string", "int"]).map(
        lambda kind: {"type": kind, "allowed": ["a", "true"] if kind[0] == "s" else [0, 446]}
    ),
    st.sampled_from([{"type": "string", "max_length": 2}, {"type": "string", "pattern": "[a-z]+"}]),
)
CHECKED = st.one_of(st.tuples(TYPES, st.booleans()).map(lambda drawn: drawn[0] | {"required": drawn[1]}), RULES)
TRANSFORMS = {
    "timestamp": ["date", "hour", "month", "year"],
    "date": ["month", "year"],
    "string": ["lower", "truncate[2]"],
    "binary": ["truncate[1]"],
    **{kind: ["truncate[7]", "truncate[1000000]"] for kind in ("int", "long", "decimal(10,2)", "decimal(5,0)")},
}
ON_FAIL = st.sampled_from(["reject", None, "warn"])
COLUMNS = st.lists(st.tuples(PLACES, CHECKED, ON_FAIL, st.integers(0, 7), ZONES), min_size=1, max_size=4).map(
    lambda drawn: dict(chain.from_iterable(starmap(columns_of, enumerate(drawn))))
)


def columns_of(number: int, drawn: Any) -> list[tuple[str, dict[str, Any]]]:
    """A column, and one that is derived from it, if its type has transforms and the dice say so."""
    place, kind, on_fail, dice, zone = drawn
    reject = kind.get("required") and not on_fail
    column = (f"c{number}", place | kind | ({} if reject else {"on_fail": on_fail}))
    transforms = TRANSFORMS.get(kind["type"], [])
    if dice >= len(transforms):
        return [column]
    derived = {"from": f"c{number}", "transform": transforms[dice]}
    return [column, (f"d{number}", derived | ({"timezone": zone} if kind["type"] == "timestamp" and zone else {}))]


NUMBERS = st.one_of(st.integers(-(2**33), 2**33), st.sampled_from([0, 1, 2**31, 2**63, 10**30, -0.0, 446.0, 1.5]))
LEAVES = st.one_of(
    st.none(), st.booleans(), NUMBERS, NUMBERS.map(str), st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-1000, 1000, places=2).map(str), st.text(max_size=3),
    st.sampled_from(["", " ", "true", "2026-11-23", "2026-11-23T01:02:03.5+01:00", "aGk=", "aGk", "null", "[1]", "{}",
                     '{"a": 1.50}', '""', "1e400", "1e2", "-1.50", "0.005"]),
    st.sampled_from(["1/1/2018", "01/1/2018", "2/30/2018", "11/4/2018 12:30 AM", "2/17/2018 11:30 pm", "23-NOV-26",
                     "31-Apr-26", "01-jan-99", "20261123", 20261123, 20261123.0, "2018-11-04 00:30:00",
                     "2018-02-17 23:30:00", "2026-10-04 02:15:00", "2026-04-05 01:45:00.5 Z", "0001-01-01 00:00:00",
                     "9999-12-31 23:59:59", "2026-04-05 01:45:00.123 -0930", 1700000000, 1700000000.25, -1,
                     1700000000123, "1700000000.1234567",
                     "Y", "n", "N", 1.0, "2018-11-04T00:30:00", "2018-02-17T23:30:00.5"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3), inner.map(json.dumps)
    ),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from("abxpq"), VALUES, max_size=3), min_size=1, max_size=6)


def contract_of(columns: dict[str, Any]) -> TableContract:
    folder = {"folder": {"type": "string"}, "same": {"constant": "x"}}
    private = {"hashed": {"source": "p", "type": "string", "privacy": "sha256"}, "q": {"privacy": "drop"}}
    return TableContract.model_validate(
        {
            "version": 2,
            "name": "any",
            "columns": columns | folder | private,
            "partition_by": ["folder"],
            "stream_partition_key": ["folder"],
        }
    )


def rows(record: bytes, contract: TableContract) -> dict[str, Any] | None:
    try:
        return read_row(record, contract, "salt")
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
    parsed = RecordParser(contract, Salt("salt")).parse(as_data(data))
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
