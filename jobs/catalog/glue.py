"""Creates the lake's tables in the Glue Data Catalog, migrates them to the contract, and registers partitions.

Every call is safe to repeat: what exists already counts as success. A batch's ledger entry is written after `register`,
so a final batch is always visible to Athena, Spark and Redshift Spectrum.
Source: https://docs.aws.amazon.com/glue/latest/webapi/ (CreateTable, BatchCreatePartition).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from jobs.catalog.schema_evolution import (
    PARTITIONS_BEHIND,
    incompatible_schema,
    mismatch,
    partition_update,
    table_input,
    table_update,
)
from jobs.catalog.tables import Columns, LakeTable
from jobs.common.aws import error_code, translate_aws_errors
from jobs.common.errors import TerminalError, TransientError
from jobs.common.fault_points import fault_point
from jobs.common.retry import RetryPolicy
from jobs.schema.partitions import NULL_PARTITION, parse_partition_path, partition_path

if TYPE_CHECKING:
    from types_boto3_glue import GlueClient

log = logging.getLogger(__name__)
T = TypeVar("T")
PartitionValues = tuple[str, ...]

BATCH = 100  # AWS's limit of partitions in one BatchCreatePartition or BatchUpdatePartition
_EXISTS = "AlreadyExistsException"
_MISSING = "EntityNotFoundException"
# UpdateTable with a version that is no longer the latest.
_CHANGED_MEANWHILE = {"ConcurrentModificationException", "VersionMismatchException"}
_HIVE_TYPES = {"long": "bigint"}
# The keys of GetPartition's answer, besides the storage, that UpdatePartition accepts.
_PARTITION_KEYS = ("Values", "Parameters", "LastAccessTime", "LastAnalyzedTime")


_RETRY = RetryPolicy()


class GlueCatalog:
    """One database of the catalog. `glue` is a boto3 Glue client.

    Raises AwsAccessError if permission is missing, TerminalError if AWS keeps failing.
    """

    def __init__(self, glue: GlueClient, database: str, lake: str, retry: RetryPolicy = _RETRY) -> None:
        self._glue = glue
        self._database = database
        self._lake = lake
        self._calls = GlueCalls(retry)
        self._migrator = TableMigrator(glue, database, self._calls)
        self._tables: dict[str, LakeTable] = {}
        self._schemas: dict[str, dict[str, Any]] = {}
        self._registered: set[tuple[str, str]] = set()

    @property
    def root(self) -> str:
        """The lake's address as the locations in the catalog start with it."""
        return self._lake if "://" in self._lake else f"file://{self._lake}"

    def ensure_tables(self, tables: Iterable[LakeTable]) -> None:
        """Creates the database and missing tables, and migrates existing tables and partitions to the contract.

        `register` then knows these tables. Raises IncompatibleSchemaError, before anything is changed, if a table
        cannot follow the contract.
        """
        by_name = {table.name: table for table in tables}
        self._schemas |= self._migrator.ensure(self._table_input(table) for table in by_name.values())
        self._tables |= by_name

    def register(self, table: str, partitions: Iterable[str], locations: Mapping[str, str] | None = None) -> int:
        """Registers partitions such as `city=Paris/start_date=2016-09-03`. Returns how many this call sent.

        `locations`: the locations of partitions that are not in their default folder, relative to the lake. Skips
        partitions that this process has registered before. An existing partition with an older schema is migrated; its
        location stays, because only `relocate` changes it.
        """
        new = [folder for folder in dict.fromkeys(partitions) if (table, folder) not in self._registered]
        names = {"DatabaseName": self._database, "TableName": table}
        for chunk in chunks(new, BATCH):
            fault_point("catalog.registering")
            inputs = [
                self._partition_input(self._tables[table], folder, (locations or {}).get(folder)) for folder in chunk
            ]
            existing = self._calls.batch(
                f"register {len(chunk)} partitions of {self._database}.{table}",
                lambda entries: self._glue.batch_create_partition(**names, PartitionInputList=entries),
                {tuple(entry["Values"]): entry for entry in inputs},
                values_key="PartitionValues",
                harmless=_EXISTS,
            )
            if existing:
                self._migrator.migrate_partitions(self._schemas[table], self._migrator.partitions(table, existing))
            self._registered.update((table, folder) for folder in chunk)
            fault_point("catalog.registered")
        return len(new)

    def relocate(self, table: str, partition: str, location: str) -> None:
        """Points the partition to `location` (relative to the lake). Registers it if it is missing.

        Keeps everything else that the catalog says about the partition.
        """
        wanted = self._partition_input(self._tables[table], partition, location)
        names: Any = {"DatabaseName": self._database, "TableName": table}

        def move() -> None:
            try:
                found: Mapping[str, Any] = self._glue.get_partition(**names, PartitionValues=wanted["Values"])[
                    "Partition"
                ]
            except ClientError as error:
                if error_code(error) != _MISSING:
                    raise
                create(self._glue.create_partition, **names, PartitionInput=wanted)
                return
            update: Any = {key: found[key] for key in _PARTITION_KEYS if key in found}
            uri = wanted["StorageDescriptor"]["Location"]
            update["StorageDescriptor"] = {**found["StorageDescriptor"], "Location": uri}
            self._glue.update_partition(**names, PartitionValueList=wanted["Values"], PartitionInput=update)

        self._calls.call(f"move partition {partition} of {self._database}.{table}", move)

    def locations(self, table: str) -> dict[str, str]:
        """By partition `city=…/start_date=…`: the location that the catalog gives to readers."""
        names = [name for name, _, _ in self._tables[table].partitions]
        return {partition_path(names, values): location for values, location in self._list_partitions(table)}

    def partitions(self, table: str) -> list[dict[str, str]]:
        """The values of every partition of a table, by column."""
        return [values for values, _ in self._list_partitions(table)]

    def _list_partitions(self, table: str) -> list[tuple[dict[str, str], str]]:
        """Every partition of a table: its values by column, and its location."""
        names = [name for name, _, _ in self._tables[table].partitions]
        pages = self._glue.get_paginator("get_partitions")

        def read() -> list[tuple[dict[str, str], str]]:
            return [
                (dict(zip(names, found["Values"], strict=True)), found["StorageDescriptor"]["Location"])
                for page in pages.paginate(DatabaseName=self._database, TableName=table, ExcludeColumnSchema=True)
                for found in page["Partitions"]
            ]

        return self._calls.call(f"list partitions of {self._database}.{table}", read)

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
        # In the order of the table in the catalog, for readers that go by position.
        columns = self._schemas[table.name]["StorageDescriptor"]["Columns"]
        return {
            "Values": [values[name] or NULL_PARTITION for name, _, _ in table.partitions],
            "StorageDescriptor": {
                **self._storage(table, location or f"{table.folder or table.name}/{folder}/"),
                "Columns": columns,
            },
        }

    def _storage(self, table: LakeTable, location: str) -> dict[str, Any]:
        uri = f"{self.root}/{location}"
        storage = {**table.storage, "Location": uri, "Columns": _columns(table.columns)}
        if table.path_in_serde:
            serde = storage["SerdeInfo"]
            storage["SerdeInfo"] = {**serde, "Parameters": {**serde["Parameters"], "path": uri}}
        return storage


