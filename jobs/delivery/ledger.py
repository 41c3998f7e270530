"""The delivery job's ledger: which delivery files are in processed_batch (docs/adr/0005).

`<lake>/_plans/batch/<run>.json` names the files that each task of a run reads. It is stored before anything is written,
as Spark's checkpoint is for the streaming job. `<lake>/_ledger/batch/<run>.json` is stored last and commits the run.
Neither is changed later. A plan without an entry belongs to a run that died, or that another job is executing now: the
next job executes the same plan, which writes the same records to the same file names.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from jobs.common.errors import BatchMismatchError
from jobs.lake.ledger import BATCH_PATH
from jobs.lake.store import Lake, parallel_map
from jobs.lake.task_report import TableName, TaskReport

TABLES: tuple[TableName, ...] = ("processed_batch", "quarantine")


class DeliveryPlan(msgspec.Struct):
    """The work of one run. `tasks`: the URIs of the files that each task reads, in this order. Runs count from 0."""

    run: int
    planned_at: datetime
    tasks: list[list[str]]
    version: int = 1

    @property
    def name(self) -> str:
        """`batch-<run>`, such as `batch-0`: the prefix of the run's file names, and its rows' `batch`."""
        return f"{BATCH_PATH}-{self.run}"


class DeliveryRun(msgspec.Struct):
    """What a committed run did. `files`: the delivery files that it read; `report.shards`: the records of each."""

    run: int
    started_at: datetime
    finished_at: datetime
    files: list[str]
    report: TaskReport
    partitions: dict[TableName, list[str]]
    seconds: dict[str, float]
    version: int = 1


class _FilesOfRun(msgspec.Struct):
    """The part of a stored DeliveryRun that later runs need."""

    files: list[str]


_decode_plan = msgspec.json.Decoder(DeliveryPlan).decode
_decode_run = msgspec.json.Decoder(DeliveryRun).decode
_decode_files = msgspec.json.Decoder(_FilesOfRun).decode


class DeliveryLedger:
    """The plans and the committed runs of the delivery job in a lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def files_by_run(self) -> dict[int, list[str]]:
        """The delivery files of every committed run, by the run's number."""
        paths = [path for path, _ in self._lake.list(f"_ledger/{BATCH_PATH}/")]
        contents = parallel_map(self._lake.get, paths)
        return {
            int(path.rpartition("/")[2].removesuffix(".json")): _decode_files(content or b"").files
            for path, content in zip(paths, contents, strict=True)
        }

    def run(self, number: int) -> DeliveryRun | None:
        """The run, or None if it is not committed."""
        content = self._lake.get(f"_ledger/{BATCH_PATH}/{number}.json")
        return None if content is None else _decode_run(content)

    def plan(self, number: int) -> DeliveryPlan | None:
        """The plan of a run, or None if it has no plan."""
        content = self._lake.get(f"_plans/{BATCH_PATH}/{number}.json")
        return None if content is None else _decode_plan(content)

    def store_plan(self, plan: DeliveryPlan) -> DeliveryPlan:
        """Stores a plan and returns the plan to execute: another job's, if that job stored one first."""
        self._lake.put_if_absent(f"_plans/{BATCH_PATH}/{plan.run}.json", msgspec.json.encode(plan))
        return self.plan(plan.run) or plan

    def commit(self, run: DeliveryRun) -> bool:
        """Commits a run. False if another job has already committed it, with the same records.

        Raises BatchMismatchError if the counts do not add up.
        """
        report = run.report
        if report.read != report.processed + report.quarantined:
            raise BatchMismatchError(
                f"run {run.run} of the batch path: {report.read} records read, {report.processed} processed rows, "
                f"{report.quarantined} quarantined: these must add up. Nothing was committed; please report this "
                "with the job's log"
            )
        return self._lake.put_if_absent(
            f"_ledger/{BATCH_PATH}/{run.run}.json", msgspec.json.format(msgspec.json.encode(run))
        )

    def remove_leftovers(self, plan: DeliveryPlan, report: TaskReport) -> list[str]:
        """Deletes files of an earlier attempt at this plan that `report` does not name; returns their paths.

        Call it after writing: the files that another job is writing for the same plan have the same names and stay.
        """
        written = {file.path for file in report.files}
        leftovers = [
            path
            for table in TABLES
            for path, _ in self._lake.list(f"{table}/")
            if path.rpartition("/")[2].startswith(f"{plan.name}-") and path not in written
        ]
        self._lake.delete(leftovers)
        return leftovers
