"""Processed rows built anew from raw, after the contract has changed. `movement replay --raw`.

Takes the batches that ended in a window of time: their raw lines become records again (`raw_records`), are read by the
contract as it is now, and take the place of the batches' rows, partition by partition, so that a reader through the
catalog sees a partition as it was or as it is (docs/adr/0007). Rows of other batches stay. Needs no Spark.
"""

from __future__ import annotations

import argparse
import io
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import msgspec

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import lake_tables
from jobs.common.aws import client
from jobs.common.errors import BatchMismatchError, ConfigurationError, TerminalError, TransientError
from jobs.common.fault_points import fault_point
from jobs.common.times import time_option
from jobs.lake.delta import check_format
from jobs.lake.lease import Lease
from jobs.lake.ledger import LedgerEntry, entries, replace_entry
from jobs.lake.partition_locations import REBUILT, batch_of, copy_all
from jobs.lake.quarantine_files import read_lines
from jobs.lake.store import Lake, lake_at
from jobs.lake.task_report import TaskReport, WrittenFile
from jobs.maintenance.compact import TABLE, partition_mover
from jobs.maintenance.partition_move import Fill, Mover, StoredFile
from jobs.maintenance.raw_records import read_records, record_origins
from jobs.maintenance.rewriter import Rewriter
from jobs.schema.table import TableContract, load_contract
from jobs.settings.job_main import job_parser, run_job
from jobs.settings.settings import Settings
from jobs.write.task import WriteTask

log = logging.getLogger(__name__)

# Records whose origins are held in memory at once, about half a kilobyte each; a batch is never divided.
RECORDS_AT_ONCE = 500_000

# Told of each step: done, in all, of what.
Progress = Callable[[int, int, str], None]


@dataclass
class RebuildResult:
    """What a run did. `records` = `processed` + `quarantined`, of the batches in the window; `…_before`: as they were.

    `kept_in_quarantine`, some of `quarantined`: records whose lines stay, for `movement replay --quarantine` has put
    lines of their file back onto the stream. `continued`: batches of rebuilds that dead runs had decided on.
    """

    batches: int = 0
    records: int = 0
    processed: int = 0
    quarantined: int = 0
    processed_before: int = 0
    quarantined_before: int = 0
    kept_in_quarantine: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    partitions: list[str] = field(default_factory=list)
    continued: int = 0
    seconds: float = 0.0


class _SentBack(msgspec.Struct):
    """Of an entry in the journal of `movement replay --quarantine`: the files whose lines went onto the stream."""

    sent: dict[str, Any] = {}
    open: dict[str, Any] = {}


def run(
    settings: Settings,
    start: datetime,
    end: datetime,
    on_step: Progress = lambda _done, _all, _what: None,
) -> RebuildResult:
    """Rebuilds the batches that ended in [start, end), after the rebuilds that dead runs left. Safe to repeat.

    Raises ConfigurationError for a window that is none, TerminalError, with nothing changed, where raw lines cannot be
    told apart, AlreadyRunningError beside another run that moves partitions or replays quarantine.
    """
    if start >= end:
        raise ConfigurationError(f"--from {start.isoformat()} is not before --to {end.isoformat()}")
    begun, result = time.perf_counter(), RebuildResult()
    lake = lake_at(settings.lake)
    if settings.sink.format == "delta":
        raise ConfigurationError(
            f"replay --raw rebuilds plain Parquet, and {settings.lake}/processed is a Delta table (sink.format: "
            "delta). Give the changed contract a lake and a checkpoint of its own and read the stream again "
            "(source.starting_position: TRIM_HORIZON). Nothing was changed"
        )
    check_format(lake, settings.sink.format)
    quarantine = Lease(
        lake,
        f"quarantine of {settings.lake}",
        holder="replay of the",
        remedy="run it again once the other has ended",
    )
    with quarantine, partition_mover(settings) as mover:
        mover.recover()
        job = _Rebuild(settings, lake, mover, on_step)
        for plan in unfinished_plans(lake):
            log.warning("rebuild %s was decided on and not ended: it goes on", plan.run)
            job.do(plan)
            result.continued += len(plan.entries)
        chosen = entries(lake, start, end)
        if chosen:
            plan = job.plan(chosen, result)
            commit_plan(lake, plan)
            job.do(plan)
            result.partitions = sorted(plan.rows)
    result.seconds = round(time.perf_counter() - begun, 3)
    return result


