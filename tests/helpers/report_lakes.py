"""Lakes for the tests of the report: ledger entries and files, made without Spark."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.lake.ledger import Ledger, LedgerEntry
from jobs.lake.store import lake_at
from jobs.lake.task_report import SequenceRange, TaskReport, WrittenFile

BEGAN = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
PARTITION = "city=Boston/start_date=2016-07-31"


def add_batch(lake: Path, number: int, *, read: int = 100, query: str = "abc", rejected: dict[str, int] | None = None,
              alarms: list[str] | None = None) -> None:  # fmt: skip
    """Adds a batch's file and ledger entry. Batches start every ten seconds and take two."""
    reasons = rejected or {}
    rows = read - sum(reasons.values())
    name = f"processed/{PARTITION}/{query}-{number}-0-0.parquet"
    lake_at(str(lake)).put(name, io.BytesIO(b"x" * 1000))
    started = BEGAN + timedelta(seconds=10 * number)
    Ledger(lake_at(str(lake)), query).commit(
        LedgerEntry(
            query=query,
            batch=number,
            stream="stream",
            started_at=started,
            finished_at=started + timedelta(seconds=2),
            report=TaskReport(
                read=read,
                read_bytes=read * 400,
                raw=read,
                processed=rows,
                quarantined=read - rows,
                reasons=reasons,
                shards={"shardId-000000000000": SequenceRange("1", "9", read)},
                files=[WrittenFile("processed", name, PARTITION, rows, 1000)],
            ),
            partitions={"processed": [PARTITION]},
            seconds={"write": 1.9},
            alarms=alarms or [],
        )
    )


def edit_entry(lake: Path, number: int, **report: Any) -> None:
    """Changes keys of an entry's report, as another release could have written it."""
    file = lake / "_ledger" / "abc" / f"{number}.json"
    entry = json.loads(file.read_bytes())
    entry["report"] |= report
    file.write_text(json.dumps(entry), encoding="utf-8")
