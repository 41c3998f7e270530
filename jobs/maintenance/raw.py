"""Rebuilds processed rows from raw after the contract has changed. `movement replay --raw`.

Takes the batches that ended in a time window. Their raw lines become records again (`raw_records`), are parsed by the
current contract, and replace the batches' rows partition by partition; rows of other batches stay. A reader through the
catalog sees each partition either as it was or as it is now (docs/adr/0007). Needs no Spark.

`<lake>/_rebuild/<run>/` holds a run's staged files and its plan. Once the plan is written, the run is committed: if it
dies, the next run completes it.
"""

from __future__ import annotations

import argparse
import io
import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain

import msgspec

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.glue_calls import chunks
from jobs.catalog.tables import lake_tables
from jobs.common.aws import client
from jobs.common.errors import BatchMismatchError, ConfigurationError, TerminalError, TransientError
from jobs.common.fault_points import fault_point
from jobs.common.times import time_option
from jobs.lake.delta import check_format
from jobs.lake.ledger import LedgerEntry, entries, replace_entry
from jobs.lake.partition_locations import REBUILT, batch_of, copy_all
from jobs.lake.quarantine_files import read_lines
from jobs.lake.sent_journal import SentLines, replay_lease
from jobs.lake.store import Lake, lake_at
from jobs.lake.task_report import TaskReport, WrittenFile
from jobs.maintenance.compact import GROUP, TABLE, OnStep, copy_fill, partition_mover
from jobs.maintenance.partition_move import Fill, Mover, StoredFile
from jobs.maintenance.raw_records import read_records, record_origins
from jobs.maintenance.rewriter import Rewriter
from jobs.schema.privacy import check_salt, privacy_salt
from jobs.schema.table import TableContract, load_contract
from jobs.settings.job_main import job_parser, run_job
from jobs.settings.settings import Settings
from jobs.write.task import WriteTask

log = logging.getLogger(__name__)

# Records whose origins are in memory at once, about 0.5 kB each. A batch is never split.
RECORDS_AT_ONCE = 500_000
_FOLDER = "_rebuild/"