class _Rebuild:
    def __init__(self, settings: Settings, lake: Lake, mover: Mover, on_step: Progress) -> None:
        self._settings, self._lake, self._mover, self._on_step = settings, lake, mover, on_step
        self._contract: TableContract = load_contract(settings.contract)

    def plan(self, chosen: list[LedgerEntry], result: RebuildResult) -> RebuildPlan:
        """Reads the batches anew and stages what comes of them; nothing that readers see is changed."""
        run = uuid.uuid4().hex[:12]
        stage, sent = staging_folder(run), self._sent_back()
        staged: dict[str, list[StoredFile]] = {}
        plan = RebuildPlan(run, [], staged, [], [])
        done = 0
        for group in _groups(chosen):
            of_batches = record_origins(self._lake, group, sent)
            for entry in group:
                self._on_step(done, len(chosen), "batches read anew")
                name = entry.name
                task = WriteTask(
                    f"{self._settings.lake}/{stage.rstrip('/')}",
                    name,
                    self._contract,
                    self._settings.sink,
                    write_raw=False,
                )
                report = task.write(read_records(self._lake, entry, of_batches[name]), f"{name}-00000")
                old = [file for file in entry.report.files if file.kind == "quarantine"]
                kept = [file for file in old if file.path in sent]
                plan.remove += [file.path for file in old if file not in kept]
                new = []
                for number, file in enumerate(report.files):
                    if file.kind == TABLE:
                        staged.setdefault(file.partition, []).append(StoredFile(stage + file.path, file.bytes))
                    else:
                        target = f"quarantine/{file.partition}/{name}-rebuilt-{run}-{number:03d}.json.gz"
                        plan.add.append((stage + file.path, target))
                        new.append(msgspec.structs.replace(file, path=target))
                plan.entries.append(self._amended(entry, report, kept, new))
                _add(result, entry, plan.entries[-1], kept)
                done += 1
        for partition in affected(chosen, plan.entries):
            staged.setdefault(partition, [])
        return plan

    def do(self, plan: RebuildPlan) -> None:
        """Carries a plan out."""
        sink, target = self._settings.sink, self._settings.compact.target_bytes
        rewriter = Rewriter(self._lake, self._contract, TABLE, REBUILT, sink.parquet_compression, target)
        days = sorted({name for entry in plan.entries for name in entry.partitions.get("quarantine", [])})
        catalog = GlueCatalog(client("glue"), self._settings.database, self._settings.lake)
        catalog.ensure_tables(lake_tables(self._contract))
        catalog.register("quarantine", days)
        for done in execute_plan(self._lake, plan, self._mover, rewriter):
            self._on_step(done, len(plan.rows), "partitions rebuilt")

    def _amended(
        self, entry: LedgerEntry, found: TaskReport, kept: list[WrittenFile], new: list[WrittenFile]
    ) -> LedgerEntry:
        """The batch's entry as it is after the rebuild: `found`, and the files of quarantine, kept and new."""
        counted = Counter(found.reasons)
        for file in kept:
            counted.update(line.reason for line in read_lines(self._lake, file.path))
        report = msgspec.structs.replace(
            entry.report,
            processed=found.processed,
            quarantined=sum(file.rows for file in (*kept, *new)),
            rescued=found.rescued,
            reasons=dict(counted),
            files=[*(file for file in entry.report.files if file.kind == "raw"), *kept, *new],
        )
        if report.read != report.processed + report.quarantined:
            raise BatchMismatchError(
                f"batch {entry.name}: {report.read} records, but {report.processed} rows and "
                f"{report.quarantined} in quarantine after reading it anew. Nothing was changed; please report this"
            )
        partitions = entry.partitions | {
            TABLE: found.partitions(TABLE),
            "quarantine": report.partitions("quarantine"),
        }
        return msgspec.structs.replace(entry, report=report, partitions=partitions, rebuilt_at=datetime.now(UTC))

    def _sent_back(self) -> frozenset[str]:
        found: set[str] = set()
        for path, _ in self._lake.list("_replay/quarantine/"):
            entry = msgspec.json.decode(self._lake.get(path) or b"{}", type=_SentBack)
            found.update((*entry.sent, *entry.open))
        return frozenset(found)


def _groups(chosen: list[LedgerEntry]) -> Iterator[list[LedgerEntry]]:
    group: list[LedgerEntry] = []
    size = 0
    for entry in chosen:
        if group and size + entry.report.read > RECORDS_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry.report.read
    if group:
        yield group


def _add(result: RebuildResult, before: LedgerEntry, after: LedgerEntry, kept: Iterable[WrittenFile]) -> None:
    result.batches += 1
    result.records += after.report.read
    result.processed += after.report.processed
    result.quarantined += after.report.quarantined
    result.processed_before += before.report.processed
    result.quarantined_before += before.report.quarantined
    result.kept_in_quarantine += sum(file.rows for file in kept)
    result.reasons = dict(Counter(result.reasons) + Counter(after.report.reasons))


