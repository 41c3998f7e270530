"""The batch job's ledger: which delivery files are done. The spirit of `ledger`, for files instead of a stream.

`<lake>/_plans/batch/<run>.json` says, before anything is written, which files a run reads in which task: what
Spark's checkpoint is to the streaming job. `<lake>/_ledger/batch/<run>.json` is written last, and the run is final.
Both are written once. A plan without an entry is a run that died (or is under way elsewhere): whoever comes next
does the very same run, whose tasks write the same records to the same names.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from jobs.common.errors import BatchMismatchError
from jobs.lake.ledger import BATCH_PATH
from jobs.lake.store import Lake, parallel_map
from jobs.lake.task_report import TableName, TaskReport

TABLES: tuple[TableName, ...] = ("processed_batch", "quarantine")


class Plan(msgspec.Struct):
    """A run's work: the addresses of the files that each task reads, in this order."""

    run: int
    planned_at: datetime
    tasks: list[list[str]]
    version: int = 1

    @property
    def name(self) -> str:
        """`batch-<run>`: the start of the names of the files that it writes, and its rows' `batch`."""
        return f"{BATCH_PATH}-{self.run}"


class BatchEntry(msgspec.Struct):
    """What a run did. `files`: the delivery files that it read; `report.shards`: the records of each."""

    run: int
    started_at: datetime
    finished_at: datetime
    files: list[str]
    report: TaskReport
    partitions: dict[TableName, list[str]]
    seconds: dict[str, float]
    version: int = 1


class _Files(msgspec.Struct):
    """The part of an entry that the next run needs."""

    files: list[str]


class BatchLedger:
    """The batch job's plans and entries in a lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def final_runs(self) -> dict[int, list[str]]:
        """The files of every run that is final."""
        paths = [path for path, _ in self._lake.list(f"_ledger/{BATCH_PATH}/")]
        contents = parallel_map(self._lake.get, paths)
        return {
            _run_of(path): msgspec.json.decode(content or b"", type=_Files).files
            for path, content in zip(paths, contents, strict=True)
        }

    def entry(self, run: int) -> BatchEntry | None:
        """The run's entry, or None where it is not final."""
        content = self._lake.get(f"_ledger/{BATCH_PATH}/{run}.json")
        return None if content is None else msgspec.json.decode(content, type=BatchEntry)

    def planned(self, run: int) -> Plan | None:
        """The plan of a run, or None where there is none."""
        content = self._lake.get(f"_plans/{BATCH_PATH}/{run}.json")
        return None if content is None else msgspec.json.decode(content, type=Plan)

    def plan(self, plan: Plan) -> Plan:
        """Lays a plan down; the one that counts, which is another's where another job was first."""
        self._lake.put_if_absent(f"_plans/{BATCH_PATH}/{plan.run}.json", msgspec.json.encode(plan))
        return self.planned(plan.run) or plan

    def commit(self, entry: BatchEntry) -> bool:
        """Makes a run final; False where another job has done the same run meanwhile, and wrote the same.

        Raises BatchMismatchError where the counts do not add up.
        """
        report = entry.report
        if report.read != report.processed + report.quarantined:
            raise BatchMismatchError(
                f"run {entry.run} of the batch job: {report.read} records read, {report.processed} processed rows, "
                f"{report.quarantined} quarantined: these must add up. Nothing was committed; please report this "
                "with the job's log"
            )
        return self._lake.put_if_absent(
            f"_ledger/{BATCH_PATH}/{entry.run}.json", msgspec.json.format(msgspec.json.encode(entry))
        )

    def remove_leftovers(self, plan: Plan, report: TaskReport) -> list[str]:
        """Deletes what an earlier attempt at this plan wrote beyond `report`; the paths deleted.

        Called after writing: what an attempt that is under way elsewhere writes too must stay.
        """
        written = {file.path for file in report.files}
        found = [
            path
            for table in TABLES
            for path, _ in self._lake.list(f"{table}/")
            if path.rpartition("/")[2].startswith(f"{plan.name}-") and path not in written
        ]
        self._lake.delete(found)
        return found


def _run_of(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(".json"))
