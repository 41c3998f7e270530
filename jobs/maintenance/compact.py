"""Entry point: compaction. Small Parquet files of the processed table → few of the target size, beside the stream.

Needs no Spark: `movement compact`, or `python -m jobs.compact_job --config FILE` from any scheduler. A run ends what
a dead one began, deletes files that were replaced a grace time ago, and then moves each partition that has many small
files, or that can come back to its plain folder, as docs/adr/0007 says.
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
from jobs.catalog.tables import lake_tables
from jobs.common.aws import client
from jobs.common.errors import AwsAccessError, ConfigurationError
from jobs.lake.delta import check_format
from jobs.lake.lease import Lease
from jobs.lake.partition_locations import COMPACTED, copy_all
from jobs.lake.store import Lake, lake_at
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
# Partitions that are moved at once: writers write to both of their locations meanwhile.
GROUP = 32

# Told of each step: partitions done, partitions in all, what is being done.
Progress = Callable[[int, int, str], None]


@dataclass
class CompactResult:
    """What a run did. Files and bytes, before and after, are those of the `partitions` that were compacted.

    `left`: partition → why it stays as it is; `home`: partitions that are back in their plain folder; `removed`
    (files) and `removed_bytes`: what was replaced by earlier runs, or with a grace time of 0 by this one;
    `recovered`: partitions whose move a dead run had begun.
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
        """Takes in partitions that were compacted."""
        self.partitions = sorted({*self.partitions, *moved.after})
        self.files_before += sum(files for files, _ in moved.before.values())
        self.bytes_before += sum(size for _, size in moved.before.values())
        self.files_after += sum(files for files, _ in moved.after.values())
        self.bytes_after += sum(size for _, size in moved.after.values())
        self.left |= moved.left


def plan(settings: Settings, partitions: Sequence[str] | None = None) -> list[PartitionDebt]:
    """The compaction debt of the processed table, or of some of its partitions; changes nothing.

    Raises ConfigurationError for a partition that has no files, or a lake of another format than the settings say.
    """
    lake = lake_at(settings.lake)
    check_format(lake, settings.sink.format)
    found = compaction_debt(live_files(lake, TABLE, partitions), settings.compact.target_bytes)
    missing = set(partitions or ()) - {debt.partition for debt in found}
    if missing:
        raise ConfigurationError(
            f"--partition {min(missing)}: no files; give a folder of {settings.lake}/{TABLE}, such as "
            "city=Paris/start_date=2016-09-03"
        )
    return found


def run(
    settings: Settings,
    partitions: Sequence[str] | None = None,
    on_step: Progress = lambda _done, _all, _what: None,
) -> CompactResult:
    """Compacts what is due, of all partitions or of those named. Safe to repeat, and to kill.

    Raises AlreadyRunningError where another run moves partitions of this lake, or another MovementError.
    """
    begun, result = time.perf_counter(), CompactResult()
    contract = load_contract(settings.contract)
    compact = settings.compact
    lake, grace = lake_at(settings.lake), timedelta(seconds=compact.grace_seconds)
    due = [debt for debt in plan(settings, partitions) if debt.is_due(compact.min_files)]
    if settings.sink.format == "delta":
        _run_delta(settings, lake, due, result, on_step)
        result.seconds = round(time.perf_counter() - begun, 3)
        return result
    chosen = {debt.partition for debt in due}

    with partition_mover(settings) as mover:
        result.recovered = mover.recover()

        def sweep() -> None:
            on_step(len(result.partitions), len(chosen), "deleting what was replaced")
            files, size = mover.sweep(grace)
            result.removed += files
            result.removed_bytes += size

        rewriter = Rewriter(lake, contract, TABLE, COMPACTED, settings.sink.parquet_compression, compact.target_bytes)
        sweep()
        for group in _groups(sorted(chosen)):
            on_step(len(result.partitions), len(chosen), group[0])
            result.add(mover.move(group, compaction_fill(rewriter)))
        sweep()
        wanted = set(partitions) if partitions is not None else set(mover.layout.partitions)
        home = [name for name in sorted(wanted) if name not in result.left and mover.can_restore_default(name)]
        for group in _groups(home):
            on_step(len(result.partitions), len(chosen), f"{group[0]} back to its plain folder")
            moved = mover.move(group, copy_fill(lake))
            result.home += sorted(moved.after)
            result.left |= moved.left
        if home:
            sweep()
        if result.partitions or home:
            # A job that started meanwhile may have written partitions back as it had read them.
            result.recovered = sorted({*result.recovered, *mover.repair()})
    result.seconds = round(time.perf_counter() - begun, 3)
    return result


