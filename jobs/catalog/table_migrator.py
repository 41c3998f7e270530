"""Creates the Glue tables and migrates existing ones, and their partitions, to the contract.

`schema_evolution` decides what changes; this module makes the calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.catalog.glue_calls import BATCH, MISSING, GlueCalls, chunks, create
from jobs.catalog.schema_evolution import (
    PARTITIONS_BEHIND,
    Mismatch,
    incompatible_schema,
    is_same_location,
    mismatch,
    partition_update,
    redefinition,
    table_input,
    table_update,
)
from jobs.common.aws import error_code
from jobs.common.errors import TerminalError, TransientError

if TYPE_CHECKING:
    from types_boto3_glue import GlueClient

log = logging.getLogger(__name__)

# UpdateTable with a version that is no longer the latest.
_CHANGED_MEANWHILE = {"ConcurrentModificationException", "VersionMismatchException"}


class TableMigrator:
    """Creates tables and migrates existing ones; `schema_evolution` decides what changes.

    glue         a boto3 client
    holds_files  whether the lake has a file of the table with this TableInput. A table without files and partitions
                 follows every contract
    """

    def __init__(
        self,
        glue: GlueClient,
        database: str,
        calls: GlueCalls,
        holds_files: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    ) -> None:
        self._glue = glue
        self._database = database
        self._calls = calls
        self._holds_files = holds_files

    def ensure(self, wanted: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Creates missing tables and migrates the others to the `wanted` TableInputs.

        Returns, by table, the schema for its partitions. Raises IncompatibleSchemaError, before anything is changed, if
        a table with data cannot follow.
        """
        by_name = {table["Name"]: table for table in wanted}
        found = {name: self.find(name) for name in by_name}
        mismatches = [
            problem
            for name, table in by_name.items()
            if (existing := found[name]) is not None and (problem := self._problem(existing, table)) is not None
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
            what = f"update {len(chunk)} partitions of {self._database}.{table['Name']}"
            answer = self._calls.batch(
                what,
                lambda entries: self._glue.batch_update_partition(**names, Entries=entries),
                {tuple(entry["PartitionValueList"]): entry for entry in chunk},
                values_key="PartitionValueList",
                harmless=MISSING,  # deleted meanwhile
            )
            answer.raise_refused(what)

    def migrate_all_partitions(self, table: dict[str, Any]) -> None:
        """Migrates every partition: Hive, and Athena if types differ, read a partition by its own schema."""
        pages = self._glue.get_paginator("get_partitions")

        def migrate() -> None:
            for page in pages.paginate(DatabaseName=self._database, TableName=table["Name"]):
                self.migrate_partitions(table, page["Partitions"])

        self._calls.call(f"list partitions of {self._database}.{table['Name']}", migrate)

    def find(self, name: str) -> dict[str, Any] | None:
        """The table in the catalog; None if the table or the database does not exist."""

        def get() -> dict[str, Any] | None:
            try:
                return dict(self._glue.get_table(DatabaseName=self._database, Name=name)["Table"])
            except ClientError as error:
                if error_code(error) == MISSING:
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
                if (problem := self._problem(found, wanted)) is not None:
                    raise incompatible_schema(self._database, [problem])
                update = table_update(found, wanted)
                if mismatch(found, wanted) is not None:
                    log.info("Glue table %s.%s has no data: it is defined again", self._database, name)
                    done = self._update(found, redefinition(found, wanted))
                elif update is not None and (update.migrate_partitions or not described):
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
            found = self.find(name)
        raise TerminalError(
            f"update Glue table {self._database}.{name}: others kept changing it at the same time; see who does "
            f"(`aws glue get-table-versions --database-name {self._database} --table-name {name}`), then start again"
        )

    def _problem(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mismatch | None:
        """Why the table `found` cannot become `wanted`. A table of this lake that has no data can become anything."""
        problem = mismatch(found, wanted)
        if problem is None or not is_same_location(found, wanted) or self._holds_files(wanted):
            return problem
        return problem if found.get("PartitionKeys") and self._has_partitions(wanted["Name"]) else None

    def _has_partitions(self, name: str) -> bool:
        answer = self._calls.call(
            f"list partitions of {self._database}.{name}",
            lambda: self._glue.get_partitions(
                DatabaseName=self._database, TableName=name, MaxResults=1, ExcludeColumnSchema=True
            ),
        )
        return bool(answer["Partitions"])

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
