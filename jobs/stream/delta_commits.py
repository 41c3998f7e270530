"""Commits final batches to the Delta log of the processed table: each batch once, in order, from its ledger entry.

The commit that adds a batch's files carries `txn` (app id = query, version = batch), so the log itself says which
batches it has. A crash between ledger entry and commit leaves the log behind; `catch_up` commits the missing batches.
If two processes commit the same batch, delta-rs accepts one: the other finds the app id in a commit it had not read.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction

from jobs.common.errors import IncompatibleSchemaError, TerminalError, TransientError
from jobs.common.fault_points import fault_point
from jobs.common.retry import RetryPolicy
from jobs.lake.delta import NO_BATCH, PROCESSED, check_format, last_committed_batch, open_delta, storage_options
from jobs.lake.ledger import Ledger, LedgerEntry, queries
from jobs.lake.store import Lake
from jobs.lake.task_report import WrittenFile
from jobs.schema.partitions import parse_partition_path
from jobs.schema.table import TableContract
from jobs.schema.types import arrow_type

log = logging.getLogger(__name__)

# For errors other than a commit that another one preceded, which delta-rs itself repeats.
RETRY = RetryPolicy(attempts=5, first_pause=0.4)
# The table is reopened after this time, because delta-rs keeps the credentials that it was opened with.
_REOPEN_SECONDS = 300.0
# Without deletion vectors: reader version 1 and writer version 2, which every Delta reader supports.
_CONFIGURATION = {"delta.enableDeletionVectors": "false"}


def table_schema(contract: TableContract) -> Schema:
    """The Delta table's columns: the partition columns, then the columns of the files."""
    columns = (*contract.partition_columns, *contract.table_columns)
    return Schema.from_arrow(pa.schema([pa.field(name, arrow_type(kind)) for name, kind, _ in columns]))


def why_unfit(found: Schema, partitions: Sequence[str], contract: TableContract) -> list[str]:
    """Why a Delta table with this schema and these partition columns cannot follow the contract; empty if it can."""
    wanted = {field.name: field for field in table_schema(contract).fields}
    why = [
        f"column {field.name} is no longer in the contract"
        if field.name not in wanted
        else f"column {field.name} is {_type_name(field)} and cannot become {_type_name(wanted[field.name])}"
        for field in found.fields
        if field.name not in wanted or wanted[field.name].type != field.type
    ]
    if list(partitions) != list(contract.partition_by):
        before, after = ", ".join(partitions) or "nothing", ", ".join(contract.partition_by) or "nothing"
        why.append(f"it is partitioned by {before}, not by {after}")
    return why


def _type_name(field: Field) -> str:
    kind = field.type
    return kind.type if isinstance(kind, PrimitiveType) else str(kind)


class _DeltaLogError(TransientError):
    """The Delta log could not be read or written."""