class GlueCalls:
    """Makes calls to Glue, and repeats those that fail.

    Raises AwsAccessError at once if permission is missing, TerminalError if all attempts fail.
    """

    def __init__(self, retry: RetryPolicy) -> None:
        self.retry = retry

    def call(self, what: str, operation: Callable[[], T]) -> T:
        """Returns the result of `operation`. `what` describes it in error messages."""

        def attempt() -> T:
            with translate_aws_errors(what):
                return operation()

        try:
            return self.retry.call(attempt)
        except TransientError as error:
            raise TerminalError(
                f"{error}; given up after {self.retry.attempts} attempts: see AWS's health, then start again"
            ) from error

    def batch(
        self,
        what: str,
        send: Callable[[list[Any]], Mapping[str, Any]],
        entries: Mapping[PartitionValues, Any],
        *,
        values_key: str,
        harmless: str,
    ) -> list[PartitionValues]:
        """Sends the entries of a Batch… call, and sends those that fail again. Keys are the partitions' values.

        The answer has status 200 and lists the failed entries, so botocore retries none of them; `values_key` is the
        key of their values. Returns the values of those that failed with the code `harmless`.
        """
        unsent, refused = dict(entries), list[PartitionValues]()

        def send_unsent() -> None:
            failed = {}
            for error in send(list(unsent.values())).get("Errors", []):
                values, detail = tuple(error[values_key]), error.get("ErrorDetail", {})
                if detail.get("ErrorCode") == harmless:
                    refused.append(values)
                else:
                    failed[values] = f"{list(values)}: {detail.get('ErrorCode')}: {detail.get('ErrorMessage')}"
            for values in unsent.keys() - failed.keys():
                del unsent[values]
            if failed:
                raise TransientError(f"{what}: {len(failed)} failed, such as {next(iter(failed.values()))}")

        self.call(what, send_unsent)
        return refused


