"""Version 2 of the contract: nested values, exact decimals and metadata, from the record to Parquet, Glue and Delta."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.catalog.tables import _glue_columns, delta_table, lake_tables
from jobs.schema.checks import RecordChecks
from jobs.schema.columns import Parse, SourceColumn
from jobs.schema.contract_upgrade import upgraded
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract, contract_of
from jobs.schema.types import ARROW_TYPES
from jobs.settings.config_files import SHIPPED, parse_yaml
from jobs.settings.sections import SinkSettings
from jobs.stream.delta_commits import table_schema
from jobs.write.task import WriteTask
from producer.api_docs import post_documentation
from producer.json_encoder import JsonEncoder
from producer.json_reader import JsonChunk
from producer.record_encoder import PutRecordsEntry, RecordEncoder
from tests.helpers.paths import ROOT
from tests.helpers.samples import READINGS_YAML, arrived, as_data, mistake_in_column

CLICKS_YAML = """
version: 2
name: clicks
columns:
  event_id: {type: string, required: true}
  user_id: {path: user.id, type: long}
  odd: {path: [odd.key, 0], type: string}
  city: {source: City, type: string, default: unknown}
  items: {path: cart.items, type: "array<struct<sku:string,qty:int,price:decimal(10,2)>>"}
  tags: {type: "map<string,string>"}
  total: {type: "decimal(12,2)", min: 0, max: 1000}
  payload: {type: json}
  picture: {type: binary}
  score: {type: float}
  day: {type: date}
  day_text: {source: day, type: string}
  arrived: {metadata: arrival_time}
  shard: {metadata: shard_id, type: string}
