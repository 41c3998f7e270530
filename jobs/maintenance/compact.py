"""Compaction: rewrites the small Parquet files of each partition of the processed table into few large ones.

Runs beside the stream and needs no Spark: `movement compact`, or `python -m jobs.compact_job --config FILE` from any
scheduler. A run first finishes the moves of a run that died and deletes files that were replaced a grace time ago. Then
it moves every partition that has many small files, or that can move back to its default folder (docs/adr/0007).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.glue_calls import chunks
from jobs.catalog.tables import lake_tables
from jobs.common.aws import client
from jobs.common.errors import AwsAccessError, ConfigurationError
from jobs.lake.delta import check_format
from jobs.lake.lease import Lease
from jobs.lake.partition_locations import COMPACTED, copy_all
from jobs.lake.store import Lake, file_name, lake_at
from jobs.lake.table_files import LiveFile, live_files
from jobs.lake.task_report import TableName
from jobs.maintenance.delta import optimize, vacuum
from jobs.maintenance.partition_move import Fill, Mover, MoveResult, StoredFile
from jobs.maintenance.rewriter import Rewriter
from jobs.schema.table import load_contract
from jobs.settings.job_main import job_parser, run_job
from jobs.settings.settings import Settings

log = logging.getLogger(__name__)

TABLE: TableName = "processed"
# Partitions that move together. While they move, batches write their files to two locations.
GROUP = 32
# Files that `files_status` reads: 100 list requests.
MAX_LISTED = 100_000

# Called at each step: partitions done, partitions in all, the current step.
OnStep = Callable[[int, int, str], None]


@dataclass
class CompactResult:
    """What a run did.

    partitions    those that were compacted; `files_…` and `bytes_…` are theirs, before and after
    removed       files deleted because an earlier run (or this one, with a grace time of 0) had replaced them
    home          partitions that moved back to their default folder
    left          by partition, why it was left as it is
    recovered     partitions whose move a run that died had started
    """

    partitions: list[str] = field(default_factory=list)
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    removed: int = 0
    removed_bytes: int = 0
    home: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    recovered: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, moved: MoveResult) -> None:
        """Adds partitions that were compacted."""
        self.partitions = sorted({*self.partitions, *moved.after})
        self.files_before += sum(files for files, _ in moved.before.values())
        self.bytes_before += sum(size for _, size in moved.before.values())
        self.files_after += sum(files for files, _ in moved.after.values())
        self.bytes_after += sum(size for _, size in moved.after.values())
        self.left |= moved.left


@dataclass(frozen=True)
class PartitionDebt:
    """The compaction debt of a partition. `files_after`: about how many files it would have after compaction."""

    partition: str
    files: int
    small_files: int
    bytes: int
    small_bytes: int
    files_after: int

    def is_due(self, min_files: int) -> bool:
        """Whether the partition has at least `min_files` small files and compaction would leave fewer files."""
        return self.small_files >= min_files and self.files_after < self.files


def is_small(size: int, target_bytes: int) -> bool:
    """Whether a file is smaller than half the target, so that two of them fit into one."""
    return size < target_bytes / 2


def compaction_debt(files: Iterable[LiveFile], target_bytes: int) -> list[PartitionDebt]:
    """The debt of each partition, from a table's live files."""
    sizes: dict[str, list[int]] = {}
    for file in files:
        sizes.setdefault(file.partition, []).append(file.bytes)
    debts = []
    for partition, all_sizes in sorted(sizes.items()):
        small = [size for size in all_sizes if is_small(size, target_bytes)]
        merged = -(-sum(small) // target_bytes) or len(small)
        files_after = len(all_sizes) - len(small) + merged
        debts.append(PartitionDebt(partition, len(all_sizes), len(small), sum(all_sizes), sum(small), files_after))
    return debts


def plan(settings: Settings, partitions: Sequence[str] | None = None) -> list[PartitionDebt]:
    """The debt of the processed table's partitions, or of those named. Changes nothing.

    Raises ConfigurationError for a partition without files, or if the table's format is not `sink.format`.
    """
    lake = lake_at(settings.lake)
    check_format(lake, settings.sink.format)
    debts = compaction_debt(live_files(lake, TABLE, partitions), settings.compact.target_bytes)
    missing = set(partitions or ()) - {debt.partition for debt in debts}
    if missing:
        raise ConfigurationError(
            f"--partition {min(missing)}: no files; give a folder of {settings.lake}/{TABLE}, such as "
            "city=Paris/start_date=2016-09-03"
        )
    return debts


def files_status(settings: Settings) -> dict[str, Any]:
    """The processed table's files and what is due for compaction, for `movement status`.

    `complete`: false if there are more than MAX_LISTED files; the figures are then those of the first MAX_LISTED.
    """
    try:
        listed = list(islice(live_files(lake_at(settings.lake), TABLE), MAX_LISTED + 1))
    except AwsAccessError:
        listed = []
    debts = compaction_debt(listed[:MAX_LISTED], settings.compact.target_bytes)
    return {
        "partitions": len(debts),
        "files": sum(debt.files for debt in debts),
        "small_files": sum(debt.small_files for debt in debts),
        "bytes": sum(debt.bytes for debt in debts),
        "partitions_to_compact": sum(debt.is_due(settings.compact.min_files) for debt in debts),
        "complete": len(listed) <= MAX_LISTED,
    }


def run(
    settings: Settings,
    partitions: Sequence[str] | None = None,
    on_step: OnStep = lambda _done, _all, _what: None,
) -> CompactResult:
    """Compacts all partitions that are due, or those of `partitions`. Safe to repeat and to kill.

    Raises AlreadyRunningError if another run moves partitions of this lake, or another MovementError.
    """
    started, result = time.perf_counter(), CompactResult()
    due = [debt for debt in plan(settings, partitions) if debt.is_due(settings.compact.min_files)]
    if settings.sink.format == "delta":
        _compact_delta(settings, due, result, on_step)
    else:
        _compact_parquet(settings, partitions, due, result, on_step)
    result.seconds = round(time.perf_counter() - started, 3)
    return result


def _compact_parquet(
    settings: Settings,
    partitions: Sequence[str] | None,
    due: Sequence[PartitionDebt],
    result: CompactResult,
    on_step: OnStep,
) -> None:
    lake, compact = lake_at(settings.lake), settings.compact
    chosen = sorted(debt.partition for debt in due)
    rewriter = Rewriter(
        lake,
        load_contract(settings.contract),
        TABLE,
        COMPACTED,
        settings.sink.parquet_compression,
        compact.target_bytes,
    )
    with partition_mover(settings) as mover:
        result.recovered = mover.recover()

        def sweep() -> None:
            on_step(len(result.partitions), len(chosen), "deleting replaced files")
            files, size = mover.sweep(timedelta(seconds=compact.grace_seconds))
            result.removed += files
            result.removed_bytes += size

        sweep()
        for group in chunks(chosen, GROUP):
            on_step(len(result.partitions), len(chosen), group[0])
            result.add(mover.move(group, compaction_fill(rewriter)))
        sweep()
        wanted = set(partitions) if partitions is not None else set(mover.layout.partitions)
        home = [name for name in sorted(wanted) if name not in result.left and mover.can_restore_default(name)]
        for group in chunks(home, GROUP):
            on_step(len(result.partitions), len(chosen), f"{group[0]} back to its default folder")
            moved = mover.move(group, copy_fill(lake))
            result.home += sorted(moved.after)
            result.left |= moved.left
        if home:
            sweep()
        if result.partitions or home:
            # A job that started meanwhile may have put back partitions as it had read them before the move.
            result.recovered = sorted({*result.recovered, *mover.repair()})


def _compact_delta(settings: Settings, due: Sequence[PartitionDebt], result: CompactResult, on_step: OnStep) -> None:
    """A Delta table needs no moves: its log switches the files."""
    lake, compact = lake_at(settings.lake), settings.compact
    with _table_lease(settings) as lease:
        for done, debt in enumerate(due):
            on_step(done, len(due), debt.partition)
            lease.check()
            new = optimize(lake, debt.partition, compact.target_bytes, settings.sink.parquet_compression)
            if new is None:
                result.left[debt.partition] = "no files in it can be merged"
                continue
            result.partitions.append(debt.partition)
            result.files_before += new.files_before
            result.bytes_before += new.bytes_before
            result.files_after += new.files_after
            result.bytes_after += new.bytes_after
        on_step(len(due), len(due), "deleting replaced files")
        lease.check()
        result.removed, result.removed_bytes = vacuum(lake, compact.grace_seconds)


def _table_lease(settings: Settings) -> Lease:
    """Only one run at a time moves partitions of the processed table."""
    return Lease(
        lake_at(settings.lake),
        f"{settings.lake}/{TABLE}",
        holder="run that moves partitions of",
        remedy="run it again once the other has ended",
    )


@contextmanager
def partition_mover(settings: Settings) -> Iterator[Mover]:
    """A mover of the processed table, under the table's lease."""
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    with _table_lease(settings) as lease:
        catalog.ensure_tables(lake_tables(load_contract(settings.contract)))
        wait_seconds = settings.compact.batch_wait_seconds
        yield Mover(lake_at(settings.lake), catalog, TABLE, lease.check, wait_seconds=wait_seconds)


def compaction_fill(rewriter: Rewriter) -> Fill:
    """Fills a partition's new location: merges its small files and copies the others."""

    def fill(partition: str, files: list[StoredFile], location: str) -> None:
        small = [file for file in files if is_small(file.bytes, rewriter.target_bytes)]
        unchanged = [file for file in files if file not in small]
        if len(small) == 1:
            unchanged, small = files, []
        # The rewriter adds files that it cannot read to `unchanged`.
        rewriter.write(partition, rewriter.read(small, unchanged), location)
        copy_fill(rewriter.lake)(partition, unchanged, location)

    return fill


def copy_fill(lake: Lake) -> Fill:
    """Fills a partition's new location with copies of its files."""

    def fill(_partition: str, files: list[StoredFile], location: str) -> None:
        copy_all(lake, [(file.path, location + file_name(file.path)) for file in files])

    return fill


def main(arguments: list[str] | None = None) -> int:
    """For a scheduler; returns the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument("--partition", metavar="FOLDER", action="append", help="only this one; may be repeated")
    return run_job(parser, lambda settings, options: run(settings, options.partition), arguments)
