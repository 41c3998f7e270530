"""What one Spark task wrote, as it travels from the worker to the driver and into the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

SequenceOrder = tuple[int, int]
TableName = Literal["raw", "processed", "processed_batch", "quarantine"]
_COUNTS = ("read", "read_bytes", "raw", "processed", "quarantined", "rescued", "retries", "throttles")


class RecordRun(msgspec.Struct, frozen=True):
    """Records of one shard that stand one after the other in a file: first and last sequence number, and how many."""

    shard: str
    first: str
    last: str
    records: int


class WrittenFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the lake: `path` relative to the lake, `partition` relative to its table.

    `runs`, of a raw file: which records its lines are, in their order. What `movement replay --raw` knows a line by.
    """

    kind: TableName
    path: str
    partition: str
    rows: int
    bytes: int
    runs: tuple[RecordRun, ...] = ()


class SequenceRange(msgspec.Struct, omit_defaults=True):
    """The records of one shard in a batch: first and last sequence number, both included.

    `arrived`: when Kinesis accepted the last one (UTC); None in entries of releases that did not note it.
    """

    first: str
    last: str
    records: int
    arrived: datetime | None = None

    def extend(self, other: SequenceRange) -> None:
        """Takes in another range of the same shard."""
        self.first = min(self.first, other.first, key=sequence_order)
        if sequence_order(other.last) > sequence_order(self.last):
            self.last, self.arrived = other.last, other.arrived
        self.records += other.records


def sequence_order(sequence_number: str) -> SequenceOrder:
    """Where a record stands in its shard: `<number>`, or `<number>:<sub>` for one out of a KPL aggregate; before all
    others where it has none."""
    number, _, sub = sequence_number.partition(":")
    return int(number or -1), int(sub or 0)


class TaskReport(msgspec.Struct):
    """Counts, files and sequence ranges of a task, or of a batch once they are added up.

    `read` = `raw` = `processed` + `quarantined` holds for every batch. `reasons`: rejections by code; `rescued`:
    rows with fields that the contract does not name; `seconds`: time by stage, summed over tasks; `retries`: calls to
    Kinesis that had to be repeated, and `throttles` those of them that it refused as too many.
    """

    read: int = 0
    read_bytes: int = 0
    raw: int = 0
    processed: int = 0
    quarantined: int = 0
    rescued: int = 0
    retries: int = 0
    throttles: int = 0
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    shards: dict[str, SequenceRange] = msgspec.field(default_factory=dict)
    files: list[WrittenFile] = msgspec.field(default_factory=list)
    seconds: dict[str, float] = msgspec.field(default_factory=dict)

    def partitions(self, kind: TableName) -> list[str]:
        """The partitions of one table that were written to, each once, sorted."""
        return sorted({file.partition for file in self.files if file.kind == kind})


def sum_reports(reports: Iterable[TaskReport]) -> TaskReport:
    """The report of a whole batch."""
    total = TaskReport()
    for report in reports:
        for name in _COUNTS:
            setattr(total, name, getattr(total, name) + getattr(report, name))
        for code, count in report.reasons.items():
            total.reasons[code] = total.reasons.get(code, 0) + count
        for stage, seconds in report.seconds.items():
            total.seconds[stage] = total.seconds.get(stage, 0.0) + seconds
        for shard, found in report.shards.items():
            if shard in total.shards:
                total.shards[shard].extend(found)
            else:
                total.shards[shard] = msgspec.structs.replace(found)
        total.files += report.files
    total.files.sort(key=lambda file: file.path)
    return total


# What a run of a job did, over all its batches or runs: the counters that the streaming and the batch job share.


@dataclass
class RunTotals:
    """Records by fate, partitions written to, rejections by reason, seconds of the whole run.

    `rescued`: those of `processed` with fields that the contract does not name.
    """

    read: int = 0
    processed: int = 0
    quarantined: int = 0
    rescued: int = 0
    partitions: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, report: TaskReport, partitions: Iterable[str]) -> None:
        """Takes in what one batch or run wrote."""
        self.read += report.read
        self.processed += report.processed
        self.quarantined += report.quarantined
        self.rescued += report.rescued
        self.partitions = sorted({*self.partitions, *partitions})
        for reason, count in report.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
