"""Which metrics a batch, an idle stream and a failure give; the list with units and meaning is docs/metrics.md.

Pure: `observer` says when, `emf` and `cloudwatch` carry them away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from jobs.common.times import format_time

Unit = Literal["Count", "Bytes", "Seconds", "Milliseconds", "Percent"]

AGE = "IteratorAgeMilliseconds"
PROGRESS = "Progress"
_STAGES = {"clear": "ClearSeconds", "write": "WriteSeconds", "register": "RegisterSeconds"}


@dataclass(frozen=True)
class Metric:
    """One value. `dimensions`: those beside `Stream`, at most one, with few values."""

    name: str
    unit: Unit
    value: float
    dimensions: Mapping[str, str] = field(default_factory=dict)


def batch_metrics(batch: BatchFigures) -> list[Metric]:
    """The metrics of a batch, but for the ages of single shards."""
    found = [
        Metric("RecordsRead", "Count", batch.read),
        Metric("RecordsWritten", "Count", batch.written),
        Metric("RecordsQuarantined", "Count", batch.quarantined),
        Metric("RecordsRescued", "Count", batch.rescued),
        Metric("RejectedShareExceeded", "Count", int(batch.share_exceeded)),
        Metric("BytesRead", "Bytes", batch.bytes_read),
        Metric("BytesWritten", "Bytes", batch.bytes_written),
        Metric("FilesWritten", "Count", batch.files),
        Metric("PartitionsRegistered", "Count", batch.registered),
        Metric("Retries", "Count", batch.retries),
        Metric("Throttles", "Count", batch.throttles),
        Metric("BatchesCommitted", "Count", 1),
        Metric(PROGRESS, "Count", 1),
        Metric("BatchSeconds", "Seconds", round(batch.seconds, 4)),
    ]
    found += [Metric(name, "Seconds", batch.stages[stage]) for stage, name in _STAGES.items() if stage in batch.stages]
    if batch.read:
        found.append(Metric("QuarantinedShare", "Percent", round(100 * batch.quarantined / batch.read, 4)))
    if batch.age is not None:
        found.append(Metric(AGE, "Milliseconds", batch.age))
    found += [
        Metric("RecordsQuarantined", "Count", count, {"Reason": reason})
        for reason, count in sorted(batch.reasons.items())
    ]
    return found


def shard_metrics(batch: BatchFigures, most: int) -> list[Metric]:
    """The age of each shard; none where the batch has more than `most` of them."""
    if len(batch.ages) > most:
        return []
    return [Metric(AGE, "Milliseconds", age, {"Shard": shard}) for shard, age in sorted(batch.ages.items())]


def plan_metrics(seconds: float) -> list[Metric]:
    """How long Spark took to learn where the next batch ends."""
    return [Metric("PlanSeconds", "Seconds", seconds)]


def idle_metrics() -> list[Metric]:
    """There was nothing to read: all is well, and nothing is behind."""
    return [Metric(PROGRESS, "Count", 1), Metric(AGE, "Milliseconds", 0)]


def failure_metrics() -> list[Metric]:
    """The query died."""
    return [Metric("BatchesFailed", "Count", 1)]


# What a batch did, in figures: made by the job from its ledger entry, turned into metrics and a log line.


@dataclass(frozen=True)
class BatchFigures:
    """One batch that is final.

    finished_at       when it became final (UTC)
    seconds           from its start until then
    stages            seconds by stage: clear, write, register
    ages              by shard: how long before `finished_at` its last record had arrived, in milliseconds
    registered        partitions sent to the catalog, new to this run
    rescued           rows with fields that the contract does not name, kept in `rescued_data`
    share_exceeded    whether too many of its records were rejected (`sink.max_rejected_share`)
    retries           calls to Kinesis that were repeated; `throttles` those of them refused as too many
    """

    stream: str
    query: str
    batch: int
    finished_at: datetime
    seconds: float
    read: int
    written: int
    quarantined: int
    bytes_read: int
    bytes_written: int
    files: int
    registered: int
    rescued: int = 0
    share_exceeded: bool = False
    retries: int = 0
    throttles: int = 0
    stages: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    ages: Mapping[str, int] = field(default_factory=dict)

    @property
    def age(self) -> int | None:
        """The greatest age of a shard, in milliseconds; None for a batch without records, or whose shards are not
        known (the JVM connector)."""
        return max(self.ages.values(), default=None)

    def as_line(self) -> dict[str, Any]:
        """The fields of the batch's log line: figures alone, never a record."""
        return {
            "event": "batch",
            "stream": self.stream,
            "query": self.query,
            "batch": self.batch,
            "finished_at": format_time(self.finished_at, "milliseconds"),
            "read": self.read,
            "written": self.written,
            "quarantined": self.quarantined,
            "reasons": dict(self.reasons),
            "rescued": self.rescued,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "files": self.files,
            "registered": self.registered,
            "shards": len(self.ages),
            "age_ms": self.age,
            "retries": self.retries,
            "throttles": self.throttles,
            "seconds": round(self.seconds, 3),
            "stages": dict(self.stages),
        }
