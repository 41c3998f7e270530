"""CREATE EXTERNAL TABLE for a table of the lake, from the TableInput that registers it in Glue.

Source: https://docs.aws.amazon.com/athena/latest/ug/create-table.html. Athena reads the columns of a Delta
table from its log: https://docs.aws.amazon.com/athena/latest/ug/delta-lake-tables-getting-started.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def create_external_table(table: Mapping[str, Any], database: str) -> str:
    """The statement for Athena and Hive. `table`: a TableInput, as `jobs.catalog.tables.glue_table` makes it."""
    name = f"{_quoted(database)}.{_quoted(table['Name'])}"
    storage = table["StorageDescriptor"]
    location = f"LOCATION {_text(storage['Location'])}"
    if table["Parameters"].get("table_type") == "DELTA":
        return f"CREATE EXTERNAL TABLE {name}\n{location}\nTBLPROPERTIES ('table_type' = 'DELTA');"
    serde = storage["SerdeInfo"]
    lines = [f"CREATE EXTERNAL TABLE {name} (", _columns(storage["Columns"]), ")"]
    if table["Description"]:
        lines.append(f"COMMENT {_text(table['Description'])}")
    if table["PartitionKeys"]:
        lines += ["PARTITIONED BY (", _columns(table["PartitionKeys"]), ")"]
    lines += [
        f"ROW FORMAT SERDE {_text(serde['SerializationLibrary'])}",
        f"WITH SERDEPROPERTIES ({_properties(serde['Parameters'])})",
        f"STORED AS INPUTFORMAT {_text(storage['InputFormat'])}",
        f"OUTPUTFORMAT {_text(storage['OutputFormat'])}",
        location,
    ]
    # EXTERNAL is said by the first line.
    parameters = {key: value for key, value in table["Parameters"].items() if key != "EXTERNAL"}
    lines.append(f"TBLPROPERTIES ({_properties(parameters)});")
    return "\n".join(lines)


def _columns(columns: Sequence[Mapping[str, str]]) -> str:
    return ",\n".join(
        f"  {_quoted(column['Name'])} {column['Type']}"
        + (f" COMMENT {_text(column['Comment'])}" if column.get("Comment") else "")
        for column in columns
    )


def _properties(properties: Mapping[str, str]) -> str:
    return ", ".join(f"{_text(key)} = {_text(value)}" for key, value in properties.items())


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
