"""Creates the lake's tables in the Glue Data Catalog, registers partitions, and points them to where their files are.

Every call is safe to repeat: what exists already counts as success. A batch's ledger entry is written after `register`,
so a final batch is always visible to Athena, Spark and Redshift Spectrum.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.catalog.glue_calls import (
    BATCH,
    EXISTS,
    MISSING,
    GlueCalls,
    PartitionValues,
    chunks,
    create,
)
from jobs.catalog.schema_evolution import normalized_location
from jobs.catalog.table_migrator import TableMigrator
from jobs.catalog.tables import LakeTable, glue_table, storage_descriptor
from jobs.common.aws import error_code
from jobs.common.errors import AwsAccessError
from jobs.common.fault_points import fault_point
from jobs.common.retry import RetryPolicy
from jobs.lake.partition_locations import RELOCATED, Layout, point_to_files, read_layout
from jobs.lake.store import lake_at
from jobs.schema.partitions import NULL_PARTITION, parse_partition_path, partition_path

if TYPE_CHECKING:
    from types_boto3_glue import GlueClient

log = logging.getLogger(__name__)

_DELETED_AT_ONCE = 25  # AWS's limit of partitions in one BatchDeletePartition
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
        self._migrator = TableMigrator(glue, database, self._calls, self._holds_files)
        self._tables: dict[str, LakeTable] = {}
        self._schemas: dict[str, dict[str, Any]] = {}
        self._registered: set[tuple[str, str]] = set()
        self._refused: dict[tuple[str, str], str] = {}

    @property
    def root(self) -> str:
        """The lake's address as the locations in the catalog start with it."""
        return self._lake if "://" in self._lake else f"file://{self._lake}"

    def ensure_tables(self, tables: Iterable[LakeTable]) -> None:
        """Creates the database and missing tables, and migrates existing tables and partitions to the contract.

        `register` then knows these tables. A table without data follows every contract. Raises IncompatibleSchemaError,
        before anything is changed, if a table with data cannot follow.
        """
        by_name = {table.name: table for table in tables}
        self._schemas |= self._migrator.ensure(glue_table(table, self.root) for table in by_name.values())
        self._tables |= by_name

    def _holds_files(self, table: Mapping[str, Any]) -> bool:
        """Whether the lake has a file of the table with this TableInput. A Delta log alone is none."""
        folder = str(table["StorageDescriptor"]["Location"]).removeprefix(f"{self.root}/")
        lake = lake_at(self._lake)
        return any(
            not path.startswith(f"{folder}_delta_log/")
            for prefix in (folder, f"{RELOCATED}/{table['Name']}/")
            for path, _ in lake.list(prefix)
        )

    def missing_tables(self, tables: Iterable[LakeTable]) -> list[str]:
        """The names of the tables that the catalog lacks. `locations` then knows these tables. Changes nothing."""
        by_name = {table.name: table for table in tables}
        self._tables |= by_name
        return [name for name in by_name if self._migrator.find(name) is None]

    def register(self, table: str, partitions: Iterable[str], locations: Mapping[str, str] | None = None) -> int:
        """Registers partitions such as `city=Paris/start_date=2016-09-03`. Returns how many this call sent.

        `locations`: the locations of partitions that are not in their default folder, relative to the lake. Skips
        partitions that this process has registered before. An existing partition with an older schema is migrated; one
        that is elsewhere is pointed to its files. A partition that Glue refuses is set aside (`refused`). If the table
        or the database was dropped, creates it again.
        """
        folders = list(dict.fromkeys(partitions))
        try:
            return self._register_new(table, folders, locations or {})
        except AwsAccessError as error:
            if not isinstance(error.__cause__, ClientError) or error_code(error.__cause__) != MISSING:
                raise
        log.warning("Glue table %s.%s was dropped: it is created again", self._database, table)
        self._registered.clear()
        self.ensure_tables(self._tables.values())
        return self._register_new(table, folders, locations or {})

    def refused(self, table: str, partitions: Iterable[str]) -> list[str]:
        """A sentence for each of the partitions that Glue has refused: queries do not see their rows."""
        return [
            f"partition {folder} of {self._database}.{table}: Glue refused it ({self._refused[table, folder]}), so "
            "queries do not see its rows. They are in the lake: correct what Glue names, then run `movement catalog "
            "repair`"
            for folder in partitions
            if (table, folder) in self._refused
        ]

    def point_to_files(self, table: str, partitions: Iterable[str]) -> None:
        """Points registered partitions to where their files are, also while compaction moves them."""
        point_to_files(lambda: self.layout(table), partitions, lambda wanted: self._point(table, wanted))

    def layout(self, table: str) -> Layout:
        """The table's layout as it is stored now."""
        return read_layout(lake_at(self._lake), table)

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
                if error_code(error) != MISSING:
                    raise
                if not create(self._glue.create_partition, **names, PartitionInput=wanted):
                    move()  # another job has registered it meanwhile, perhaps elsewhere
                return
            try:
                self._glue.update_partition(
                    **names, PartitionValueList=wanted["Values"], PartitionInput=_moved(found, _location(wanted))
                )
            except ClientError as error:
                if error_code(error) != MISSING:
                    raise
                move()  # somebody has dropped it meanwhile

        self._calls.call(f"move partition {partition} of {self._database}.{table}", move)

    def remove(self, table: str, partitions: Iterable[str]) -> None:
        """Removes partitions from the catalog. Deletes no files."""
        names = {"DatabaseName": self._database, "TableName": table}
        for chunk in chunks(list(partitions), _DELETED_AT_ONCE):
            what = f"remove {len(chunk)} partitions of {self._database}.{table}"
            answer = self._calls.batch(
                what,
                lambda entries: self._glue.batch_delete_partition(**names, PartitionsToDelete=entries),
                {values: {"Values": list(values)} for values in (self._values(table, folder) for folder in chunk)},
                values_key="PartitionValues",
                harmless=MISSING,
            )
            answer.raise_refused(what)
            self._registered.difference_update((table, folder) for folder in chunk)

    def locations(self, table: str) -> dict[str, str]:
        """By partition `city=…/start_date=…`: the location that the catalog gives to readers."""
        names = [name for name, _, _ in self._tables[table].partitions]
        return {partition_path(names, values): location for values, location in self._list_partitions(table)}

    def partitions(self, table: str) -> list[dict[str, str]]:
        """The values of every partition of a table, by column."""
        return [values for values, _ in self._list_partitions(table)]

    def _register_new(self, table: str, folders: Iterable[str], locations: Mapping[str, str]) -> int:
        new = [folder for folder in folders if (table, folder) not in self._registered]
        for chunk in chunks(new, BATCH):
            fault_point("catalog.registering")
            self._register(table, chunk, locations)
            fault_point("catalog.registered")
        return len(new)

    def _register(self, table: str, folders: Sequence[str], locations: Mapping[str, str]) -> None:
        names = {"DatabaseName": self._database, "TableName": table}
        inputs = {
            self._values(table, folder): self._partition_input(self._tables[table], folder, locations.get(folder))
            for folder in folders
        }
        answer = self._calls.batch(
            f"register {len(folders)} partitions of {self._database}.{table}",
            lambda entries: self._glue.batch_create_partition(**names, PartitionInputList=entries),
            inputs,
            values_key="PartitionValues",
            harmless=EXISTS,
        )
        if answer.harmless:
            found = self._migrator.partitions(table, answer.harmless)
            self._migrator.migrate_partitions(self._schemas[table], found)
            elsewhere = [each for each in found if not _is_at(each, _location(inputs[tuple(each["Values"])]))]
            self.point_to_files(table, [self._folder(table, each["Values"]) for each in elsewhere])
        for folder in folders:
            self._refused.pop((table, folder), None)
        self._set_aside(table, answer.refused)
        self._registered.update((table, folder) for folder in folders if (table, folder) not in self._refused)

    def _point(self, table: str, wanted: Mapping[str, str]) -> None:
        """Points partitions to the `wanted` locations (relative to the lake). Omits those that are not registered."""
        names = {"DatabaseName": self._database, "TableName": table}
        uris = {self._values(table, folder): f"{self.root}/{location}" for folder, location in wanted.items()}
        for chunk in chunks(list(uris), BATCH):
            updates = {}
            for found in self._migrator.partitions(table, chunk):
                values = tuple(found["Values"])
                if _is_at(found, uris[values]):
                    continue
                log.warning(
                    "partition %s of %s.%s: the catalog named %s, its files are in %s: corrected",
                    self._folder(table, values), self._database, table, _location(found), uris[values],
                )  # fmt: skip
                update = _moved(found, uris[values])
                updates[values] = {"PartitionValueList": list(values), "PartitionInput": update}
            if updates:
                answer = self._calls.batch(
                    f"move {len(updates)} partitions of {self._database}.{table}",
                    lambda entries: self._glue.batch_update_partition(**names, Entries=entries),
                    updates,
                    values_key="PartitionValueList",
                    harmless=MISSING,
                )
                self._set_aside(table, answer.refused)

    def _set_aside(self, table: str, refused: Mapping[PartitionValues, str]) -> None:
        for values, reason in refused.items():
            folder = self._folder(table, values)
            self._refused[table, folder] = reason
            log.warning("%s", *self.refused(table, [folder]))

    def _values(self, table: str, folder: str) -> PartitionValues:
        """A partition's values as Glue has them."""
        values = parse_partition_path(folder)
        return tuple(values[name] or NULL_PARTITION for name, _, _ in self._tables[table].partitions)

    def _folder(self, table: str, values: Sequence[str]) -> str:
        names = [name for name, _, _ in self._tables[table].partitions]
        return partition_path(names, dict(zip(names, values, strict=True)))

    def _list_partitions(self, table: str) -> list[tuple[dict[str, str], str]]:
        """Every partition of a table: its values by column, and its location."""
        names = [name for name, _, _ in self._tables[table].partitions]
        pages = self._glue.get_paginator("get_partitions")

        def read() -> list[tuple[dict[str, str], str]]:
            return [
                (dict(zip(names, found["Values"], strict=True)), _location(found))
                for page in pages.paginate(DatabaseName=self._database, TableName=table, ExcludeColumnSchema=True)
                for found in page["Partitions"]
            ]

        return self._calls.call(f"list partitions of {self._database}.{table}", read)

    def _partition_input(self, table: LakeTable, folder: str, location: str | None = None) -> dict[str, Any]:
        # In the order of the table in the catalog, for readers that go by position.
        columns = self._schemas[table.name]["StorageDescriptor"]["Columns"]
        return {
            "Values": list(self._values(table.name, folder)),
            "StorageDescriptor": {
                **storage_descriptor(table, f"{self.root}/{location or f'{table.folder or table.name}/{folder}/'}"),
                "Columns": columns,
            },
        }


def _location(partition: Mapping[str, Any]) -> str:
    """The location of a partition as Glue describes it; empty if it has none."""
    return str(partition.get("StorageDescriptor", {}).get("Location", ""))


def _is_at(partition: Mapping[str, Any], uri: str) -> bool:
    return normalized_location(_location(partition)) == normalized_location(uri)


def _moved(found: Mapping[str, Any], uri: str) -> Any:
    """The PartitionInput that changes only the location of a partition, given as GetPartition returns it."""
    update = {key: found[key] for key in _PARTITION_KEYS if key in found}
    return {**update, "StorageDescriptor": {**found["StorageDescriptor"], "Location": uri}}