@dataclass
class RebuildResult:
    """What a run did. `records` = `processed` + `quarantined`, of the batches in the window.

    ..._before            the figures before the rebuild
    kept_in_quarantine    those of `quarantined` whose lines stay as they are, because `movement replay --quarantine`
                          has sent lines of their file back to the stream
    continued             batches of rebuilds that runs which died had committed
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

    def add(self, before: LedgerEntry, after: LedgerEntry, kept: Iterable[WrittenFile]) -> None:
        """Adds one batch. `kept`: its quarantine files that stay as they are."""
        self.batches += 1
        self.records += after.report.read
        self.processed += after.report.processed
        self.quarantined += after.report.quarantined
        self.processed_before += before.report.processed
        self.quarantined_before += before.report.quarantined
        self.kept_in_quarantine += sum(file.rows for file in kept)
        self.reasons = dict(Counter(self.reasons) + Counter(after.report.reasons))


class RebuildPlan(msgspec.Struct):
    """What a run will do. Paths are relative to the lake.

    entries    the batches' new ledger entries
    rows       by partition, staged files with the batches' new rows; an empty list if it loses all of them
    add        (staged quarantine file, its final path)
    remove     quarantine files that `add` replaces
    """

    run: str
    entries: list[LedgerEntry]
    rows: dict[str, list[StoredFile]]
    add: list[tuple[str, str]]
    remove: list[str]
    version: int = 1

    @property
    def batches(self) -> frozenset[str]:
        """`<query>-<batch>` of the batches that are rebuilt."""
        return frozenset(entry.name for entry in self.entries)


_decode_plan = msgspec.json.Decoder(RebuildPlan).decode


def run(
    settings: Settings,
    start: datetime,
    end: datetime,
    on_step: OnStep = lambda _done, _all, _what: None,
) -> RebuildResult:
    """Rebuilds the batches that ended in [start, end). First completes rebuilds of runs that died. Safe to repeat.

    Raises ConfigurationError for an empty window; TerminalError, with nothing changed, if a raw line's record is not
    known; AlreadyRunningError if another run moves partitions or replays quarantine.
    """
    if start >= end:
        raise ConfigurationError(f"--from {start.isoformat()} is not before --to {end.isoformat()}")
    started, result = time.perf_counter(), RebuildResult()
    lake = lake_at(settings.lake)
    if settings.sink.format == "delta":
        raise ConfigurationError(
            f"replay --raw rebuilds plain Parquet, and {settings.lake}/processed is a Delta table (sink.format: "
            "delta). Give the changed contract a lake and a checkpoint of its own and read the stream again "
            "(source.starting_position: TRIM_HORIZON). Nothing was changed"
        )
    check_format(lake, settings.sink.format)
    with replay_lease(lake), partition_mover(settings) as mover:
        mover.recover()
        rebuilder = _Rebuilder(settings, lake, mover, on_step)
        for plan in unfinished_plans(lake):
            log.warning("completing rebuild %s of a run that died", plan.run)
            rebuilder.execute(plan)
            result.continued += len(plan.entries)
        chosen = entries(lake, start, end)
        if chosen:
            plan = rebuilder.plan(chosen, result)
            commit_plan(lake, plan)
            rebuilder.execute(plan)
            result.partitions = sorted(plan.rows)
    result.seconds = round(time.perf_counter() - started, 3)
    return result


class _Rebuilder:
    def __init__(self, settings: Settings, lake: Lake, mover: Mover, on_step: OnStep) -> None:
        self._settings, self._lake, self._mover, self._on_step = settings, lake, mover, on_step
        self._contract: TableContract = load_contract(settings.contract)
        salt = privacy_salt(self._contract.columns)
        self._salt = salt.fingerprint if salt else None

    def plan(self, batches: list[LedgerEntry], result: RebuildResult) -> RebuildPlan:
        """Parses the batches again and stages the new files. Changes nothing that readers see."""
        for entry in batches:
            check_salt(f"batch {entry.name}", entry.report.redacted_with, self._salt)
        run = uuid.uuid4().hex[:12]
        stage, sent = staging_folder(run), SentLines(self._lake).files
        plan = RebuildPlan(run, [], {}, [], [])
        for group in _groups(batches):
            origins = record_origins(self._lake, group, sent)
            for entry in group:
                self._on_step(result.batches, len(batches), "batches parsed again")
                task = WriteTask(
                    f"{self._settings.lake}/{stage.rstrip('/')}",
                    entry.name,
                    self._contract,
                    self._settings.sink,
                    write_raw=False,
                )
                report = task.write(read_records(self._lake, entry, origins[entry.name]), f"{entry.name}-00000")
                old = [file for file in entry.report.files if file.kind == "quarantine"]
                kept = [file for file in old if file.path in sent]
                plan.remove += [file.path for file in old if file not in kept]
                new = []
                for number, file in enumerate(report.files):
                    if file.kind == TABLE:
                        plan.rows.setdefault(file.partition, []).append(StoredFile(stage + file.path, file.bytes))
                    else:
                        target = f"quarantine/{file.partition}/{entry.name}-rebuilt-{run}-{number:03d}.json.gz"
                        plan.add.append((stage + file.path, target))
                        new.append(msgspec.structs.replace(file, path=target))
                plan.entries.append(self._new_entry(entry, report, kept, new))
                result.add(entry, plan.entries[-1], kept)
        for entry in (*batches, *plan.entries):
            for partition in entry.partitions.get(TABLE, []):
                plan.rows.setdefault(partition, [])
        return plan

    def execute(self, plan: RebuildPlan) -> None:
        """Registers the quarantine partitions and executes the plan."""
        sink, target = self._settings.sink, self._settings.compact.target_bytes
        rewriter = Rewriter(self._lake, self._contract, TABLE, REBUILT, sink.parquet_compression, target)
        days = sorted({name for entry in plan.entries for name in entry.partitions.get("quarantine", [])})
        catalog = GlueCatalog(client("glue"), self._settings.database, self._settings.lake)
        catalog.ensure_tables(lake_tables(self._contract))
        catalog.register("quarantine", days)
        for done in execute_plan(self._lake, plan, self._mover, rewriter):
            self._on_step(done, len(plan.rows), "partitions rebuilt")

    def _new_entry(
        self, entry: LedgerEntry, found: TaskReport, kept: list[WrittenFile], new: list[WrittenFile]
    ) -> LedgerEntry:
        """The batch's entry after the rebuild. `found`: the new report; `kept`, `new`: its quarantine files."""
        reasons = Counter(found.reasons)
        for file in kept:
            reasons.update(line.reason for line in read_lines(self._lake, file.path))
        report = msgspec.structs.replace(
            entry.report,
            processed=found.processed,
            quarantined=sum(file.rows for file in (*kept, *new)),
            rescued=found.rescued,
            reasons=dict(reasons),
            nulled=found.nulled,
            redacted_with=found.redacted_with or entry.report.redacted_with,
            warned=found.warned,
            files=[*(file for file in entry.report.files if file.kind == "raw"), *kept, *new],
        )
        if report.read != report.processed + report.quarantined:
            raise BatchMismatchError(
                f"batch {entry.name}: {report.read} records, but {report.processed} rows and {report.quarantined} in "
                "quarantine after parsing it again. Nothing was changed; please report this"
            )
        partitions = entry.partitions | {
            TABLE: found.partitions(TABLE),
            "quarantine": report.partitions("quarantine"),
        }
        return msgspec.structs.replace(entry, report=report, partitions=partitions, rebuilt_at=datetime.now(UTC))


