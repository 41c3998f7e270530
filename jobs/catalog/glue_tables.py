"""The tables of one database, made and kept up with the contract: `evolution` decides, here are the calls.

Safe to repeat and to kill: first the table, with a note that its partitions are behind, then these, then the note goes.
Source: https://docs.aws.amazon.com/glue/latest/webapi/ (GetTable, UpdateTable, BatchUpdatePartition).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from jobs.catalog.evolution import BEHIND, evolved, evolved_partition, mismatch, refusal, table_input
from jobs.catalog.patience import Patience, pauses
from jobs.contract.aws import error_code
from jobs.contract.errors import TerminalError, TransientError

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
