"""Redshift's SQL: the files in the tree are up to date, and a parser for Redshift accepts them."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from jobs.gold.redshift import SCHEMA, scripts
from jobs.settings.settings import load_settings
from tests.helpers.clicks import CLICKS_YAML
from tests.helpers.paths import ROOT
from tests.helpers.plain_gold import TABLES

FOLDER = ROOT / "infra" / "redshift"
SCRIPTS = scripts(load_settings(None, ["lake=s3://your-bucket/lake"]))


def parsed(name: str) -> list[exp.Expression]:
    # psql replaces the variable by a quoted text.
    sql = SCRIPTS[name].replace(":'role'", "'arn:aws:iam::111122223333:role/reader'")
    return [each for each in sqlglot.parse(sql, dialect="redshift") if each is not None]


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_the_files_in_the_tree_are_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == SCRIPTS[name]


def test_tables_have_the_gold_tables_columns_in_their_order_and_type() -> None:
    created = {
        each.this.this.name: [
            (column.name, column.kind.sql("redshift"))
            for column in each.this.expressions
            if isinstance(column, exp.ColumnDef)
        ]
        for each in parsed("create_tables.sql")
        if isinstance(each, exp.Create) and each.kind == "TABLE"
    }
    kinds = {
        "string": "VARCHAR(1024)", "int": "INTEGER", "long": "BIGINT", "double": "DOUBLE PRECISION",
        "date": "DATE", "timestamp": "TIMESTAMP",
    }  # fmt: skip
    assert created == {
        table.name: [(name, "VARCHAR(65535)" if name == "geometry" else kinds[kind]) for name, kind, _ in table.columns]
        for table in TABLES
    }


def test_each_table_is_copied_whole_in_a_transaction_of_its_own() -> None:
    statements = parsed("copy.sql")
    assert [type(each) for each in statements] == [exp.Transaction, exp.Delete, exp.Copy, exp.Commit] * len(TABLES)
    copies = [each for each in statements if isinstance(each, exp.Copy)]
    for table, copy in zip(TABLES, copies, strict=True):
        assert copy.this.sql("redshift") == f'{SCHEMA}."{table.name}"'
        (source,) = copy.args["files"]
        assert source.name == f"s3://your-bucket/lake/gold/{table.name}/_copy_manifest/manifest.json"
        assert {"FORMAT", "MANIFEST"} <= {parameter.this.name.upper() for parameter in copy.args["params"]}


def test_the_external_schema_names_database_and_role_and_a_view_for_each_table() -> None:
    schema, _, views = SCRIPTS["external_schema.sql"].partition(";\n")
    assert "FROM DATA CATALOG\nDATABASE 'uber_movement'\nIAM_ROLE :'role'" in schema
    found = [each for each in sqlglot.parse(views, dialect="redshift") if each is not None]
    assert [each.find(exp.From).this.sql("redshift") for each in found] == [  # type: ignore[union-attr]
        f"movement_lake.gold_{table.name}_manifest" for table in TABLES
    ]


def test_another_contracts_tables_are_quoted_and_typed(tmp_path: Path) -> None:
    contract = tmp_path / "clicks.yaml"
    contract.write_text(CLICKS_YAML, encoding="utf-8")
    made = scripts(load_settings(None, [f"contract={contract}"]))
    assert '"mean_sum" DECIMAL(38,0)' in " ".join(made["create_tables.sql"].split())
    assert 'PRIMARY KEY ("user", "day")' in made["create_tables.sql"]
    for sql in made.values():
        assert sqlglot.parse(sql.replace(":'role'", "'role'"), dialect="redshift")