def _groups(batches: list[LedgerEntry]) -> Iterator[list[LedgerEntry]]:
    """The batches in groups of at most RECORDS_AT_ONCE records."""
    group: list[LedgerEntry] = []
    records = 0
    for entry in batches:
        if group and records + entry.report.read > RECORDS_AT_ONCE:
            yield group
            group, records = [], 0
        group.append(entry)
        records += entry.report.read
    if group:
        yield group


def staging_folder(run: str) -> str:
    """The folder of a run's staged files and its plan."""
    return f"{_FOLDER}{run}/"


def unfinished_plans(lake: Lake) -> list[RebuildPlan]:
    """The committed plans of runs that died. Deletes the staged files of runs that died before they had a plan."""
    paths = [path for path, _ in lake.list(_FOLDER)]
    plans = [path for path in paths if path.endswith("/plan.json")]
    planned = {path.split("/")[1] for path in plans}
    lake.delete(path for path in paths if path.split("/")[1] not in planned)
    return [_decode_plan(lake.get(path) or b"") for path in plans]


def commit_plan(lake: Lake, plan: RebuildPlan) -> None:
    """Stores a plan. From now on this run or a later one executes it."""
    fault_point("rebuild.staged")
    lake.put(f"{staging_folder(plan.run)}plan.json", io.BytesIO(msgspec.json.encode(plan)))
    fault_point("rebuild.planned")


def execute_plan(lake: Lake, plan: RebuildPlan, mover: Mover, rewriter: Rewriter) -> Iterator[int]:
    """Executes a plan; safe to repeat. Yields the number of finished partitions after each group.

    Raises TransientError if a partition could not be moved: finished partitions stay, and the next run goes on.
    """
    partitions = sorted(plan.rows)
    done = 0
    for group in chunks(partitions, GROUP):
        moved = mover.move(group, _rebuild_fill(rewriter, plan))
        if moved.left:
            partition, why = next(iter(moved.left.items()))
            raise TransientError(
                f"{len(moved.left)} partitions could not be rebuilt now, the first {partition}: {why}. The others "
                "are; run this again, and it goes on from here"
            )
        done += len(group)
        yield done
    fault_point("rebuild.moved")
    copy_all(lake, plan.add)
    for entry in plan.entries:
        replace_entry(lake, entry)
    fault_point("rebuild.amended")
    lake.delete(plan.remove)
    # The plan first: the next run deletes staged files that have no plan.
    lake.delete([f"{staging_folder(plan.run)}plan.json"])
    fault_point("rebuild.cleared")
    lake.delete([path for path, _ in lake.list(staging_folder(plan.run))])


def _rebuild_fill(rewriter: Rewriter, plan: RebuildPlan) -> Fill:
    """Fills a partition's new location: old files without the rebuilt batches' rows, and those batches' new rows."""

    def fill(partition: str, files: list[StoredFile], location: str) -> None:
        unchanged: list[StoredFile] = []
        mixed: list[StoredFile] = []
        incompatible: list[StoredFile] = []
        for file in files:
            batch = batch_of(file.path)
            if batch in plan.batches:
                continue
            (mixed if batch is None and rewriter.holds(file, plan.batches) else unchanged).append(file)
        rows = chain(
            rewriter.read(mixed, incompatible, plan.batches), rewriter.read(plan.rows[partition], incompatible)
        )
        rewriter.write(partition, rows, location)
        if incompatible:
            raise TerminalError(
                f"{incompatible[0].path} has columns or types that the contract does not have: rewriting would lose "
                "their values. Add those columns to the contract and run this again"
            )
        copy_fill(rewriter.lake)(partition, unchanged, location)

    return fill


def main(arguments: list[str] | None = None) -> int:
    """For a scheduler; returns the exit code."""
    parser = job_parser(__doc__)
    parser.add_argument("--from", dest="start", metavar="TIME", required=True, help="batches that ended then or later")
    parser.add_argument("--to", dest="end", metavar="TIME", required=True, help="batches that ended before")
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> RebuildResult:
    return run(settings, time_option(options.start, "--from"), time_option(options.end, "--to"))
