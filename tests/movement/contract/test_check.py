"""A contract on a sample: what is rejected and why, and what the columns find in the records."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.schema.table import TableContract
from movement.cli.main import app
from movement.contract.check import SampleCheck, check_sample
from movement.contract.sample import read_files

COLUMNS: dict[str, Any] = {
    "event_id": {"type": "string", "required": True},
    "user_id": {"path": "user.id", "type": "long"},
    "total": {"type": "decimal(12,2)", "min": 0},
    "day": {"type": "date"},
}
RECORD = {"event_id": "a", "user": {"id": 1}, "total": "1.50", "day": "2026-11-23"}


def contract(**columns: dict[str, Any] | None) -> TableContract:
    changed = {name: keys for name, keys in (COLUMNS | columns).items() if keys is not None}
    return TableContract.model_validate(
        {
            "version": 2,
            "name": "clicks",
            "columns": changed,
            "partition_by": ["day"],
            "stream_partition_key": ["event_id"],
        }
    )


def json_lines(folder: Path, *records: Any) -> str:
    file = folder / "clicks.jsonl"
    file.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return str(file)


def checked(path: str, by: TableContract | None = None) -> SampleCheck:
    by = by or contract()
    return check_sample(by, read_files([path], by))


def test_values_that_failed_a_check_without_a_rejection_are_counted(tmp_path: Path) -> None:
    file = json_lines(tmp_path, RECORD, RECORD | {"total": -1}, RECORD | {"total": "x", "day": "2026"})
    by = contract(total={"type": "decimal(12,2)", "min": 0, "on_fail": None})
    found = checked(file, by)
    assert (found.accepted, found.nulled, found.warned) == (2, {"total.failed_check": 1}, {})


def test_every_row_is_accepted_or_counted_under_its_reason_with_its_place(tmp_path: Path) -> None:
    file = json_lines(tmp_path, RECORD, RECORD | {"total": 1.505}, "no JSON", "", {"total": 1}, RECORD | {"total": -1})
    found = checked(file)
    assert (found.rows, found.accepted, found.partitions) == (5, 1, 1)
    assert {reason: (one.count, one.where, one.field, one.value) for reason, one in found.rejected.items()} == {
        "wrong_type": (1, f"{file}, line 2", "total", "1.505"),
        "not_json": (1, f"{file}, line 3", None, None),
        "missing_field": (1, f"{file}, line 5", "event_id", None),
        "failed_check": (1, f"{file}, line 6", "total", "-1"),
    }


def test_csv_gzip_and_parquet_are_read_as_produce_reads_them(tmp_path: Path) -> None:
    flat = contract(user_id={"type": "long"})
    text = "event_id,user_id,total,day\na,1,1.50,2026-11-23\nb,2,1.505,2026-11-24\nc,3\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    rows = {"event_id": ["a", "b"], "user_id": [1, 2], "total": ["1.50", "1.505"], "day": ["2026-11-23", None]}
    pq.write_table(pa.table(rows), tmp_path / "c.parquet")
    found = checked(str(tmp_path), flat)
    assert (found.rows, found.accepted) == (8, 3)
    assert {reason: one.count for reason, one in found.rejected.items()} == {"wrong_type": 3, "malformed_row": 2}
    assert found.rejected["malformed_row"].where == f"{tmp_path}/a.csv, line 4"


def test_a_contract_of_gzip_records_is_tried_on_plain_files(tmp_path: Path) -> None:
    by = contract().model_copy(update={"encoding": "gzip"})
    found = checked(json_lines(tmp_path, RECORD, RECORD | {"total": -1}), by)
    assert (found.rows, found.accepted, list(found.rejected), found.warnings) == (2, 1, ["failed_check"], [])


def test_a_literal_source_that_looks_like_a_path_is_warned_about(tmp_path: Path) -> None:
    file = json_lines(tmp_path, RECORD)
    [warning] = checked(file, contract(user_id={"source": "user.id", "type": "long"})).warnings
    assert "columns.user_id" in warning
    assert "did you mean `path: user.id`?" in warning
    literal = json_lines(tmp_path, RECORD | {"user.id": 1})
    assert checked(literal, contract(user_id={"source": "user.id", "type": "long"})).warnings == []


def test_it_is_warned_about_also_if_all_records_are_rejected_for_it(tmp_path: Path) -> None:
    required = {"source": "user.id", "type": "long", "required": True}
    found = checked(json_lines(tmp_path, RECORD), contract(user_id=required))
    assert list(found.rejected) == ["missing_field"]
    assert "path: user.id" in found.warnings[0]


def test_a_column_that_nothing_fills_is_named_with_the_nearest_field(tmp_path: Path) -> None:
    file = json_lines(tmp_path, RECORD | {"eventDay": "2026-11-23", "note": None})
    by = contract(
        day={"source": "event_day", "type": "date"},
        note={"type": "string"},
        deep={"path": "user.x.y", "type": "string"},
    )
    found = checked(file, by)
    assert found.always_null == ["day", "note", "deep"]
    assert [warning.partition(":")[0] for warning in found.warnings] == ["columns.day", "columns.deep", "columns.note"]
    assert "did you mean 'eventDay'?" in found.warnings[0]


def test_fields_without_a_column_are_counted_at_their_place(tmp_path: Path) -> None:
    more = RECORD | {"user": {"id": 1, "age": 5}, "extra": 1}
    assert checked(json_lines(tmp_path, RECORD, more, more)).unnamed == {"user.age": 2, "extra": 2}


@pytest.mark.parametrize("good", [True, False])
def test_the_command_needs_no_aws_and_fails_if_a_record_is_rejected(tmp_path: Path, good: bool) -> None:
    result, file = tmp_path / "result.json", tmp_path / "contract.yaml"
    file.write_text(
        json.dumps(
            {
                "version": 2,
                "name": "clicks",
                "columns": COLUMNS,
                "partition_by": ["day"],
                "stream_partition_key": ["event_id"],
            }
        )
    )
    sample = json_lines(tmp_path, RECORD, RECORD if good else RECORD | {"total": -1})
    done = CliRunner().invoke(
        app, ["contract", "check", str(file), "--sample", sample, "--json", str(result), "--set", "database=shop"]
    )
    assert done.exit_code == (0 if good else 1), done.output
    found = json.loads(result.read_text())
    assert (found["rows"], found["rejected"]) == (2, 0 if good else 1)
    assert found["ddl"].startswith("CREATE EXTERNAL TABLE `shop`.`processed`")
