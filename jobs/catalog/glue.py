"""The lake's tables in the Glue Data Catalog, and the partitions that a batch has written.

Every call is safe to repeat: what is already there is success. The ledger entry of a batch waits for
`register`, so a batch that is final is also visible to Athena, Spark and Redshift Spectrum.
Source: https://docs.aws.amazon.com/glue/latest/webapi/ (CreateTable, BatchCreatePartition).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from jobs.catalog.schema_evolution import BEHIND, evolved, evolved_partition, mismatch, refusal, table_input
from jobs.common.aws import error_code
from jobs.common.errors import TerminalError, TransientError
from jobs.common.fault_points import fault_point
from jobs.common.retry import Patience, pauses
from jobs.schema.partitions import NULL_PARTITION, parse_partition_path, partition_path
from jobs.schema.table import ColumnType, TableContract

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
            fault_point("catalog.registering")
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
            fault_point("catalog.registered")
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


# The tables of one database, made and kept up with the contract: `evolution` decides, here are the calls.

log = logging.getLogger(__name__)
T = TypeVar("T")

BATCH = 100  # partitions in one BatchCreatePartition or BatchUpdatePartition, AWS's limit
EXISTS = "AlreadyExistsException"
MISSING = "EntityNotFoundException"
# UpdateTable with a version that is no longer the latest.
_CHANGED_MEANWHILE = {"ConcurrentModificationException", "VersionMismatchException"}


class GlueTables:
    """Tables by their shape: a TableInput, as the contract wants it. `glue` is a boto3 Glue client."""

    def __init__(self, glue: Any, database: str, patience: Patience) -> None:
        self._glue = glue
        self._database = database
        self._patience = patience

    def ensure(self, shapes: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Makes the tables that are missing and brings the others up; by name, what partitions are to be like.

        Raises IncompatibleSchemaError, before anything is changed, where a table cannot follow the contract.
        """
        wanted = {shape["Name"]: shape for shape in shapes}
        found = {name: self._found(name) for name in wanted}
        mismatches = [
            problem
            for name, shape in wanted.items()
            if (there := found[name]) is not None and (problem := mismatch(there, shape)) is not None
        ]
        if mismatches:
            raise refusal(self._database, mismatches)
        if None in found.values():
            self._patience.call(
                f"create Glue database {self._database}",
                lambda: create(self._glue.create_database, DatabaseInput={"Name": self._database}),
            )
        return {name: self._bring_up(shape, found[name]) for name, shape in wanted.items()}

    def partitions(self, name: str, values: Iterable[Sequence[str]]) -> list[dict[str, Any]]:
        """The partitions of these values, at most 100, as GetPartition gives them; one that is gone is left out."""
        left, found = [{"Values": list(each)} for each in values], list[dict[str, Any]]()
        what = f"look up {len(left)} partitions of {self._database}.{name}"

        def look_up() -> None:
            answer = self._glue.batch_get_partition(DatabaseName=self._database, TableName=name, PartitionsToGet=left)
            found.extend(answer["Partitions"])
            left[:] = answer.get("UnprocessedKeys", [])  # with a 200, so botocore does not ask again
            if left:
                raise TransientError(f"{what}: {len(left)} were left out, such as {left[0]['Values']}")

        self._patience.call(what, look_up)
        return found

    def bring_partitions_up(self, shape: dict[str, Any], found: Iterable[Mapping[str, Any]]) -> None:
        """Brings partitions, as GetPartition gives them, up to their table."""
        behind = [
            {"PartitionValueList": partition["Values"], "PartitionInput": update}
            for partition in found
            if (update := evolved_partition(partition, shape)) is not None
        ]
        where = {"DatabaseName": self._database, "TableName": shape["Name"]}
        for chunk in chunks(behind, BATCH):
            self._patience.batch(
                f"update {len(chunk)} partitions of {self._database}.{shape['Name']}",
                lambda entries: self._glue.batch_update_partition(**where, Entries=entries),
                {tuple(entry["PartitionValueList"]): entry for entry in chunk},
                values_key="PartitionValueList",
                harmless=MISSING,  # dropped meanwhile
            )

    def _found(self, name: str) -> dict[str, Any] | None:
        """The table as it stands in the catalog; None where it, or the database, is not there."""

        def get() -> dict[str, Any] | None:
            try:
                return dict(self._glue.get_table(DatabaseName=self._database, Name=name)["Table"])
            except ClientError as error:
                if error_code(error) == MISSING:
                    return None
                raise

        return self._patience.call(f"look up Glue table {self._database}.{name}", get)

    def _bring_up(self, shape: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any]:
        """Creates or updates a table until it is as `shape` says, whoever else does the same meanwhile.

        Returns the shape with the columns in the table's order: readers that go by position want it in partitions too.
        """
        name, told = shape["Name"], False
        for pause in pauses():
            if found is None:
                self._patience.call(
                    f"create Glue table {self._database}.{name}",
                    lambda: create(self._glue.create_table, DatabaseName=self._database, TableInput=shape),
                )
            else:
                if (problem := mismatch(found, shape)) is not None:
                    raise refusal(self._database, [problem])
                update = evolved(found, shape)
                if update is not None and (update.follow or not told):
                    log.info("Glue table %s.%s is brought up to the contract", self._database, name)
                    done = told = self._update(found, update.table)  # words are said once: Glue may trim them
                elif BEHIND in found.get("Parameters", {}):
                    self._bring_all_partitions_up(shape)
                    others = {key: value for key, value in found["Parameters"].items() if key != BEHIND}
                    done = self._update(found, table_input(found) | {"Parameters": others}, SkipArchive=True)
                else:
                    columns = found["StorageDescriptor"]["Columns"]
                    return {**shape, "StorageDescriptor": {**shape["StorageDescriptor"], "Columns": columns}}
                if not done:
                    self._patience.sleep(pause)
            found = self._found(name)
        raise TerminalError(
            f"update Glue table {self._database}.{name}: others kept changing it at the same time; see who does "
            f"(`aws glue get-table-versions --database-name {self._database} --table-name {name}`), then start again"
        )

    def _update(self, found: Mapping[str, Any], update: Mapping[str, Any], **options: Any) -> bool:
        """UpdateTable; False, and nothing changed, where somebody has changed the table since it was `found`."""

        def send() -> bool:
            try:
                self._glue.update_table(
                    DatabaseName=self._database, TableInput=update, VersionId=found["VersionId"], **options
                )
            except ClientError as error:
                if error_code(error) in _CHANGED_MEANWHILE:
                    return False
                raise
            return True

        return self._patience.call(f"update Glue table {self._database}.{found['Name']}", send)

    def _bring_all_partitions_up(self, shape: dict[str, Any]) -> None:
        """Hive, and Athena where types differ, go by a partition's own schema."""
        pages = self._glue.get_paginator("get_partitions")

        def bring_up() -> None:
            for page in pages.paginate(DatabaseName=self._database, TableName=shape["Name"]):
                self.bring_partitions_up(shape, page["Partitions"])

        self._patience.call(f"list partitions of {self._database}.{shape['Name']}", bring_up)


def create(call: Callable[..., Any], **arguments: Any) -> None:
    """A call that creates something; what is there already is fine."""
    try:
        call(**arguments)
    except ClientError as error:
        if error_code(error) != EXISTS:
            raise


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