class TableMigrator:
    """Creates tables and migrates existing ones; `schema_evolution` decides what changes. `glue`: a boto3 client."""

    def __init__(self, glue: GlueClient, database: str, calls: GlueCalls) -> None:
        self._glue = glue
        self._database = database
        self._calls = calls

    def ensure(self, wanted: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Creates missing tables and migrates the others to the `wanted` TableInputs.

        Returns, by table, the schema for its partitions. Raises IncompatibleSchemaError, before anything is changed, if
        a table cannot follow.
        """
        by_name = {table["Name"]: table for table in wanted}
        found = {name: self._find(name) for name in by_name}
        mismatches = [
            problem
            for name, table in by_name.items()
            if (existing := found[name]) is not None and (problem := mismatch(existing, table)) is not None
        ]
        if mismatches:
            raise incompatible_schema(self._database, mismatches)
        if None in found.values():
            self._calls.call(
                f"create Glue database {self._database}",
                lambda: create(self._glue.create_database, DatabaseInput={"Name": self._database}),
            )
        return {name: self._migrate(table, found[name]) for name, table in by_name.items()}

    def partitions(self, name: str, values: Iterable[Sequence[str]]) -> list[Mapping[str, Any]]:
        """The partitions with these values (at most 100), as GetPartition returns them. Omits deleted ones."""
        missing: list[Any] = [{"Values": list(each)} for each in values]
        found: list[Mapping[str, Any]] = []
        what = f"look up {len(missing)} partitions of {self._database}.{name}"

        def look_up() -> None:
            answer = self._glue.batch_get_partition(
                DatabaseName=self._database, TableName=name, PartitionsToGet=missing
            )
            found.extend(answer["Partitions"])
            missing[:] = answer.get("UnprocessedKeys", [])  # comes with status 200, so botocore does not retry
            if missing:
                raise TransientError(f"{what}: {len(missing)} were left out, such as {missing[0]['Values']}")

        self._calls.call(what, look_up)
        return found

    def migrate_partitions(self, table: dict[str, Any], found: Iterable[Mapping[str, Any]]) -> None:
        """Migrates partitions, as GetPartition returns them, to their table's schema."""
        behind = [
            {"PartitionValueList": partition["Values"], "PartitionInput": update}
            for partition in found
            if (update := partition_update(partition, table)) is not None
        ]
        names = {"DatabaseName": self._database, "TableName": table["Name"]}
        for chunk in chunks(behind, BATCH):
            self._calls.batch(
                f"update {len(chunk)} partitions of {self._database}.{table['Name']}",
                lambda entries: self._glue.batch_update_partition(**names, Entries=entries),
                {tuple(entry["PartitionValueList"]): entry for entry in chunk},
                values_key="PartitionValueList",
                harmless=_MISSING,  # deleted meanwhile
            )

    def migrate_all_partitions(self, table: dict[str, Any]) -> None:
        """Migrates every partition: Hive, and Athena if types differ, read a partition by its own schema."""
        pages = self._glue.get_paginator("get_partitions")

        def migrate() -> None:
            for page in pages.paginate(DatabaseName=self._database, TableName=table["Name"]):
                self.migrate_partitions(table, page["Partitions"])

        self._calls.call(f"list partitions of {self._database}.{table['Name']}", migrate)

    def _find(self, name: str) -> dict[str, Any] | None:
        """The table in the catalog; None if the table or the database does not exist."""

        def get() -> dict[str, Any] | None:
            try:
                return dict(self._glue.get_table(DatabaseName=self._database, Name=name)["Table"])
            except ClientError as error:
                if error_code(error) == _MISSING:
                    return None
                raise

        return self._calls.call(f"look up Glue table {self._database}.{name}", get)

    def _migrate(self, wanted: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any]:
        """Creates or updates a table until it is as `wanted`, even if other processes do the same meanwhile.

        Returns `wanted` with the columns in the order of the table in the catalog, for readers that go by position.
        """
        name, described = wanted["Name"], False
        for attempt in range(1, self._calls.retry.attempts + 1):
            if found is None:
                self._calls.call(
                    f"create Glue table {self._database}.{name}",
                    lambda: create(self._glue.create_table, DatabaseName=self._database, TableInput=wanted),
                )
            else:
                if (problem := mismatch(found, wanted)) is not None:
                    raise incompatible_schema(self._database, [problem])
                update = table_update(found, wanted)
                if update is not None and (update.migrate_partitions or not described):
                    log.info("updating Glue table %s.%s to the contract", self._database, name)
                    # Descriptions are sent once: Glue may shorten them, so they may differ for ever.
                    done = described = self._update(found, update.table)
                elif PARTITIONS_BEHIND in found.get("Parameters", {}):
                    self.migrate_all_partitions(wanted)
                    others = {key: value for key, value in found["Parameters"].items() if key != PARTITIONS_BEHIND}
                    done = self._update(found, table_input(found) | {"Parameters": others}, SkipArchive=True)
                else:
                    columns = found["StorageDescriptor"]["Columns"]
                    return {**wanted, "StorageDescriptor": {**wanted["StorageDescriptor"], "Columns": columns}}
                if not done:
                    self._calls.retry.sleep(self._calls.retry.pause(attempt))
            found = self._find(name)
        raise TerminalError(
            f"update Glue table {self._database}.{name}: others kept changing it at the same time; see who does "
            f"(`aws glue get-table-versions --database-name {self._database} --table-name {name}`), then start again"
        )

    def _update(self, found: Mapping[str, Any], update: Any, **options: Any) -> bool:
        """UpdateTable. Returns False, and changes nothing, if the table has changed since it was `found`."""

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

        return self._calls.call(f"update Glue table {self._database}.{found['Name']}", send)


def create(call: Callable[..., Any], **arguments: Any) -> None:
    """Calls a Create… operation; an object that exists already is no error."""
    try:
        call(**arguments)
    except ClientError as error:
        if error_code(error) != _EXISTS:
            raise


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _columns(columns: Columns) -> list[dict[str, str]]:
    return [
        {"Name": name, "Type": _HIVE_TYPES.get(kind, kind), "Comment": " ".join(comment.split())[:255]}
        for name, kind, comment in columns
    ]
