"""Delta tables in the Glue Data Catalog, as a Glue crawler registers "native" ones, and the tables over manifests.

Athena and Trino know a native one by `spark.sql.sources.provider` / `table_type`, and Spark by the provider and the
path in the SerDe's parameters; all take schema and partitions from the Delta log. Redshift Spectrum reads the table
over the manifest, whose files SymlinkTextInputFormat names.
Source: https://docs.aws.amazon.com/athena/latest/ug/delta-lake-tables-syncing-metadata.html,
https://docs.aws.amazon.com/redshift/latest/dg/c-spectrum-external-tables.html.
"""

from __future__ import annotations

import json

from jobs.catalog.glue import Columns, LakeTable, lake_tables
from jobs.schema.table import TableContract

_SPARK_TYPES = {"int": "integer"}
_NATIVE = {
    "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}
_SYMLINK = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}


def delta_table(name: str, folder: str, comment: str, columns: Columns) -> LakeTable:
    """A Delta table in the lake's `folder`; `columns` are all of it, in the order of the Delta schema."""
    schema = {
        "type": "struct",
        "fields": [
            {"name": column, "type": _SPARK_TYPES.get(kind, kind), "nullable": True, "metadata": {}}
            for column, kind, _ in columns
        ],
    }
    return LakeTable(
        name,
        comment,
        columns,
        (),
        _NATIVE,
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
    return LakeTable(name, comment, columns, (), _SYMLINK, "parquet", folder)


def stream_tables(contract: TableContract, sink_format: str) -> tuple[LakeTable, ...]:
    """`lake_tables`; with `sink.format: delta` processed is a Delta table, whose partitions no catalog knows."""
    if sink_format != "delta":
        return lake_tables(contract)
    columns = (*contract.partition_columns, *contract.table_columns)
    processed = delta_table("processed", "processed", contract.comment, columns)
    return tuple(processed if table.name == "processed" else table for table in lake_tables(contract))
