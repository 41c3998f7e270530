"""What a batch did, in figures: made by the job from its ledger entry, turned into metrics and a log line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


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
            "finished_at": self.finished_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
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