def main(arguments: list[str] | None = None) -> int:
    """For a scheduler; the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument("--from", dest="start", metavar="TIME", required=True, help="batches that ended then or later")
    parser.add_argument("--to", dest="end", metavar="TIME", required=True, help="batches that ended before")
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> RebuildResult:
    return run(settings, time_option(options.start, "--from"), time_option(options.end, "--to"))


# Batches written anew from raw: what `movement replay --raw` does in the lake, and takes up again after a kill.

FOLDER = "_rebuild/"
_GROUP = 32


class RebuildPlan(msgspec.Struct):
    """What a rebuild is to do; paths are relative to the lake.

    `entries`: the ledger's new entries of the batches. `rows`: partition → staged files (path, bytes) with those
    batches' rows; partitions that lose all of them are among the keys. `add`: staged quarantine files → their names;
    `remove`: what those replace.
    """

    run: str
    entries: list[LedgerEntry]
    rows: dict[str, list[StoredFile]]
    add: list[tuple[str, str]]
    remove: list[str]
    version: int = 1

    @property
    def batches(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.entries)


def staging_folder(run: str) -> str:
    """Where a run stages its files."""
    return f"{FOLDER}{run}/"


def unfinished_plans(lake: Lake) -> list[RebuildPlan]:
    """Plans that a dead run left; what one left that had not come as far as a plan is deleted."""
    paths = [path for path, _ in lake.list(FOLDER)]
    plans = [path for path in paths if path.endswith("/plan.json")]
    planned = {path.split("/")[1] for path in plans}
    lake.delete(path for path in paths if path.split("/")[1] not in planned)
    return [msgspec.json.decode(lake.get(path) or b"", type=RebuildPlan) for path in plans]


def commit_plan(lake: Lake, plan: RebuildPlan) -> None:
    """Makes a plan final: from here on it is carried out, by this run or by the next."""
    fault_point("rebuild.staged")
    lake.put(f"{staging_folder(plan.run)}plan.json", io.BytesIO(msgspec.json.encode(plan)))
    fault_point("rebuild.planned")


def execute_plan(lake: Lake, plan: RebuildPlan, mover: Mover, rewriter: Rewriter) -> Iterator[int]:
    """Does what a plan says; yields how many of its partitions are done, as they are.

    Raises TransientError where a partition could not be moved now: what is done stays, and the next run goes on.
    """
    partitions = sorted(plan.rows)
    for start in range(0, len(partitions), _GROUP):
        moved = mover.move(partitions[start : start + _GROUP], _filling(rewriter, plan))
        if moved.left:
            partition, why = next(iter(moved.left.items()))
            raise TransientError(
                f"{len(moved.left)} partitions could not be rebuilt now, the first {partition}: {why}. The others "
                "are; run this again, and it goes on from here"
            )
        yield min(start + _GROUP, len(partitions))
    fault_point("rebuild.moved")
    copy_all(lake, plan.add)
    for entry in plan.entries:
        replace_entry(lake, entry)
    fault_point("rebuild.amended")
    lake.delete(plan.remove)
    # The plan goes first: what is staged without one is swept up by the next run.
    lake.delete([f"{staging_folder(plan.run)}plan.json"])
    fault_point("rebuild.cleared")
    lake.delete([path for path, _ in lake.list(staging_folder(plan.run))])


def _filling(rewriter: Rewriter, plan: RebuildPlan) -> Fill:
    """A partition's new content: its files without the rebuilt batches' rows, and those rows as they are now."""

    def fill(partition: str, files: list[StoredFile], location: str) -> None:
        as_they_are: list[StoredFile] = []
        mixed: list[StoredFile] = []
        odd: list[StoredFile] = []
        for file in files:
            batch = batch_of(file.path)
            if batch in plan.batches:
                continue
            (mixed if batch is None and rewriter.holds(file, plan.batches) else as_they_are).append(file)
        rows = chain(rewriter.read(mixed, odd, plan.batches), rewriter.read(plan.rows[partition], odd))
        rewriter.write(partition, rows, location)
        if odd:
            raise TerminalError(
                f"{odd[0].path} has columns, or types, that the contract does not: its rows cannot be written anew "
                "without losing them. Give the contract those columns and run this again"
            )
        copy_all(rewriter.lake, [(file.path, location + file.path.rpartition("/")[2]) for file in as_they_are])

    return fill


def affected(before: Sequence[LedgerEntry], after: Sequence[LedgerEntry]) -> set[str]:
    """The partitions that hold rows of the batches now, or will."""
    return {name for entry in (*before, *after) for name in entry.partitions.get("processed", [])}
