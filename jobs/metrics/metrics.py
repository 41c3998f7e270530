"""The metrics of a batch, an idle stream and a failure. docs/metrics.md lists them with units and meaning.

Input: ledger entries. Output: `Metric` values and the fields of a log line. `publisher` decides when to publish them;
`emf` and `cloudwatch` send them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.common.times import format_time
from jobs.lake.ledger import LedgerEntry
from jobs.schema.rejections import TOO_MANY_PARTITIONS

Unit = Literal["Count", "Bytes", "Seconds", "Milliseconds", "Percent"]

AGE = "IteratorAgeMilliseconds"
PROGRESS = "Progress"
_STAGES = {"clear": "ClearSeconds", "write": "WriteSeconds", "register": "RegisterSeconds"}


@dataclass(frozen=True)
class Metric:
    """One value. `dimensions`: at most one in addition to `Stream`, with few distinct values."""

    name: str
    unit: Unit
    value: float
    dimensions: Mapping[str, str] = field(default_factory=dict)


def batch_metrics(entry: LedgerEntry) -> list[Metric]:
    """The metrics of a final batch, without the ages of single shards."""
    report, age = entry.report, entry.age
    metrics = [
        Metric("RecordsRead", "Count", report.read),
        Metric("RecordsWritten", "Count", report.processed),
        Metric("RecordsQuarantined", "Count", report.quarantined),
        Metric("RecordsRescued", "Count", report.rescued),
        Metric("RejectedShareExceeded", "Count", int(any(TOO_MANY_PARTITIONS not in each for each in entry.alarms))),
        Metric("NewPartitionsExceeded", "Count", int(TOO_MANY_PARTITIONS in report.reasons)),
        Metric("BytesRead", "Bytes", report.read_bytes),
        Metric("BytesWritten", "Bytes", _bytes_written(entry)),
        Metric("FilesWritten", "Count", len(report.files)),
        Metric("PartitionsRegistered", "Count", entry.registered),
        Metric("Retries", "Count", report.retries),
        Metric("Throttles", "Count", report.throttles),
        Metric("BatchesCommitted", "Count", 1),
        Metric(PROGRESS, "Count", 1),
        Metric("BatchSeconds", "Seconds", round(entry.duration, 4)),
    ]
    metrics += [
        Metric(name, "Seconds", entry.seconds[stage]) for stage, name in _STAGES.items() if stage in entry.seconds
    ]
    if report.read:
        metrics.append(Metric("QuarantinedShare", "Percent", round(100 * report.quarantined / report.read, 4)))
    if age is not None:
        metrics.append(Metric(AGE, "Milliseconds", age))
    metrics += [
        Metric("RecordsQuarantined", "Count", count, {"Reason": reason})
        for reason, count in sorted(report.reasons.items())
    ]
    metrics += [
        Metric(name, "Count", count, {"Check": check})
        for name, counts in (("ValuesNulled", report.nulled), ("ValuesWarned", report.warned))
        for check, count in sorted(counts.items())
    ]
    return metrics


def shard_metrics(entry: LedgerEntry, max_shards: int) -> list[Metric]:
    """The age of each shard; empty if the batch read more than `max_shards` shards."""
    ages = entry.shard_ages
    if len(ages) > max_shards:
        return []
    return [Metric(AGE, "Milliseconds", age, {"Shard": shard}) for shard, age in sorted(ages.items())]


def plan_metrics(seconds: float) -> list[Metric]:
    """How long Spark took to find the end offset of the next batch."""
    return [Metric("PlanSeconds", "Seconds", seconds)]


def idle_metrics() -> list[Metric]:
    """There are no new records, so the job makes progress and its age is 0."""
    return [Metric(PROGRESS, "Count", 1), Metric(AGE, "Milliseconds", 0)]


def failure_metrics() -> list[Metric]:
    """The query failed."""
    return [Metric("BatchesFailed", "Count", 1)]


def log_fields(entry: LedgerEntry) -> dict[str, Any]:
    """The fields of a batch's log line: numbers and names only, never the content of a record."""
    report = entry.report
    return {
        "event": "batch",
        "stream": entry.stream,
        "query": entry.query,
        "batch": entry.batch,
        "finished_at": format_time(entry.finished_at, "milliseconds"),
        "read": report.read,
        "written": report.processed,
        "quarantined": report.quarantined,
        "reasons": report.reasons,
        "nulled": report.nulled,
        "warned": report.warned,
        "rescued": report.rescued,
        "bytes_read": report.read_bytes,
        "bytes_written": _bytes_written(entry),
        "files": len(report.files),
        "registered": entry.registered,
        "shards": len(entry.shard_ages),
        "age_ms": entry.age,
        "retries": report.retries,
        "throttles": report.throttles,
        "seconds": round(entry.duration, 3),
        "stages": entry.seconds,
    }


def _bytes_written(entry: LedgerEntry) -> int:
    return sum(file.bytes for file in entry.report.files)
