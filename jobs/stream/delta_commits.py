"""The Delta log of the processed table, a projection of the ledger: each final batch is one commit, once.

The commit that adds a batch's files carries `txn` (app id = query, version = batch), so how far the log is stands in
the log alone. A crash between ledger and log leaves the log behind, and `catch_up` brings it up from the ledger. Of two
who commit the same batch delta-rs lets one through: the other finds the app id in a commit that it had not read.
"""

from __future__ import annotations

import json
import logging
import time

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from jobs.common.errors import IncompatibleSchemaError, TerminalError, TransientError
from jobs.common.fault_points import fault_point
from jobs.lake.delta import NOTHING, PROCESSED, check_format, open_delta, progress_of, storage_options
from jobs.lake.ledger import Ledger, LedgerEntry, queries
from jobs.lake.store import Lake
from jobs.lake.task_report import WrittenFile
from jobs.schema.partitions import parse_partition_path
from jobs.schema.record_parser import ARROW_TYPES
from jobs.schema.table import TableContract

log = logging.getLogger(__name__)

# delta-rs itself tries a commit again where another one came first; this is for what it does not.
_PAUSES = (0.1, 0.5, 2.0, 5.0)
# delta-rs is given credentials, not where they come from: they last longer than this.
_REOPEN_SECONDS = 300.0
# Reader version 1, writer version 2: what every reader of Delta knows.
_CONFIGURATION = {"delta.enableDeletionVectors": "false"}


def table_schema(contract: TableContract) -> Schema:
    """The Delta table's columns: the partition's, then those that stand in the files."""
    columns = (*contract.partition_columns, *contract.table_columns)
    return Schema.from_arrow(pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind, _ in columns]))


class DeltaLog:
    """Writes the log of one lake's processed table: `check`, `ensure`, `catch_up_all`, then `add` for each batch."""

    def __init__(self, lake: Lake, contract: TableContract) -> None:
        self._lake = lake
        self._contract = contract
        self._uri = f"{lake.uri}/{PROCESSED}"
        self._table: DeltaTable | None = None
        self._opened = 0.0
        self._done: dict[str, int] = {}

    def check(self) -> None:
        """Raises ConfigurationError, and changes nothing, where the lake holds plain Parquet, or where its table
        cannot follow the contract."""
        check_format(self._lake, "delta")
        opened = open_delta(self._lake)
        if opened is not None:
            self._new_columns(opened)

    def ensure(self) -> None:
        """Makes the table where there is none, and adds the columns that are new in the contract."""
        for pause in (*_PAUSES, None):
            opened = open_delta(self._lake)
            try:
                if opened is None:
                    self._create()
                    return
                new = self._new_columns(opened)
                if new:
                    opened.alter.add_columns(new)
                    log.info("%s has new columns: %s", self._uri, ", ".join(field.name for field in new))
                return
            except (DeltaError, OSError) as error:  # another job makes or changes it as well
                self._again(pause, "make the table", error)

    def catch_up_all(self) -> int:
        """Commits every final batch, of all queries, that a job which died did not; how many."""
        return sum(self.catch_up(query) for query in queries(self._lake))

    def catch_up(self, query: str) -> int:
        """Commits the query's final batches that are not in the log, in order; how many there were."""
        self._done[query] = progress_of(self._fresh(), query)
        count = 0
        for entry in Ledger(self._lake, query).following(self._done[query]):
            self._commit(entry)
            count += 1
        return count

    def add(self, entry: LedgerEntry) -> None:
        """Commits a batch that has just become final, and those before it that are not in the log.

        Raises TransientError where the log cannot be written: the batch is final, and the next start catches it up.
        """
        if self._done.get(entry.query, NOTHING) == entry.batch - 1:
            self._commit(entry)
        else:
            self.catch_up(entry.query)

    def _commit(self, entry: LedgerEntry) -> None:
        name = f"{entry.query}-{entry.batch}"
        for pause in (*_PAUSES, None):
            try:
                opened = self._fresh()
                done = progress_of(opened, entry.query)
                if done < entry.batch:
                    fault_point("delta.committing")
                    opened.create_write_transaction(
                        [_add(file, entry) for file in entry.report.files if file.kind == PROCESSED],
                        "append",
                        opened.schema(),
                        partition_by=list(self._contract.partition_by),
                        commit_properties=CommitProperties(
                            custom_metadata={"batch": name},
                            app_transactions=[Transaction(entry.query, entry.batch)],
                        ),
                    )
                    fault_point("delta.committed")
                self._done[entry.query] = max(done, entry.batch)
                return
            except (DeltaError, OSError, TransientError) as error:
                # It may have been written all the same, or by another job: the log is read anew, and says so.
                self._table = None
                self._again(pause, f"commit batch {name}", error)

    def _fresh(self) -> DeltaTable:
        """The table at its latest version."""
        if self._table is not None and time.monotonic() - self._opened < _REOPEN_SECONDS:
            try:
                self._table.update_incremental()
                return self._table
            except (DeltaError, OSError) as error:
                log.info("%s is opened anew: %s", self._uri, error)
        self._table, self._opened = open_delta(self._lake), time.monotonic()
        if self._table is None:
            raise TerminalError(
                f"{self._uri}/_delta_log is gone: somebody has deleted it. Put it back (a version of the bucket), or "
                "begin another lake"
            )
        return self._table

    def _create(self) -> None:
        DeltaTable.create(
            self._uri,
            table_schema(self._contract),
            mode="error",
            partition_by=list(self._contract.partition_by),
            name=PROCESSED,
            description=self._contract.comment or None,
            configuration=_CONFIGURATION,
            storage_options=storage_options(self._lake),
        )
        log.info("%s is made, a Delta table", self._uri)

    def _new_columns(self, opened: DeltaTable) -> list[Field]:
        """The contract's columns that the table lacks. Raises IncompatibleSchemaError for any other difference."""
        found = {field.name: field for field in opened.schema().fields}
        wanted = {field.name: field for field in table_schema(self._contract).fields}
        why = [
            f"column {name} is no longer in the contract"
            if name not in wanted
            else f"column {name} is {field.type.type} and cannot become {wanted[name].type.type}"
            for name, field in found.items()
            if name not in wanted or wanted[name].type != field.type
        ]
        partitions = opened.metadata().partition_columns
        if partitions != list(self._contract.partition_by):
            why.append(f"it is partitioned by {', '.join(partitions)}, not by {', '.join(self._contract.partition_by)}")
        if why:
            raise IncompatibleSchemaError(
                f"{self._uri}, a Delta table, cannot follow the contract: {'; '.join(why)}. Nothing was started or "
                "changed. It can take new columns and nothing else, int made long included. Keep what is there, or "
                "give the new contract a lake of its own: `lake` and `database`"
            )
        return [field for name, field in wanted.items() if name not in found]

    def _again(self, pause: float | None, what: str, error: Exception) -> None:
        if pause is None:
            raise TransientError(
                f"{what} in the Delta log of {self._uri}: {error}. What is in the ledger is not lost: the next start "
                "of the job brings the log up to it"
            ) from error
        log.info("%s: tried again in %g s: %s", what, pause, error)
        time.sleep(pause)


def _add(file: WrittenFile, entry: LedgerEntry) -> AddAction:
    return AddAction(
        file.path.removeprefix(f"{PROCESSED}/"),  # as it is: delta-rs percent-encodes it into the log
        file.bytes,
        parse_partition_path(file.partition),
        int(entry.finished_at.timestamp() * 1000),
        True,
        json.dumps({"numRecords": file.rows}),
    )
