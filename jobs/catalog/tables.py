"""The definitions of the lake's tables, as `GlueCatalog` creates them.

Parquet and JSON tables have partitions in Glue. Delta tables are registered as a Glue crawler registers "native" ones:
Athena and Trino recognise them by `spark.sql.sources.provider` / `table_type`, Spark by the provider and the path in
the SerDe's parameters; all read schema and partitions from the Delta log. Redshift Spectrum reads a table over a
manifest instead (SymlinkTextInputFormat).
Source: https://docs.aws.amazon.com/athena/latest/ug/delta-lake-tables-syncing-metadata.html,
https://docs.aws.amazon.com/redshift/latest/dg/c-spectrum-external-tables.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.schema.columns import ColumnType
from jobs.schema.table import RAW_PARTITIONS, TableContract
from jobs.schema.types import data_type

Columns = Sequence[tuple[str, ColumnType, str]]  # name, type, comment


@dataclass(frozen=True)
class LakeTable:
    """A table of the lake.

    folder          in the lake; the table's name if empty
    parameters      table parameters besides the classification
    path_in_serde   whether the SerDe's parameters name the location too, as Spark needs it
    """

    name: str
    comment: str
    columns: Columns
    partitions: Columns
    storage: Mapping[str, Any]
    classification: str
    folder: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    path_in_serde: bool = False


_PARQUET_SERDE = {
    "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
    "Parameters": {"serialization.format": "1"},
}
_PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": _PARQUET_SERDE,
}
_MANIFEST = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
    "SerdeInfo": _PARQUET_SERDE,
}
_DELTA = {
    "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}


def _json(mapping: Mapping[str, str]) -> dict[str, Any]:
    """The storage of JSON lines. `mapping`: the field names in the JSON by column, where they differ."""
    return {
        "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
        "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
        "SerdeInfo": {
            "SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe",
            "Parameters": {
                "ignore.malformed.json": "true",
                "case.insensitive": "false",
                **{f"mapping.{column}": field for column, field in mapping.items()},
            },
        },
    }


_DAY: Columns = (("ingest_date", "date", "Day on which Kinesis accepted the record (UTC)"),)
_HOUR: Columns = (*_DAY, ("hour", "string", "Hour of that day, 00 to 23"))


def lake_tables(contract: TableContract) -> tuple[LakeTable, ...]:
    """The tables that the streaming job writes as plain files: raw, processed, quarantine."""
    fields = _raw_fields(contract)
    return (
        LakeTable(
            "raw",
            "Records as they came, a line of JSON each",
            tuple((name, "string", comment) for name, _, comment in fields),
            _HOUR,
            _json({name: field for name, field, _ in fields}),
            "json",
        ),
        LakeTable(
            "processed", contract.comment, contract.table_columns, contract.partition_columns, _PARQUET, "parquet"
        ),
        LakeTable(
            "quarantine",
            "Records that the contract rejected, with the reason and their bytes",
            (
                ("reason", "string", "Why: a code of jobs/schema/rejections.py"),
                ("stage", "string", "Where in the pipeline it was rejected"),
                ("field", "string", "Source field or check at fault, null for the record as a whole"),
                ("value", "string", "What stood there, cut to 200 characters"),
                ("shard_id", "string", "Shard that the record was read from"),
                ("sequence_number", "string", "The record's sequence number in its shard"),
                ("partition_key", "string", "The record's partition key on the stream"),
                ("arrival_time", "string", "When Kinesis accepted the record (UTC, ISO 8601)"),
                ("batch", "string", "Micro-batch that wrote it: <query>-<batch>"),
                ("encoding", "string", "How payload holds the bytes: utf-8 or base64"),
                ("payload", "string", "The record's bytes"),
            ),
            _DAY,
            _json({}),
            "json",
        ),
    )


def _raw_fields(contract: TableContract) -> list[tuple[str, str, str]]:
    """(column, field, comment) of each top-level field of a raw record: an object or array is its JSON text.

    A field that is a column of processed has the column's name, except for RAW_PARTITIONS, which raw has itself: the
    field `hour` is `field_hour`. Any other is named after itself, in the letters that a column's name may have.
    """
    named = {column.source: (column.column, column.comment) for column in reversed(contract.record_columns)}
    found: list[tuple[str, str, str]] = []
    taken = {name for name, _ in named.values()}
    for source in contract.source_fields:
        name, comment = named.get(source, ("", "A field of the record, as JSON text"))
        if not name or name in RAW_PARTITIONS:
            name = re.sub("[^a-z0-9_]", "_", name or source.lower())
            while name in taken or not name[:1].isalpha() or name in RAW_PARTITIONS:
                name = f"field_{name}"
            taken.add(name)
        found.append((name, source, comment))
    return found


def batch_tables(contract: TableContract) -> tuple[LakeTable, ...]:
    """The tables that the batch job writes: processed_batch, with the columns of processed, and quarantine."""
    tables = {table.name: table for table in lake_tables(contract)}
    return replace(tables["processed"], name="processed_batch"), tables["quarantine"]


def delta_table(name: str, folder: str, comment: str, columns: Columns) -> LakeTable:
    """A Delta table in the lake's `folder`. `columns`: all columns, in the order of the Delta schema."""
    schema = {
        "type": "struct",
        "fields": [
            {"name": column, "type": data_type(kind).spark_json(), "nullable": True, "metadata": {}}
            for column, kind, _ in columns
        ],
    }
    return LakeTable(
        name,
        comment,
        columns,
        (),
        _DELTA,
        "delta",
        folder,
        {
            "spark.sql.sources.provider": "delta",
            "table_type": "DELTA",
            "spark.sql.partitionProvider": "catalog",
            "spark.sql.sources.schema": json.dumps(schema, separators=(",", ":")),
        },
        path_in_serde=True,
    )


