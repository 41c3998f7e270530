"""A drafted contract accepts every record of its sample, keeps every value exactly, and says what the sample cannot."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.common.errors import TerminalError
from jobs.schema.record_parser import RecordParser
from movement.cli.main import app
from movement.contract.check import check_sample
from movement.contract.draft import Draft, contract_name, draft_contract
from movement.contract.sample import read_files
from tests.helpers.examples import examples
from tests.jobs.schema.test_any_contract import VALUES

NAMES = st.one_of(
    st.text(max_size=8).filter(lambda name: name.isprintable()),
    st.sampled_from(
        ["id", "userId", "User ID", "user_id", "on", "null", "hour", "batch", "rescued_data", "a.b", "#", ""]
    ),
)


def drafted(*records: Any) -> Draft:
    return draft_contract([json.dumps(record).encode() for record in records], "clicks", "clicks.jsonl")


def draft_of(documents: list[bytes]) -> Draft:
    try:
        return draft_contract(documents, "any", "any.jsonl")
    except TerminalError as error:
        assume("is a JSON object with fields" not in str(error))
        raise


def types(draft: Draft) -> dict[str, str]:
    return {column.column: column.type for column in draft.contract.record_columns}


def line_of(draft: Draft, column: str) -> str:
    return next(line for line in draft.text.splitlines() if line.strip().startswith(f"{column}:"))


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=12))
def test_the_draft_of_any_records_accepts_all_of_them(records: list[dict[str, Any]]) -> None:
    documents = [json.dumps(record).encode() for record in records]
    draft = draft_of(documents)
    assert RecordParser(draft.contract).parse(pa.array(documents, pa.binary())).rejections == {}


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.text(max_size=6), min_size=2, max_size=2), min_size=1, max_size=8))
def test_the_draft_of_any_texts_accepts_all_of_them(rows: list[list[str]]) -> None:
    documents = [json.dumps(dict(zip(("a", "b"), row, strict=True))).encode() for row in rows]
    draft = draft_of(documents)
    assert RecordParser(draft.contract).parse(pa.array(documents, pa.binary())).rejections == {}


def test_types_follow_from_all_values() -> None:
    draft = drafted(
        {
            "n": 1,
            "big": 10**9,
            "huge": 2**63,
            "x": 0.5,
            "flag": True,
            "day": "2026-11-23",
            "at": "2026-11-23T01:02:03Z",
        },
        {"n": 2, "big": 1, "huge": 1, "x": 1, "flag": False, "day": "2026-11-24", "at": "2026-11-23"},
    )
    assert types(draft) == {
        "n": "int", "big": "long", "huge": "decimal(23,0)", "x": "double", "flag": "boolean", "day": "date",
        "at": "timestamp",
    }  # fmt: skip


def test_a_number_that_a_double_would_change_is_a_decimal() -> None:
    document = b'{"id": "a", "x": 12345678901234567890.12}'
    assert types(draft_contract([document], "a", "a")) == {"id": "string", "x": "decimal(26,2)"}


def test_money_is_suggested_as_a_decimal() -> None:
    draft = draft_contract([b'{"id": "a", "fare": 12.50}', b'{"id": "b", "fare": 7.00}'], "a", "a")
    assert types(draft)["fare"] == "double"
    assert "decimal(10,2)" in line_of(draft, "fare")


def test_a_text_with_a_leading_zero_is_no_number() -> None:
    assert types(drafted({"zip": "01234", "n": "7"}, {"zip": "91234", "n": "8"})) == {"zip": "string", "n": "int"}


def test_a_text_is_a_number_only_if_the_sample_has_no_numbers_of_its_own() -> None:
    draft = drafted({"id": "7", "n": 7})
    assert types(draft) == {"id": "string", "n": "int"}
    assert "texts of type int" in line_of(draft, "id")


def test_times_in_other_formats_are_found_if_only_one_fits() -> None:
    draft = drafted(
        {"createdAt": 1763859723000, "phone": 1763859723000, "us": "11/23/2026", "at": "11/23/2026 1:02 PM",
         "short": "1-Nov-26", "both": "1/2/2026", "number": 5, "ts": 1763859723},
        {"createdAt": 1763859724000, "phone": 1763859724000, "us": "1/2/2026", "at": "1/2/2026 11:02 AM",
         "short": "23-nov-26", "both": "2/3/2026", "number": 6, "ts": 1763859724},
    )  # fmt: skip
    assert {column.column: (column.type, column.format) for column in draft.contract.record_columns} == {
        "created_at": ("timestamp", "epoch_millis"),
        "phone": ("long", None),
        "us": ("date", "M/d/yyyy"),
        "at": ("timestamp", "M/d/yyyy h:mm a"),
        "short": ("date", "d-MMM-yy"),
        "both": ("string", None),
        "number": ("int", None),
        "ts": ("timestamp", "epoch_seconds"),
    }
    assert "M/d/yyyy or d/M/yyyy" in line_of(draft, "both")
    assert "epoch_millis" in line_of(draft, "phone")


def test_a_few_values_that_keep_a_column_a_text_are_said() -> None:
    draft = drafted(
        *({"id": f"r{at}", "at": "2026-11-23 10:00:00" if at else "2026-02-30 10:00:00"} for at in range(50))
    )
    assert types(draft)["at"] == "string"
    assert "timestamp, but for 1 of 50 values: `on_fail: null`" in line_of(draft, "at")


def test_nested_values_are_structs_arrays_and_maps() -> None:
    draft = drafted(
        {"id": "a", "user": {"id": 1, "name": "x"}, "items": [{"sku": "a", "qty": 1}], "odd": {"a.b": 1}, "none": []},
        *({"id": "b", "labels": {f"l{at}": 1, f"m{at}": 2}} for at in range(20)),
    )
    assert types(draft) == {
        "id": "string",
        "user": "struct<id:int,name:string>",
        "items": "array<struct<sku:string,qty:int>>",
        "odd": "json",
        "none": "json",
        "labels": "map<string,int>",
    }


def test_only_what_is_never_null_is_required() -> None:
    draft = drafted({"a": "x", "b": "x", "c": "x", "d": None}, {"a": "y", "b": "", "c": None, "d": None})
    assert [column.column for column in draft.contract.columns if column.required] == ["a"]
    assert "null in 1 of 2" in line_of(draft, "b")
    assert "no value in the sample" in line_of(draft, "d")


def test_names_are_in_snake_case_and_none_is_used_twice() -> None:
    draft = drafted({"userId": "a", "User ID": "b", "batch": "c", "2020": "d", "Größe (cm)": "e", "HTTPStatus": "f"})
    assert {column.column: column.source for column in draft.contract.columns} == {
        "user_id": "userId", "user_id_2": "User ID", "record_batch": "batch", "field_2020": "2020",
        "grosse_cm": "Größe (cm)", "http_status": "HTTPStatus",
    }  # fmt: skip
    assert contract_name("exports/My Clicks-2026.jsonl.gz") == "my_clicks_2026"


def test_partitions_and_keys_are_what_the_values_allow() -> None:
    draft = drafted(*({"id": f"r{at}", "kind": "ab"[at % 2], "x": at / 7, "day": f"2026-11-{at // 20 + 1:02}"}
                      for at in range(100)))  # fmt: skip
    assert draft.contract.partition_by == ("day",)
    assert "# Other candidates, with their number of values: kind (2)" in draft.text
    assert draft.contract.stream_partition_key == ("id",)
    assert "a gold table can have it as its key: id" in draft.text


@pytest.mark.parametrize(
    ("record", "partition", "of"),
    [
        ({"x": 0.5, "at": "2026-11-23T01:02:03Z", "kind": "a"}, "at_date", "at"),
        ({"x": 0.5, "at_date": 0.5, "at": "2026-11-23T01:02:03Z"}, "at_date_2", "at"),
        ({"x": 0.5, "kind": "a"}, "kind", None),
        ({"x": 0.5, "kind": "a\u001f"}, "arrival_date", "arrived"),
        ({"x": 0.5}, "arrival_date", "arrived"),
    ],
)
def test_a_sample_without_dates_is_partitioned_by_the_date_of_a_time_or_by_few_values_or_by_the_arrival(
    record: dict[str, Any], partition: str, of: str | None
) -> None:
    draft = drafted(record, record)
    assert draft.contract.partition_by == (partition,)
    [column] = [column for column in draft.contract.columns if column.column == partition]
    assert column.from_ == of


def test_what_is_no_record_is_counted_and_not_drafted() -> None:
    draft = draft_contract([b'{"a": "x"}', b"no JSON", b"[1]"], "a", "a")
    assert [why.reason for why in draft.unreadable] == ["not_json", "not_an_object"]
    assert draft.records == 1
    with pytest.raises(TerminalError, match="no record of 1 is a JSON object"):
        draft_contract([b"[1]"], "a", "a")


def test_records_of_gzip_are_drafted_by_their_text() -> None:
    records = [gzip.compress(b'{"id": "a"}'), gzip.compress(b'{"id": "b"}'), gzip.compress(b"x" * 99)[:-9]]
    draft = draft_contract(records, "logs", "stream logs")
    assert draft.contract.encoding == "gzip"
    assert types(draft) == {"id": "string"}
    assert [why.reason for why in draft.unreadable] == ["not_gzip"]


def test_the_command_writes_a_contract_that_check_accepts(tmp_path: Path) -> None:
    sample, file, result = tmp_path / "My trips.csv", tmp_path / "trips.yaml", tmp_path / "result.json"
    sample.write_text("VendorID,pickup day,fare\n1,2026-11-23,12.50\n2,2026-11-24,\n")
    done = CliRunner().invoke(app, ["contract", "init", str(sample), "--output", str(file), "--json", str(result)])
    assert done.exit_code == 0, done.output
    assert json.loads(result.read_text())["columns"] == {"vendor_id": "int", "pickup_day": "date", "fare": "double"}
    checked = CliRunner().invoke(app, ["contract", "check", str(file), "--sample", str(sample)])
    assert checked.exit_code == 0, checked.output
    assert file.read_text().startswith("# Drafted from 2 records of ")


def test_a_contract_is_not_overwritten_without_being_asked(tmp_path: Path) -> None:
    sample, file = tmp_path / "a.jsonl", tmp_path / "a.yaml"
    sample.write_text('{"a": "x"}\n')
    file.write_text("mine")
    command = ["contract", "init", str(sample), "--output", str(file)]
    refused = CliRunner().invoke(app, command)
    assert "--force" in str(refused.exception)
    assert file.read_text() == "mine"
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0
    assert file.read_text() != "mine"


def test_the_draft_of_a_file_accepts_the_file(tmp_path: Path) -> None:
    sample = tmp_path / "a.jsonl"
    sample.write_text('{"a": "x", "b": {"c": 1}}\n\n{"a": "y", "b": {"d": [1.5]}}\n')
    draft = draft_contract([one for part in read_files([str(sample)], None) for one in part.records], "a", "a")
    found = check_sample(draft.contract, read_files([str(sample)], draft.contract))
    assert (found.rows, found.accepted, found.warnings, found.unnamed) == (2, 2, [], {})