def _run_delta(
    settings: Settings, lake: Lake, due: Sequence[PartitionDebt], result: CompactResult, on_step: Progress
) -> None:
    """The same for a Delta table, whose log does what moving partitions does for plain Parquet."""
    compact = settings.compact
    with _exclusive(settings, lake) as lease:
        for done, debt in enumerate(due):
            on_step(done, len(due), debt.partition)
            lease.check()
            new = optimize(lake, debt.partition, compact.target_bytes, settings.sink.parquet_compression)
            if not new.added:
                result.left[debt.partition] = "nothing in it can be put together"
                continue
            result.partitions.append(debt.partition)
            result.files_before += debt.files
            result.bytes_before += debt.bytes
            result.files_after += debt.files - new.removed + new.added
            result.bytes_after += debt.bytes - new.removed_bytes + new.added_bytes
        on_step(len(due), len(due), "deleting what was replaced")
        lease.check()
        result.removed, result.removed_bytes = vacuum(lake, compact.grace_seconds)


def _exclusive(settings: Settings, lake: Lake) -> Lease:
    return Lease(
        lake,
        f"{settings.lake}/{TABLE}",
        holder="run that moves partitions of",
        remedy="run it again once the other has ended",
    )


@contextmanager
def partition_mover(settings: Settings) -> Iterator[Mover]:
    """A mover of the processed table, with the lease that only one run at a time has."""
    lake = lake_at(settings.lake)
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    with _exclusive(settings, lake) as lease:
        catalog.ensure_tables(lake_tables(load_contract(settings.contract)))
        yield Mover(lake, catalog, TABLE, lease.check, wait_seconds=settings.compact.batch_wait_seconds)


def _groups(partitions: Sequence[str]) -> Iterable[Sequence[str]]:
    return (partitions[start : start + GROUP] for start in range(0, len(partitions), GROUP))


def main(arguments: list[str] | None = None) -> int:
    """For a scheduler; the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument("--partition", metavar="FOLDER", action="append", help="only this one; may be repeated")
    return run_job(parser, lambda settings, options: run(settings, options.partition), arguments)


# What compaction would do, from a list of files alone: many small files of a partition → few of the target size.


# Files that one look at the table's size reads: 100 list requests.
MAX_LISTED = 100_000


@dataclass(frozen=True)
class PartitionDebt:
    """One partition: its files, how many of them are small, the bytes of all and of the small ones, and about how
    many files there would be after compaction."""

    partition: str
    files: int
    small_files: int
    bytes: int
    small_bytes: int
    files_after: int

    def is_due(self, min_files: int) -> bool:
        """Whether there are `min_files` small files or more, and fewer files afterwards."""
        return self.small_files >= min_files and self.files_after < self.files


def is_small(size: int, target_bytes: int) -> bool:
    """A file of less than half the target: two of them are one."""
    return size < target_bytes / 2


def compaction_debt(files: Iterable[LiveFile], target_bytes: int) -> list[PartitionDebt]:
    """The debt of each partition in a table's live files, by partition."""
    sizes: dict[str, list[int]] = {}
    for file in files:
        sizes.setdefault(file.partition, []).append(file.bytes)
    found = []
    for partition, of in sorted(sizes.items()):
        small = [size for size in of if is_small(size, target_bytes)]
        merged = -(-sum(small) // target_bytes) or len(small)
        found.append(PartitionDebt(partition, len(of), len(small), sum(of), sum(small), len(of) - len(small) + merged))
    return found


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


def compaction_fill(rewriter: Rewriter) -> Fill:
    """How compaction fills a partition's next location: small files as few, the others as they are."""

    def fill(partition: str, files: list[StoredFile], location: str) -> None:
        small = [file for file in files if is_small(file.bytes, rewriter.target_bytes)]
        as_they_are = [file for file in files if file not in small]
        if len(small) == 1:
            as_they_are, small = files, []
        rewriter.write(partition, rewriter.read(small, as_they_are), location)
        copy_fill(rewriter.lake)(partition, as_they_are, location)

    return fill


def copy_fill(lake: Lake) -> Fill:
    """How a partition moves without a change."""

    def fill(_partition: str, files: list[StoredFile], location: str) -> None:
        copy_all(lake, [(file.path, location + file.path.rpartition("/")[2]) for file in files])

    return fill
