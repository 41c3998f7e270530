"""The contract's section `gold:`: what is refused, in words that name the key, and what the tables are."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from jobs.gold.tables import gold_tables
from jobs.schema.gold_section import AggregateTable, HistoryTable, LatestTable, Measure, ZonesTable
from jobs.schema.table import TableContract
from jobs.settings.validation import explain
from tests.helpers.clicks import CLICKS_YAML
from tests.helpers.paths import ROOT
from tests.helpers.samples import TRAVEL_TIMES

MODELS = (LatestTable, HistoryTable, AggregateTable, ZonesTable, Measure)
PER_DAY = {"kind": "aggregate", "group_by": ["day"]}


def contract(gold: Any) -> TableContract:
    return TableContract.model_validate(yaml.safe_load(CLICKS_YAML) | {"gold": gold})


def measures(**found: Any) -> dict[str, Any]:
    return {"t": {**PER_DAY, "measures": found}}


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ({}, "gold: names no table"),
        ({"t": {"key": ["user"]}}, "gold.t: a gold table has a kind: latest, history, aggregate, zones"),
        ({"t": {"kind": "lastest"}}, "gold.t: unknown kind 'lastest'; did you mean 'latest'?"),
        ({"t": {"kind": "latest", "kee": ["user"]}}, "gold.t: unknown key 'kee'; did you mean 'key'?"),
        ({"t": {"kind": "latest"}}, "gold.t.key: is missing"),
        ({"t": {"kind": "latest", "key": ["usr"]}}, "gold.t.key: no column is named 'usr'; did you mean 'user'?"),
        ({"t": {"kind": "latest", "key": ["seconds"]}}, "gold.t.key: 'seconds' is of type double; allowed: int, long"),
        ({"t": {"kind": "latest", "key": ["user", "user"]}}, "gold.t.key: a column is named more than once"),
        ({"t": {"kind": "latest", "key": ["user"], "order_by": "att"}}, "gold.t.order_by: no column is named 'att'"),
        ({"t": {"kind": "history", "columns": ["user"], "sort_by": ["day"]}},
         "gold.t.sort_by: no column is named 'day'"),
        ({"t": {"kind": "history", "comments": {"usr": ""}}}, "gold.t.comments: no column is named 'usr'"),
        ({"processed": {"kind": "history"}}, "gold.processed: not a table's name"),
        ({"t_manifest": {"kind": "history"}}, "gold.t_manifest: not a table's name"),
        ({"t": {**PER_DAY, "measures": {}}}, "gold.t: measures: an aggregate has at least one"),
        ({"t": {**PER_DAY, "from": "u", "measures": {"n": {"count": "*"}}}},
         "gold.t.from: 'u' is no table of kind latest"),
        (measures(n={}), "gold.t.measures.n: a measure has one of count, sum"),
        (measures(n={"count": "*", "sum": "cents"}), "found count and sum"),
        (measures(n={"summ": "cents"}), "gold.t.measures.n: unknown key 'summ'; did you mean 'sum'?"),
        (measures(n={"sum": "*"}), "'*' is for count"),
        (measures(n={"sum": "country"}), "gold.t.measures.n: 'country' is of type string; allowed: int"),
        (measures(n={"sum": "cents + centz"}), "gold.t.measures.n: no column is named 'centz'; did you mean 'cents'?"),
        (measures(n={"sum": "abs(cents)"}),
         "gold.t.measures.n: 'abs(cents)': 'abs(cents)' is not part of an expression"),
        (measures(n={"min": "cents + 1"}), "min is of a column, not of an expression"),
        (measures(n={"percentile": "cents"}), "a percentile needs `at`"),
        (measures(n={"percentile": "cents", "at": 1.5}),
         "gold.t.measures.n.at: input should be less than or equal to 1"),
        (measures(n={"percentile": "cents", "at": 0.5}), "gold.t.measures.n: a percentile of processed rows cannot"),
        (measures(day={"count": "*"}), "gold.t.measures: the column 'day' would be there twice"),
        (measures(n={"avg": "cents"}, n_sum={"sum": "cents"}), "the column 'n_sum' would be there twice"),
        ({"u": {"kind": "latest", "key": ["user"]}, "t": {**PER_DAY, "from": "u", "measures": {
            "n": {"count": "*", "from": "processed"}}}},
         "gold.t.measures.n.from: 'processed' needs a group_by of columns of u.key"),
        ({"h": {"kind": "history", "columns": ["user"]}, "t": {**PER_DAY, "from": "h", "measures": {
            "n": {"count": "*"}}}}, "gold.t.group_by: no column is named 'day'"),
        ({"z": {"kind": "zones", "ends": [{"id": "user", "name": "user", "geometry": "cents"}]}},
         "gold.z.ends.0: 'cents' is of type long; allowed: string"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key(gold: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        contract(gold)
    assert said in explain(caught.value, TableContract, lambda _key: "clicks.yaml")


def test_a_contract_may_have_no_gold_and_survives_a_dump() -> None:
    assert contract(None).gold is None
    for each in (contract(yaml.safe_load(CLICKS_YAML)["gold"]), TRAVEL_TIMES):
        assert TableContract.model_validate(each.model_dump(mode="json")) == each


def test_tables_have_key_order_and_origin_also_where_they_are_not_listed() -> None:
    origin = ["shard_id", "sequence_number", "arrival_time", "batch"]
    (found,) = gold_tables(contract({"t": {"kind": "latest", "key": ["user"], "order_by": "at", "columns": ["cents"]}}))
    assert list(found.types) == ["user", "at", "cents", *origin]
    (found,) = gold_tables(contract({"t": {"kind": "history"}}))
    assert list(found.types) == [
        "user", "day", "country", "at", "cents", "pieces", "seconds", "rescued_data", *origin
    ]  # fmt: skip


def test_measures_have_types_that_hold_their_values() -> None:
    found = {table.name: table.types for table in gold_tables(contract(yaml.safe_load(CLICKS_YAML)["gold"]))}
    assert found["per_day"] == {
        "day": "date", "country": "string", "rows": "bigint", "priced": "bigint", "total": "bigint", "mean": "double",
        "mean_sum": "decimal(38,0)", "mean_count": "bigint", "least": "bigint", "newest": "timestamp",
        "piece": "double", "piece_sum": "double", "piece_count": "bigint", "time": "double",
    }  # fmt: skip


def test_travel_times_have_the_tables_that_they_had_before_the_section() -> None:
    origin = "shard_id, sequence_number, arrival_time, batch"
    corridor = (
        "city, origin_movement_id, destination_movement_id, date_range, start_date, end_date, day_filter, time_filter, "
        "origin_display_name, destination_display_name, mean_travel_time_seconds, lower_bound_travel_time_seconds, "
        f"upper_bound_travel_time_seconds, {origin}"
    )
    tables = {table.name: table for table in gold_tables(TRAVEL_TIMES)}
    assert {name: ", ".join(table.types) for name, table in tables.items()} == {
        "corridors": corridor,
        "corridor_history": corridor,
        "city_summary": "city, date_range, start_date, end_date, rows, corridors, mean_travel_time_seconds, "
        "median_travel_time_seconds, p90_travel_time_seconds, reliability",
        "zones": f"city, movement_id, display_name, geometry, centroid_longitude, centroid_latitude, {origin}",
    }
    assert [table.key for table in tables.values()] == [
        ("city", "origin_movement_id", "destination_movement_id", "date_range"), (), ("city", "date_range"),
        ("city", "movement_id"),
    ]  # fmt: skip
    assert tables["city_summary"].types["start_date"] == "date"
    assert ("date_range", "string", "The period as exported") in tables["corridors"].columns


def test_the_example_and_the_table_of_keys_in_the_docs_are_right() -> None:
    text = (ROOT / "docs" / "gold.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    found = contract(example["gold"]).gold or {}
    assert {table.kind for table in found.values()} == {"latest", "history", "aggregate"}
    keys = {key for model in MODELS for key in model.fields_by_key()} - {"kind", "id", "name", "geometry"}
    assert [key for key in sorted(keys) if f"`{key}" not in text] == []