class DeltaCommitter:
    """Commits to a lake's processed table: `check_table`, `ensure_table`, `catch_up_all`, then `commit` each batch."""

    def __init__(self, lake: Lake, contract: TableContract) -> None:
        self._lake = lake
        self._contract = contract
        self._uri = f"{lake.uri}/{PROCESSED}"
        self._table: DeltaTable | None = None
        self._opened_at = 0.0
        self._committed: dict[str, int] = {}  # by query: number of the last batch in the log

    def check_table(self) -> None:
        """Raises ConfigurationError if the lake holds plain Parquet, or if its table cannot follow the contract.

        Changes nothing.
        """
        check_format(self._lake, "delta")
        table = open_delta(self._uri)
        if table is not None and not self._may_be_defined_again(table):
            self._new_columns(table)

    def ensure_table(self) -> None:
        """Creates the table if it does not exist, and adds the contract's new columns.

        A table without data that cannot follow the contract is defined again, in a new version of it.
        """

        def attempt() -> None:
            table = open_delta(self._uri)
            try:
                if table is None:
                    self._create()
                elif self._may_be_defined_again(table):
                    self._create(again=True)
                elif new := self._new_columns(table):
                    table.alter.add_columns(new)
                    log.info("%s has new columns: %s", self._uri, ", ".join(field.name for field in new))
            except (DeltaError, OSError) as error:  # another job may create or change it at the same time
                raise self._log_error("create or change the table", error) from error

        RETRY.call(attempt, on=_DeltaLogError)

    def catch_up_all(self) -> int:
        """Commits the final batches of all queries that are missing in the log; returns their number."""
        return sum(self.catch_up(query) for query in queries(self._lake))

    def catch_up(self, query: str) -> int:
        """Commits the query's final batches that are missing in the log, in order; returns their number."""
        self._committed[query] = last_committed_batch(self._latest(), query)
        count = 0
        for entry in Ledger(self._lake, query).entries_after(self._committed[query]):
            self._commit(entry)
            count += 1
        return count

    def commit(self, entry: LedgerEntry) -> None:
        """Commits a batch that has just become final, and any earlier batches that are missing in the log.

        Raises TransientError if the log cannot be written. The batch is final; the next start commits it.
        """
        if self._committed.get(entry.query, NO_BATCH) == entry.batch - 1:
            self._commit(entry)
        else:
            self.catch_up(entry.query)

    def _commit(self, entry: LedgerEntry) -> None:
        def attempt() -> None:
            try:
                table = self._latest()
                committed = last_committed_batch(table, entry.query)
                if committed < entry.batch:
                    fault_point("delta.committing")
                    table.create_write_transaction(
                        [_add_action(file, entry) for file in entry.report.files if file.kind == PROCESSED],
                        "append",
                        table.schema(),
                        partition_by=list(self._contract.partition_by),
                        commit_properties=CommitProperties(
                            custom_metadata={"batch": entry.name},
                            app_transactions=[Transaction(entry.query, entry.batch)],
                        ),
                    )
                    fault_point("delta.committed")
                self._committed[entry.query] = max(committed, entry.batch)
            except (DeltaError, OSError, TransientError) as error:
                # The commit may have succeeded, or another job may have made it: the retry reads the log again.
                self._table = None
                raise self._log_error(f"commit batch {entry.name}", error) from error

        RETRY.call(attempt, on=_DeltaLogError)

    def _latest(self) -> DeltaTable:
        """The table at its latest version."""
        if self._table is not None and time.monotonic() - self._opened_at < _REOPEN_SECONDS:
            try:
                self._table.update_incremental()
                return self._table
            except (DeltaError, OSError) as error:
                log.info("%s is opened again: %s", self._uri, error)
        self._table, self._opened_at = open_delta(self._uri), time.monotonic()
        if self._table is None:
            raise TerminalError(
                f"{self._uri}/_delta_log is gone: it has been deleted. Restore it from the bucket's older object "
                "versions, or start a new lake"
            )
        return self._table

    def _may_be_defined_again(self, table: DeltaTable) -> bool:
        """Whether the table cannot follow the contract, and no file is in its folder: not even one of a final batch
        that is missing in the log."""
        if not why_unfit(table.schema(), table.metadata().partition_columns, self._contract):
            return False
        log_folder = f"{PROCESSED}/_delta_log/"
        return all(path.startswith(log_folder) for path, _ in self._lake.list(f"{PROCESSED}/"))

    def _create(self, again: bool = False) -> None:
        DeltaTable.create(
            self._uri,
            table_schema(self._contract),
            mode="overwrite" if again else "error",
            partition_by=list(self._contract.partition_by),
            name=PROCESSED,
            description=self._contract.comment or None,
            configuration=_CONFIGURATION,
            storage_options=storage_options(self._uri),
        )
        log.info("%s the Delta table %s", "defined again" if again else "created", self._uri)

    def _new_columns(self, table: DeltaTable) -> list[Field]:
        """The contract's columns that the table lacks. Raises IncompatibleSchemaError for any other difference."""
        why = why_unfit(table.schema(), table.metadata().partition_columns, self._contract)
        if why:
            raise IncompatibleSchemaError(
                f"the Delta table {self._uri} cannot follow the contract: {'; '.join(why)}. Nothing was started or "
                "changed. A Delta table can only get new columns; no column can change, not even from int to long. "
                "Keep the columns as they are, or give the new contract a lake of its own: `lake` and `database`"
            )
        found = {field.name for field in table.schema().fields}
        return [field for field in table_schema(self._contract).fields if field.name not in found]

    def _log_error(self, what: str, error: Exception) -> _DeltaLogError:
        log.info("%s failed: %s", what, error)
        return _DeltaLogError(
            f"{what} in the Delta log of {self._uri}: {error}. No record is lost: the next start of the job commits "
            "the batches that are in the ledger"
        )


def _add_action(file: WrittenFile, entry: LedgerEntry) -> AddAction:
    return AddAction(
        file.path.removeprefix(f"{PROCESSED}/"),  # unescaped: delta-rs percent-encodes it
        file.bytes,
        parse_partition_path(file.partition),
        int(entry.finished_at.timestamp() * 1000),
        True,
        json.dumps({"numRecords": file.rows}),
    )
