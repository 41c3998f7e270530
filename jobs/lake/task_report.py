"""What a Spark task wrote: counters, files and sequence ranges.

A task sends its report to the driver as JSON. The sum of a batch's reports is stored in the batch's ledger entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

SequenceOrder = tuple[int, int]
TableName = Literal["raw", "processed", "processed_batch", "quarantine"]


class RecordRun(msgspec.Struct, frozen=True):
    """Consecutive lines of a raw file that are consecutive records of one shard.

    `first` and `last` are sequence numbers, both included; `records` is the number of lines.
    """

    shard: str
    first: str
    last: str
    records: int


class WrittenFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the lake. `path` is relative to the lake, `partition` is relative to its table.

    Example: `raw/ingest_date=2026-11-23/hour=10/q-7-00000-000.json.gz` is in `ingest_date=2026-11-23/hour=10`.
    `runs`, for raw files only: the records that the lines hold, in order; `movement replay --raw` finds lines by it.
    """

    kind: TableName
    path: str
    partition: str
    rows: int
    bytes: int
    runs: tuple[RecordRun, ...] = ()


class SequenceRange(msgspec.Struct, omit_defaults=True):
    """A batch's records of one shard: first and last sequence number, both included.

    If the last record read is 5, `last` is "5" and the next batch starts after it.
    `arrived`: when Kinesis accepted the last record (UTC). None in entries of releases that did not store it.
    """

    first: str
    last: str
    records: int
    arrived: datetime | None = None

    def extend(self, other: SequenceRange) -> None:
        """Adds another range of the same shard."""
        self.first = min(self.first, other.first, key=sequence_order)
        if sequence_order(other.last) > sequence_order(self.last):
            self.last, self.arrived = other.last, other.arrived
        self.records += other.records


def sequence_order(sequence_number: str) -> SequenceOrder:
    """The sort key of a record within its shard.

    "12" is (12, 0); "12:3", the fourth user record of a KPL aggregate, is (12, 3); "" (no number) sorts first.
    """
    number, _, sub = sequence_number.partition(":")
    return int(number or -1), int(sub or 0)


class TaskCounts(msgspec.Struct):
    """Counters of a task, or of a batch once its tasks are summed.

    `read` = `raw` = `processed` + `quarantined` holds for every batch.
    `rescued`: rows with fields that the contract does not name. `retries`: calls to Kinesis that were repeated;
    `throttles`: those of them that Kinesis had rejected because of its limits. `resent`: user records of KPL aggregates
    that were dropped, because the KPL sends them again after a reshard. `reasons`: rejections by reason. `nulled`,
    `warned`: values of rows that failed a check with `on_fail: null` or `warn`, by `<column>.<reason>`.
    """

    read: int = 0
    read_bytes: int = 0
    raw: int = 0
    processed: int = 0
    quarantined: int = 0
    rescued: int = 0
    retries: int = 0
    throttles: int = 0
    resent: int = 0
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    nulled: dict[str, int] = msgspec.field(default_factory=dict)
    warned: dict[str, int] = msgspec.field(default_factory=dict)

    def add_counts(self, other: TaskCounts) -> None:
        """Adds the counters of another task."""
        self.read += other.read
        self.read_bytes += other.read_bytes
        self.raw += other.raw
        self.processed += other.processed
        self.quarantined += other.quarantined
        self.rescued += other.rescued
        self.retries += other.retries
        self.throttles += other.throttles
        self.resent += other.resent
        add_counts(self.reasons, other.reasons)
        add_counts(self.nulled, other.nulled)
        add_counts(self.warned, other.warned)


def add_counts(total: dict[str, int], counts: Mapping[str, int]) -> None:
    """Adds counts by name to a total."""
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


class NewPartitions(msgspec.Struct):
    """The partitions of a task or a batch that its table did not have before (`jobs.write.new_partitions`).

    written   new partitions that tasks wrote to without asking
    held      by partition: records that were held back. Names at most the limit of a batch, the greatest ones
    unnamed   number of partitions with held records that `held` does not name; a batch may count one for each task
    files     the files with the held records, relative to the lake
    """

    written: list[str] = msgspec.field(default_factory=list)
    held: dict[str, int] = msgspec.field(default_factory=dict)
    unnamed: int = 0
    files: list[str] = msgspec.field(default_factory=list)

    def add(self, other: NewPartitions) -> None:
        """Adds those of another task."""
        self.written = sorted({*self.written, *other.written})
        for partition, records in other.held.items():
            self.held[partition] = self.held.get(partition, 0) + records
        self.unnamed += other.unnamed
        self.files = sorted([*self.files, *other.files])


class TaskReport(TaskCounts):
    """Counters, files and sequence ranges of a task, or of a batch once its tasks are summed.

    `shards`: the range read of each shard. `seconds`: time by stage, summed over tasks. `new_partitions`: None if there
    are none, without a limit, and in the ledger. `redacted_with`: the fingerprint of the salt of hashes
    in raw and quarantine (`raw: redacted`).
    """

    shards: dict[str, SequenceRange] = msgspec.field(default_factory=dict)
    files: list[WrittenFile] = msgspec.field(default_factory=list)
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    new_partitions: NewPartitions | None = None
    redacted_with: str | None = None

    def partitions(self, table: TableName) -> list[str]:
        """The partitions of one table that have new files: distinct, sorted."""
        return sorted({file.partition for file in self.files if file.kind == table})


# Made at the import, as every decoder: msgspec 0.22 crashes if several threads are the first to decode a type.
decode_report = msgspec.json.Decoder(TaskReport).decode


def sum_reports(reports: Iterable[TaskReport]) -> TaskReport:
    """The report of a whole batch. Its files are sorted by path, so the order of the tasks does not matter."""
    total = TaskReport()
    for report in reports:
        total.add_counts(report)
        for stage, seconds in report.seconds.items():
            total.seconds[stage] = total.seconds.get(stage, 0.0) + seconds
        for shard, range_ in report.shards.items():
            if shard in total.shards:
                total.shards[shard].extend(range_)
            else:
                total.shards[shard] = msgspec.structs.replace(range_)
        total.files += report.files
        total.redacted_with = total.redacted_with or report.redacted_with
        if report.new_partitions is not None:
            total.new_partitions = total.new_partitions or NewPartitions()
            total.new_partitions.add(report.new_partitions)
    total.files.sort(key=lambda file: file.path)
    return total


@dataclass
class RunTotals:
    """Counters of one run of a job, over all its batches. A job's result extends it.

    It keeps no files or sequence ranges, so a job that runs for months stays small.
    `partitions`: the distinct partitions written to. `seconds`: duration of the whole run.
    """

    read: int = 0
    processed: int = 0
    quarantined: int = 0
    rescued: int = 0
    partitions: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    nulled: dict[str, int] = field(default_factory=dict)
    warned: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add_report(self, report: TaskReport, table: TableName) -> None:
        """Adds a batch. `table`: the table whose partitions are listed."""
        self.read += report.read
        self.processed += report.processed
        self.quarantined += report.quarantined
        self.rescued += report.rescued
        self.partitions = sorted({*self.partitions, *report.partitions(table)})
        add_counts(self.reasons, report.reasons)
        add_counts(self.nulled, report.nulled)
        add_counts(self.warned, report.warned)