def manifest_table(name: str, folder: str, comment: str, columns: Columns) -> LakeTable:
    """A table over a manifest in `folder`, which lists Parquet files."""
    return LakeTable(name, comment, columns, (), _MANIFEST, "parquet", folder)


def stream_tables(contract: TableContract, sink_format: str) -> tuple[LakeTable, ...]:
    """The tables that the streaming job writes in the given `sink.format`.

    With `delta`, processed is a Delta table, whose partitions are in its log and not in the catalog.
    """
    if sink_format != "delta":
        return lake_tables(contract)
    columns = (*contract.partition_columns, *contract.table_columns)
    processed = delta_table("processed", "processed", contract.comment, columns)
    return tuple(processed if table.name == "processed" else table for table in lake_tables(contract))


def glue_table(table: LakeTable, root: str) -> dict[str, Any]:
    """The TableInput that registers the table. `root`: the lake's address, such as `s3://bucket/lake`."""
    return {
        "Name": table.name,
        "Description": table.comment,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"classification": table.classification, "EXTERNAL": "TRUE", **table.parameters},
        "PartitionKeys": _glue_columns(table.partitions),
        "StorageDescriptor": storage_descriptor(table, f"{root}/{table.folder or table.name}/"),
    }


def storage_descriptor(table: LakeTable, uri: str) -> dict[str, Any]:
    """The StorageDescriptor of the table, or of one of its partitions, whose files are in the folder `uri`."""
    storage = {**table.storage, "Location": uri, "Columns": _glue_columns(table.columns)}
    if table.path_in_serde:
        serde = storage["SerdeInfo"]
        storage["SerdeInfo"] = {**serde, "Parameters": {**serde["Parameters"], "path": uri}}
    return storage


def _glue_columns(columns: Columns) -> list[dict[str, str]]:
    return [
        {"Name": name, "Type": data_type(kind).hive(), "Comment": " ".join(comment.split())[:255]}
        for name, kind, comment in columns
    ]
