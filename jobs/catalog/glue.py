"""The lake's tables in the Glue Data Catalog, and the partitions that a batch has written.

Every call is safe to repeat: what is already there is success. The ledger entry of a batch waits for
`register`, so a batch that is final is also visible to Athena, Spark and Redshift Spectrum.
Source: https://docs.aws.amazon.com/glue/latest/webapi/ (CreateTable, BatchCreatePartition).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import ClientError

from jobs.catalog.glue_tables import BATCH, EXISTS, MISSING, GlueTables, chunks, create
from jobs.catalog.patience import Patience
from jobs.contract.aws import error_code
from jobs.contract.faults import point
from jobs.contract.partitions import NULL_PARTITION, parse_partition_path, partition_path
from jobs.contract.table import ColumnType, TableContract

_HIVE_TYPES = {"long": "bigint"}
# Of a partition as GetPartition describes it, what UpdatePartition takes back.
_PARTITION_KEYS = ("Values", "Parameters", "LastAccessTime", "LastAnalyzedTime")

Columns = Sequence[tuple[str, ColumnType, str]]


@dataclass(frozen=True)
class LakeTable:
    """A table of the lake as Glue sees it: `name` is also its folder, unless `folder` says otherwise.

    `parameters` stand beside the classification. `path_in_serde`: the location stands there too, as Spark wants it.
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


_PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}