partition_by: [day]
sort_by: [event_id]
stream_partition_key: [user_id, City]
"""
# The same columns without the array's index, so that msgspec decodes the records.
CLICKS = contract_of(parse_yaml(CLICKS_YAML, Path("clicks.yaml")), Path("clicks.yaml"))
NATIVE = contract_of(
    parse_yaml(CLICKS_YAML.replace("  odd: {path: [odd.key, 0], type: string}\n", ""), Path("c")), Path("c")
)
CLICK: dict[str, Any] = {
    "event_id": "e1",
    "user": {"id": 7},
    "odd.key": ["x"],
    "City": "Paris",
    "cart": {"items": [{"sku": "a", "qty": 2, "price": 1.50}, {"sku": "b"}, None]},
    "tags": {"k": "v", "n": None},
    "total": 12.10,
    "payload": {"a": [1, 2.50]},
    "picture": "aGk=",
    "score": 0.5,
    "day": "2026-11-23",
}
ROW = {
    "event_id": "e1",
    "user_id": 7,
    "odd": "x",
    "city": "Paris",
    "items": [
        {"sku": "a", "qty": 2, "price": Decimal("1.50")},
        {"sku": "b", "qty": None, "price": None},
        None,
    ],
    "tags": [("k", "v"), ("n", None)],
    "total": Decimal("12.10"),
    "payload": '{"a":[1,2.5]}',
    "picture": b"hi",
    "score": 0.5,
    "day": date(2026, 11, 23),
    "day_text": "2026-11-23",
    "rescued_data": None,
}


def row_of(record: Any, contract: TableContract = CLICKS) -> dict[str, Any]:
    parsed = RecordParser(contract).parse(as_data([json.dumps(record).encode()]))
    assert parsed.rejections == {}
    return dict(parsed.columns.to_pylist()[0])


def rescued(record: Any, contract: TableContract = CLICKS) -> Any:
    return json.loads(row_of(record, contract)["rescued_data"] or "null")


@pytest.mark.parametrize("contract", [CLICKS, NATIVE], ids=["by one", "native"])
def test_nested_values_become_typed_columns(contract: TableContract) -> None:
    found = row_of({name: value for name, value in CLICK.items() if name != "odd.key" or contract is CLICKS}, contract)
    assert found == {name: value for name, value in ROW.items() if name != "odd" or contract is CLICKS}


def test_usual_nested_records_are_decoded_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_by_one(*_: Any) -> Any:
        raise AssertionError("read one by one")

    monkeypatch.setattr("jobs.schema.record_parser.read_object", one_by_one)
    row_of({name: value for name, value in CLICK.items() if name != "odd.key"}, NATIVE)


@pytest.mark.parametrize("contract", [CLICKS, NATIVE], ids=["by one", "native"])
@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"user": {"id": 7, "age": 5}}, {"user": {"age": 5}}),
        ({"user": {"age": 5}}, {"user": {"age": 5}}),
        ({"user": "anonymous"}, {"user": "anonymous"}),
        ({"user": [7]}, {"user": [7]}),
        ({"user": None}, None),
        ({"user": {}}, None),
        ({"cart": {"items": [], "coupon": 1.50}}, {"cart": {"coupon": 1.5}}),
        # What an array's item has beyond its type is shown where it is.
        ({"cart": {"items": [{"sku": "a", "gift": True}]}}, {"cart": {"items": [{"sku": "a", "gift": True}]}}),
        ({"tags": {"any": "key"}, "payload": {"any": "key"}}, None),
        ({"event": 1}, {"event": 1}),
    ],
)
def test_what_no_column_names_is_rescued_at_its_place(
    contract: TableContract, changes: dict[str, Any], left: Any
) -> None:
    record = CLICK | changes
    if contract is NATIVE:
        del record["odd.key"]
    assert rescued(record, contract) == left


def test_an_array_with_an_unnamed_element_is_rescued_as_a_whole() -> None:
    assert rescued(CLICK | {"odd.key": ["x", "y"]}) == {"odd.key": ["x", "y"]}
    assert rescued(CLICK | {"odd.key": ["x", None]}) == {"odd.key": ["x", None]}


def test_a_text_may_hold_the_json_of_a_nested_value() -> None:
    texts = {name: json.dumps(CLICK[name]) for name in ("tags", "payload")}
    assert row_of(CLICK | texts) == ROW | {"payload": texts["payload"]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"total": "12.105"}, Rejection("wrong_type", "total", "12.105")),
        ({"total": 10**11}, Rejection("wrong_type", "total", "100000000000")),
        ({"total": "-0.01"}, Rejection("failed_check", "total", "-0.01")),
        ({"total": "1000.01"}, Rejection("failed_check", "total", "1000.01")),
        ({"score": 1e39}, Rejection("wrong_type", "score", "1e+39")),
        ({"picture": "a"}, Rejection("wrong_type", "picture", "a")),
        ({"payload": "not JSON"}, Rejection("wrong_type", "payload", "not JSON")),
        ({"user": {"id": "x"}}, Rejection("wrong_type", "user.id", "x")),
        ({"tags": ["k"]}, Rejection("wrong_type", "tags", '["k"]')),
        ({"tags": "null"}, Rejection("wrong_type", "tags", "null")),
        ({"cart": {"items": [{"qty": 1.5}]}}, Rejection("wrong_type", "cart.items", '[{"qty":1.5}]')),
        ({"cart": {"items": [1]}}, Rejection("wrong_type", "cart.items", "[1]")),
        ({"day": "1/2/2026"}, Rejection("wrong_type", "day", "1/2/2026")),
    ],
)
def test_a_nested_record_is_rejected_by_its_path(changes: dict[str, Any], expected: Rejection) -> None:
    data = json.dumps(CLICK | changes).encode()
    assert RecordParser(CLICKS).reject(data) == expected
    assert RecordChecks(CLICKS).reject_bytes(data) == expected


def test_a_batch_writes_nested_values_and_metadata_as_parquet(tmp_path: Path) -> None:
    task = WriteTask(str(tmp_path), "q-0", CLICKS, SinkSettings())
    records = [json.dumps(CLICK | {"event_id": f"e{number}"}).encode() for number in (2, 1)]
    report = task.write(iter([arrived(records)]), "q-0-00000")
    written = next(file for file in report.files if file.kind == "processed")
    file = pq.ParquetFile(tmp_path / written.path)
    rows = file.read().to_pylist()
    assert [row["event_id"] for row in rows] == ["e1", "e2"]
    expected = {name: value for name, value in ROW.items() if name != "day"}
    assert {name: rows[0][name] for name in expected} == expected
    assert (rows[0]["arrived"], rows[0]["shard"]) == (datetime(2026, 11, 23, 10, 30, tzinfo=UTC), rows[0]["shard_id"])


def test_glue_and_delta_have_the_nested_types() -> None:
    raw, processed, _ = lake_tables(CLICKS)
    kinds = {column["Name"]: column["Type"] for column in _glue_columns(processed.columns)}
    assert kinds["items"] == "array<struct<sku:string,qty:int,price:decimal(10,2)>>"
    assert (kinds["user_id"], kinds["payload"], kinds["picture"]) == ("bigint", "string", "binary")
    assert (kinds["arrived"], kinds["shard"]) == ("timestamp", "string")
    assert [name for name, _, _ in raw.columns] == [
        "event_id", "user", "odd_key", "city", "cart", "tags", "total", "payload", "picture", "score", "day",
    ]  # fmt: skip
    assert raw.storage["SerdeInfo"]["Parameters"]["mapping.odd_key"] == "odd.key"
    delta = delta_table("processed", "processed", "", processed.columns)
    schema = json.loads(delta.parameters["spark.sql.sources.schema"])
    items = next(field["type"] for field in schema["fields"] if field["name"] == "items")
    assert items["elementType"]["fields"][2]["type"] == "decimal(10,2)"
    log = {field["name"]: field["type"] for field in json.loads(table_schema(CLICKS).to_json())["fields"]}
    assert log["items"] == items
    assert (log["tags"]["valueType"], log["score"], log["payload"]) == ("string", "float", "string")


def test_the_partition_key_takes_nested_values_by_column_or_by_field() -> None:
    entry = RecordEncoder(CLICKS, 1_000_000).encode(CLICK)
    assert isinstance(entry, PutRecordsEntry)
    assert entry.PartitionKey == "7|Paris"


def test_the_api_documents_nested_fields() -> None:
    found = post_documentation(CLICKS, False, 10)["openapi_extra"]["requestBody"]["content"]["application/json"]
    record = found["schema"]["oneOf"][0]
    assert record["required"] == ["event_id"]
    assert record["properties"]["user"]["properties"]["id"]["type"] == ["integer", "string", "null"]
    assert record["properties"]["tags"]["type"] == ["object", "string", "null"]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{path: a.b, source: a, type: int}", "a value has one origin, not source and path"),
        ("{path: a..b, type: int}", "path: no name is empty"),
        ("{path: [0], type: int}", "path: a record is an object"),
        ("{metadata: arrival_time, type: date}", "metadata arrival_time has the type timestamp, not date"),
        ("{metadata: shard, type: string}", "input should be 'arrival_time', 'shard_id'"),
        ("{metadata: shard_id, required: true}", "is not checked"),
        ("{type: bigint}", "unknown type 'bigint'; did you mean long?"),
        ("{type: bool}", "did you mean boolean?"),
        ("{type: timestamptz}", "did you mean timestamp?"),
        ("{type: decimal}", "did you mean decimal(10,2)?"),
        ("{type: 'array<strin>'}", "did you mean string?"),
        ("{type: 'map<int,int>'}", "the keys of a JSON object are strings"),
        ("{type: 'struct<a:int,A:int>'}", "a field is named twice"),
        ("{type: 'decimal(40,2)'}", "1 to 38 digits"),
        ("{column: b, type: int}", "the key is the column's name"),
        ("", "columns.x.type: is missing"),
    ],
)
def test_a_mistake_is_named_with_its_column_and_line(tmp_path: Path, entry: str, told: str) -> None:
    error = mistake_in_column(tmp_path, entry)
    assert "columns.x" in error
    assert told in error
    assert "line 5: " in error or "column: " in entry or "{column" in entry


def test_the_upgrade_keeps_the_table_and_the_comments(tmp_path: Path) -> None:
    text = READINGS_YAML.replace("columns:\n", "columns:\n  # The sensor's own name.\n")
    new = upgraded(text, tmp_path)
    assert "# The sensor's own name.\n  sensor: {source: sensor, type: string, required: true}\n" in new
    assert "  place:\n    source: place\n    type: string\n    parse:\n" in new
    before, after = (contract_of(parse_yaml(one, tmp_path), tmp_path) for one in (text, new))
    assert before == after
    assert upgraded(new, tmp_path) == new


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("- source: A b\n  column: a\n  type: string\n", "  a:\n    source: A b\n    type: string\n"),
        ("  - column: a\n    source: A b\n    type: string\n", "  a:\n    source: A b\n    type: string\n"),
        ("  - {source: A b, type: string, column: a}\n", "  a: {source: A b, type: string}\n"),
        ("  -   type: string\n      source: A b\n      column: a\n", "  a:\n      type: string\n      source: A b\n"),
    ],
)
def test_every_usual_layout_is_upgraded(tmp_path: Path, columns: str, expected: str) -> None:
    text = f"version: 1\nname: t\ncolumns:\n{columns}partition_by: [a]\nstream_partition_key: [A b]\n"
    new = upgraded(text, tmp_path)
    assert new == text.replace("version: 1", "version: 2").replace(columns, expected)


def test_the_shipped_contract_is_version_2() -> None:
    assert parse_yaml((SHIPPED / "travel_times.yaml").read_text(), Path("x"))["version"] == 2


def test_arrow_types_survive_parquet(tmp_path: Path) -> None:
    schema = RecordParser(CLICKS).schema
    pq.write_table(pa.Table.from_pylist([], schema=schema), tmp_path / "t.parquet")
    assert pq.read_schema(tmp_path / "t.parquet").equals(schema)


def test_the_reference_shows_a_valid_contract_and_names_every_key_and_type() -> None:
    text = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    shown = contract_of(parse_yaml(text.split("```yaml\n")[1].split("```")[0], Path("docs/contract.md")), Path("doc"))
    assert shown.name == "clicks"
    keys = {*SourceColumn.fields_by_key(), *TableContract.fields_by_key(), *Parse.fields_by_key(), *ARROW_TYPES}
    assert [key for key in sorted(keys - {"column", "version", "columns"}) if f"`{key}`" not in text] == []


def test_a_json_file_and_a_posted_record_get_the_same_nested_key() -> None:
    document = json.dumps(CLICK).encode()
    chunk = JsonEncoder(CLICKS, {}, 1_000_000).encode(JsonChunk(0, None, 0, [document]))
    assert (list(chunk.keys), chunk.overrides) == (["7|Paris"], {})


def test_the_upgrade_writes_down_that_the_city_is_in_the_file_name(tmp_path: Path) -> None:
    column = "  - {source: City, column: city, type: string}\n"
    text = f"version: 1\nname: t\ncolumns:\n{column}partition_by: [city]\nstream_partition_key: [City]\n"
    new = upgraded(text, tmp_path)
    assert "\nfile_name:\n  pattern: " in new
    before, after = (contract_of(parse_yaml(one, tmp_path), tmp_path) for one in (text, new))
    assert before == after


def test_a_field_may_have_a_quote_or_a_control_character_in_its_name() -> None:
    contract = TableContract.model_validate(
        {
            "version": 2,
            "name": "odd",
            "columns": {"a": {"source": 'a "quoted" \\ name\t', "type": "int"}, "b": {"type": "string"}},
            "partition_by": ["b"],
            "stream_partition_key": ["b"],
        }
    )
    record = {'a "quoted" \\ name\t': 1, "b": "x"}
    parsed = RecordParser(contract).parse(as_data([json.dumps(record).encode()]))
    assert parsed.columns.to_pylist() == [{"a": 1, "b": "x", "rescued_data": None}]
