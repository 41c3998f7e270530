"""What decided a table's rows is stored with them, and a contract that says something else stops the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake

from jobs.common.errors import ConfigurationError
from jobs.gold.definitions import check_definitions, delete_table, store_definition
from jobs.gold.tables import GoldTable, gold_tables
from jobs.lake.delta import open_delta
from jobs.lake.store import lake_at
from jobs.schema.table import TableContract
from tests.helpers.clicks import CLICKS_YAML


def tables(**changes: dict[str, Any]) -> dict[str, GoldTable]:
    content = yaml.safe_load(CLICKS_YAML)
    for name, keys in changes.items():
        content["gold"][name] |= keys
    return {table.name: table for table in gold_tables(TableContract.model_validate(content))}


def written(folder: Path, table: GoldTable) -> None:
    rows = pa.table({name: pa.array(["x"]) for name in table.types})
    write_deltalake(str(folder / "gold" / table.name), rows)


def check(folder: Path, found: dict[str, GoldTable]) -> None:
    opened = {name: open_delta(f"{folder}/gold/{name}") for name in found}
    check_definitions(lake_at(str(folder)), found.values(), opened)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    for table in tables().values():
        written(tmp_path, table)
        store_definition(lake_at(str(tmp_path)), table)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"users": {"key": ["user", "country"]}}, r"\(gold.users: key; gold.countries: source\): .*"
         "--rebuild users --rebuild countries`"),
        ({"users": {"order_by": "cents"}}, "gold.users: order_by"),
        ({"clicks": {"columns": ["user", "day", "cents", "at"]}}, "gold.clicks: columns; gold.user_days: source"),
        ({"per_day": {"measures": {"rows": {"count": "cents"}}}}, "gold.per_day: columns, measures"),
    ],
)  # fmt: skip
def test_another_definition_stops_the_job_and_names_what_to_rebuild(
    lake: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check(lake, tables(**changes))


def test_comments_and_the_order_of_files_may_change(lake: Path) -> None:
    check(lake, tables(users={"comment": "Users", "comments": {"user": "Who"}, "sort_by": ["user"]}))


def test_a_table_of_an_earlier_release_is_told_by_its_columns(tmp_path: Path) -> None:
    written(tmp_path, tables()["clicks"])
    check(tmp_path, tables())
    with pytest.raises(ConfigurationError, match=r"gold\.clicks: columns"):
        check(tmp_path, tables(clicks={"columns": ["user", "day", "cents", "at"]}))


def test_a_deleted_table_is_gone_with_its_definition(lake: Path) -> None:
    delete_table(lake_at(str(lake)), tables()["clicks"])
    assert open_delta(f"{lake}/gold/clicks") is None
    assert [path for path, _ in lake_at(str(lake)).list("gold/clicks/")] == []
    assert open_delta(f"{lake}/gold/users") is not None


def test_a_table_whose_deletion_was_killed_is_an_earlier_version_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tables()["clicks"]
    written(tmp_path, table)
    rows = pa.table({name: pa.array(["y"]) for name in table.types})
    write_deltalake(str(tmp_path / "gold" / "clicks"), rows, mode="append")
    opened = lake_at(str(tmp_path))
    delete, versions = opened.delete, []

    def observed(paths: Any) -> None:
        delete(paths)
        found = open_delta(f"{tmp_path}/gold/clicks")
        versions.append(None if found is None else (found.version(), found.to_pyarrow_table().num_rows))

    monkeypatch.setattr(opened, "delete", observed)
    delete_table(opened, table)

    assert versions == [(1, 2), (0, 1), None, None]
