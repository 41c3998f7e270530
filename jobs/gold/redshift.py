"""Generates Redshift's SQL for the gold tables. Pure functions; `infra/redshift/` contains the output for the defaults.

Three scripts: an external schema over the Glue catalog (Redshift Spectrum), CREATE TABLE, and COPY. The IAM role is a
psql variable (`:'role'`). COPY reads a manifest of the table's current Parquet files, so files that OPTIMIZE or MERGE
replaced are not loaded.
Source: https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_EXTERNAL_SCHEMA.html, …/r_CREATE_TABLE_NEW.html,
…/copy-usage_notes-copy-from-columnar.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from jobs.gold.manifests import COPY
from jobs.gold.tables import GoldTable, gold_tables
from jobs.schema.gold_section import base_type
from jobs.schema.table import load_contract

if TYPE_CHECKING:
    from jobs.settings.settings import Settings

SCHEMA = "movement_gold"
EXTERNAL = "movement_lake"
_TYPES: Mapping[str, str] = {
    "string": "VARCHAR(1024)",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "REAL",
    "double": "DOUBLE PRECISION",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "binary": "VARBYTE",
    "json": "VARCHAR(65535)",
}
_NESTED = ("array", "map", "struct")
_LONG = ("geometry",)  # an outline has up to 58 KB; VARCHAR allows 65,535 bytes
_HEADER = "-- Made by `movement gold --redshift-ddl DIR` from the contract; do not edit.\n"


def scripts(settings: Settings) -> dict[str, str]:
    """The SQL of each script, by file name, for the settings' lake, database and contract."""
    tables = gold_tables(load_contract(settings.contract))
    return {
        "external_schema.sql": external_schema(tables, settings.database, settings.gold.table_prefix),
        "create_tables.sql": "\n".join([_HEADER + f"CREATE SCHEMA IF NOT EXISTS {SCHEMA};\n", *map(create, tables)]),
        "copy.sql": _HEADER + _COPY_NOTE + "\n".join(copy(table, settings.lake) for table in tables),
    }


def external_schema(tables: Iterable[GoldTable], database: str, prefix: str) -> str:
    """The Glue database as an external schema, and a view for each gold table."""
    views = "\n".join(
        f"CREATE OR REPLACE VIEW {EXTERNAL}_{table.name} AS\n"
        f"SELECT {', '.join(_name(column) for column, _, _ in table.columns)}\n"
        f"FROM {EXTERNAL}.{prefix}{table.name}_manifest\nWITH NO SCHEMA BINDING;\n"
        for table in tables
    )
    return (
        f"{_HEADER}-- psql -v role=arn:aws:iam::<account>:role/<role that reads the lake and Glue> -f …\n"
        f"-- Spectrum reads Delta tables through their manifests: {prefix}…_manifest. `processed` is there too.\n"
        f"CREATE EXTERNAL SCHEMA IF NOT EXISTS {EXTERNAL}\nFROM DATA CATALOG\nDATABASE '{database}'\n"
        f"IAM_ROLE :'role';\n\n{views}"
    )


def create(table: GoldTable) -> str:
    """CREATE TABLE, with the columns in the files' order, because COPY maps columns by position."""
    width = max(len(_name(name)) for name, _, _ in table.columns)
    columns = [f"    {_name(name):<{width}} {_type(name, kind)}" for name, kind, _ in table.columns]
    if table.key:
        columns.append(f"    PRIMARY KEY ({_names(table.key)})")
    sort = f"\nSORTKEY ({_names(table.order)})" if table.order else ""
    body = ",\n".join(columns)
    style = "AUTO" if table.order else "ALL"
    comment = table.comment.replace("'", "''")
    return (
        f"CREATE TABLE IF NOT EXISTS {SCHEMA}.{_name(table.name)} (\n{body}\n)\nDISTSTYLE {style}{sort};\n"
        f"COMMENT ON TABLE {SCHEMA}.{_name(table.name)} IS '{comment}';\n"
    )


_COPY_NOTE = """\
-- psql -v role=arn:aws:iam::<account>:role/<role that reads the lake> -f copy.sql
-- Replaces each table's rows in one transaction; queries see the old rows until then. Run it after `movement gold`.
"""


def copy(table: GoldTable, lake: str) -> str:
    """DELETE and COPY. TRUNCATE would commit before the new rows are loaded."""
    target, place = f"{SCHEMA}.{_name(table.name)}", lake.replace("'", "''")
    nested = any(base_type(kind) in _NESTED for _, kind, _ in table.columns)
    return (
        f"BEGIN;\nDELETE FROM {target};\nCOPY {target}\nFROM '{place}/{table.folder}/{COPY}'\n"
        f"IAM_ROLE :'role'\nFORMAT AS PARQUET\nMANIFEST{' SERIALIZETOJSON' if nested else ''};\nCOMMIT;\n"
    )


def _type(name: str, kind: str) -> str:
    if name in _LONG:
        return "VARCHAR(65535)"
    if base_type(kind) in _NESTED:
        return "SUPER"
    return kind.upper() if base_type(kind) == "decimal" else _TYPES[kind]


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(_name, names))


def _name(name: str) -> str:
    """Quoted, because many usual names (`user`, `timestamp`, `order`) are reserved words."""
    return f'"{name}"'
