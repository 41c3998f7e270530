"""What changes between two contracts, and whether a lake with data takes it, as the job's start decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.schema.table import TableContract
from movement.cli.main import app
from movement.contract.diff import changes

COLUMNS: dict[str, Any] = {
    "id": {"type": "string", "required": True},
    "n": {"type": "int", "min": 0, "allowed": [1, 2, 3]},
    "user_id": {"path": "user.id", "type": "long"},
    "day": {"type": "date"},
    "city": {"type": "string", "max_length": 10},
}


def content(**columns: dict[str, Any] | None) -> dict[str, Any]:
    kept = {name: keys for name, keys in (COLUMNS | columns).items() if keys is not None}
    return {
        "version": 2,
        "name": "clicks",
        "columns": kept,
        "partition_by": ["day"],
        "stream_partition_key": ["id"],
    }


def contract(keys: dict[str, Any] | None = None, **columns: dict[str, Any] | None) -> TableContract:
    return TableContract.model_validate(content(**columns) | (keys or {}))


def said(new: TableContract, sink_format: str = "parquet") -> list[tuple[str, str, bool]]:
    return [(change.where, change.what, change.refused) for change in changes(contract(), new, sink_format)]


def test_the_same_contract_has_no_changes() -> None:
    assert said(contract()) == []


def test_a_new_column_and_a_wider_type_are_taken() -> None:
    new = contract(n=COLUMNS["n"] | {"type": "long"}, extra={"type": "double"})
    assert said(new) == [
        ("columns.n.type", "int becomes long", False),
        ("columns.extra", "new column of type double", False),
    ]


def test_a_delta_table_refuses_a_wider_type() -> None:
    [refusal, change] = said(contract(n=COLUMNS["n"] | {"type": "long"}), "delta")
    assert refusal == ("table processed", "column n is integer and cannot become long", True)
    assert change == ("columns.n.type", "int becomes long", False)


@pytest.mark.parametrize("sink_format", ["parquet", "delta"])
def test_a_column_removed_or_of_another_type_and_other_partitions_are_refused(sink_format: str) -> None:
    for new, what in (
        (contract(city=None), "city"),
        (contract(user_id={"path": "user.id", "type": "string"}), "cannot become string"),
        (contract({"partition_by": ["city"]}), "partition"),
    ):
        refused = [why for _, why, refused in said(new, sink_format) if refused]
        assert any(what in why for why in refused), (what, refused)


@pytest.mark.parametrize(
    ("column", "keys", "where", "what"),
    [
        ("id", {"required": False}, "columns.id.required", "loosened: true becomes false"),
        ("day", {"required": True}, "columns.day.required", "tightened: false becomes true"),
        ("n", {"min": 1}, "columns.n.min", "tightened: 0 becomes 1"),
        ("n", {"min": None}, "columns.n.min", "loosened: 0 becomes none"),
        ("n", {"max": 5}, "columns.n.max", "tightened: none becomes 5"),
        ("n", {"allowed": [1, 2]}, "columns.n.allowed", "tightened: [1, 2, 3] becomes [1, 2]"),
        ("n", {"allowed": [1, 2, 3, 4]}, "columns.n.allowed", "loosened: [1, 2, 3] becomes [1, 2, 3, 4]"),
        ("n", {"allowed": [1, 4]}, "columns.n.allowed", "[1, 2, 3] becomes [1, 4]"),
        ("city", {"max_length": 20}, "columns.city.max_length", "loosened: 10 becomes 20"),
        ("city", {"pattern": "[A-Z].*"}, "columns.city.pattern", "tightened: none becomes [A-Z].*"),
        ("city", {"default": "x"}, "columns.city.default", "none becomes x"),
        ("city", {"comment": "x"}, "columns.city.comment", "another comment"),
    ],
)
def test_a_rule_is_tightened_or_loosened_from_the_next_batch(
    column: str, keys: dict[str, Any], where: str, what: str
) -> None:
    assert said(contract(**{column: COLUMNS[column] | keys})) == [(where, what, False)]


def test_another_place_of_a_value_is_said() -> None:
    new = contract(user_id={"path": "user.uid", "type": "long"})
    assert said(new) == [("columns.user_id", "its value comes from 'user.uid', no longer from 'user.id'", False)]


def test_every_key_of_a_contract_that_differs_is_said() -> None:
    checks = [{"name": "in_order", "ascending": ["n", "user_id"]}]
    keys = {"comment": "x", "checks": checks, "sort_by": ["id"], "stream_partition_key": ["n"], "encoding": "gzip",
            "max_record_bytes": 9, "file_name": {"pattern": "(?P<city>.*)"},
            "gold": {"newest": {"kind": "latest", "key": ["id"]}}}  # fmt: skip
    assert {where for where, _, _ in said(contract(keys))} == set(keys)
    # Not with an encoding.
    redacted = contract({"raw": "redacted"}, secret={"privacy": "drop"})
    assert ("raw", "as_received becomes redacted", False) in said(redacted)
    unsaid = set(TableContract.model_fields) - set(keys) - {"raw"}
    assert unsaid == {"version", "name", "columns", "partition_by", "rescued_column"}, "a new key needs words"


@pytest.mark.parametrize(("removed", "code"), [(None, 1), (COLUMNS["city"], 0)])
def test_the_exit_code_says_whether_it_can_be_deployed(
    tmp_path: Path, removed: dict[str, Any] | None, code: int
) -> None:
    old, new, result = tmp_path / "old.yaml", tmp_path / "new.yaml", tmp_path / "result.json"
    old.write_text(json.dumps(content()))
    new.write_text(json.dumps(content(city=removed, more={"type": "int"})))
    done = CliRunner().invoke(app, ["contract", "diff", str(old), str(new), "--json", str(result)])
    assert done.exit_code == code, done.output
    assert "columns.more: new column of type int" in done.output
    assert json.loads(result.read_text())["refused"] == bool(code)