def _json(mapping: Mapping[str, str]) -> dict[str, Any]:
    """JSON lines; `mapping` is column → the field's name in the JSON, where they differ."""
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
    """The tables that the streaming job writes: raw, processed, quarantine."""
    return (
        LakeTable(
            "raw",
            "Records as they came, a line of JSON each",
            tuple((column.column, "string", column.comment) for column in contract.columns),
            _HOUR,
            _json({column.column: column.source for column in contract.columns}),
            "json",
        ),
        LakeTable(
            "processed", contract.comment, contract.table_columns, contract.partition_columns, _PARQUET, "parquet"
        ),
        LakeTable(
            "quarantine",
            "Records that the contract rejected, with the reason and their bytes",
            (
                ("reason", "string", "Why: a code of jobs/contract/rejects.py"),
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


def batch_tables(contract: TableContract) -> tuple[LakeTable, ...]:
    """The tables that the batch job writes: processed_batch, which is as processed is, and the same quarantine."""
    tables = {table.name: table for table in lake_tables(contract)}
    return replace(tables["processed"], name="processed_batch"), tables["quarantine"]


class GlueCatalog:
    """One database of the catalog. `glue` is a boto3 Glue client.

    Raises AwsAccessError where permission is missing, TerminalError where AWS kept failing.
    """

    def __init__(self, glue: Any, database: str, lake: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._glue = glue
        self._database = database
        self._lake = lake
        self._patience = Patience(sleep)
        self._glue_tables = GlueTables(glue, database, self._patience)
        self._tables: dict[str, LakeTable] = {}
        self._shapes: dict[str, dict[str, Any]] = {}
        self._known: set[tuple[str, str]] = set()

    def ensure_tables(self, tables: Iterable[LakeTable]) -> None:
        """Creates the database and the tables where they are missing, and brings those that are there up to the
        contract, their partitions included (`evolution`); `register` then knows these tables.

        Raises IncompatibleSchemaError, before anything is changed, where a table cannot follow the contract.
        """
        by_name = {table.name: table for table in tables}
        self._shapes |= self._glue_tables.ensure(self._table_input(table) for table in by_name.values())
        self._tables |= by_name

    def register(self, table: str, partitions: Iterable[str], locations: Mapping[str, str] | None = None) -> int:
        """Registers folders such as `city=Paris/start_date=2016-09-03`; the number that this call sent.

        A folder that this process has registered before is not sent again. A partition that is there already, and
        was registered under an older contract, is brought up to this one; it stays where it is: only `relocate` moves
        it. `locations`: where partitions lie that do not lie in their plain folder, relative to the lake.
        """
        new = [folder for folder in dict.fromkeys(partitions) if (table, folder) not in self._known]
        where = {"DatabaseName": self._database, "TableName": table}
        for chunk in chunks(new, BATCH):
            point("catalog.registering")
            inputs = [
                self._partition_input(self._tables[table], folder, (locations or {}).get(folder)) for folder in chunk
            ]
            there = self._patience.batch(
                f"register {len(chunk)} partitions of {self._database}.{table}",
                lambda entries: self._glue.batch_create_partition(**where, PartitionInputList=entries),
                {tuple(entry["Values"]): entry for entry in inputs},
                values_key="PartitionValues",
                harmless=EXISTS,
            )
            if there:
                found = self._glue_tables.partitions(table, there)
                self._glue_tables.bring_partitions_up(self._shapes[table], found)
            self._known.update((table, folder) for folder in chunk)
            point("catalog.registered")
        return len(new)

    def relocate(self, table: str, partition: str, location: str) -> None:
        """Makes the partition's readers look in `location` (relative to the lake) from their next look on.

        What else the catalog says of the partition stays; one that is not registered is, there.
        """
        found = self._partition_input(self._tables[table], partition, location)
        names = {"DatabaseName": self._database, "TableName": table}

        def move() -> None:
            try:
                standing = self._glue.get_partition(**names, PartitionValues=found["Values"])["Partition"]
            except ClientError as error:
                if error_code(error) != MISSING:
                    raise
                create(self._glue.create_partition, **names, PartitionInput=found)
                return
            kept = {key: standing[key] for key in _PARTITION_KEYS if key in standing}
            storage = {**standing["StorageDescriptor"], "Location": found["StorageDescriptor"]["Location"]}
            self._glue.update_partition(
                **names, PartitionValueList=found["Values"], PartitionInput={**kept, "StorageDescriptor": storage}
            )

        self._patience.call(f"move partition {partition} of {self._database}.{table}", move)

    def locations(self, table: str) -> dict[str, str]:
        """Partition `city=…/start_date=…` → the location that the catalog names, as readers get it."""
        return {
            partition_path([name for name, _, _ in self._tables[table].partitions], values): location
            for values, location in self._listed(table)
        }

    def partitions(self, table: str) -> list[dict[str, str]]:
        """The values of every partition of a table, by column."""
        return [values for values, _ in self._listed(table)]

    def _listed(self, table: str) -> list[tuple[dict[str, str], str]]:
        """Every partition of a table: its values by column, and its location."""
        names = [name for name, _, _ in self._tables[table].partitions]
        pages = self._glue.get_paginator("get_partitions")

        def listed() -> list[tuple[dict[str, str], str]]:
            return [
                (dict(zip(names, found["Values"], strict=True)), found["StorageDescriptor"]["Location"])
                for page in pages.paginate(DatabaseName=self._database, TableName=table, ExcludeColumnSchema=True)
                for found in page["Partitions"]
            ]

        return self._patience.call(f"list partitions of {self._database}.{table}", listed)

    def _table_input(self, table: LakeTable) -> dict[str, Any]:
        return {
            "Name": table.name,
            "Description": table.comment,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {"classification": table.classification, "EXTERNAL": "TRUE", **table.parameters},
            "PartitionKeys": _columns(table.partitions),
            "StorageDescriptor": self._storage(table, f"{table.folder or table.name}/"),
        }

    def _partition_input(self, table: LakeTable, folder: str, location: str | None = None) -> dict[str, Any]:
        values = parse_partition_path(folder)
        # The columns in the table's order, for readers that go by position.
        columns = self._shapes[table.name]["StorageDescriptor"]["Columns"]
        return {
            "Values": [values[name] or NULL_PARTITION for name, _, _ in table.partitions],
            "StorageDescriptor": {
                **self._storage(table, location or f"{table.folder or table.name}/{folder}/"),
                "Columns": columns,
            },
        }

    def _storage(self, table: LakeTable, location: str) -> dict[str, Any]:
        address = f"{self.root}/{location}"
        storage = {**table.storage, "Location": address, "Columns": _columns(table.columns)}
        if table.path_in_serde:
            serde = storage["SerdeInfo"]
            storage["SerdeInfo"] = {**serde, "Parameters": {**serde["Parameters"], "path": address}}
        return storage

    @property
    def root(self) -> str:
        """The lake's address as locations in the catalog begin."""
        return self._lake if "://" in self._lake else f"file://{self._lake}"


def _columns(columns: Columns) -> list[dict[str, str]]:
    return [
        {"Name": name, "Type": _HIVE_TYPES.get(kind, kind), "Comment": " ".join(comment.split())[:255]}
        for name, kind, comment in columns
    ]
