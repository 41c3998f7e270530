"""Lakes with quarantine files, written without a job."""

from __future__ import annotations

import base64
import gzip
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from jobs.lake.ledger import Ledger, LedgerEntry
from jobs.lake.quarantine_files import QuarantinedRecord
from jobs.lake.store import Lake
from jobs.lake.task_report import TaskReport, WrittenFile

DAY = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Bad:
    """A rejected record."""

    payload: bytes
    reason: str = "bad_date_range"
    key: str | None = "key"
    at: datetime = DAY


def numbered(count: int, keys: int = 7, first: int = 0) -> list[Bad]:
    """Distinct records of several keys."""
    return [Bad(b"record %d" % number, key=f"key {number % keys}") for number in range(first, first + count)]


def reject(
    lake: Lake,
    batch: int,
    records: Sequence[Bad],
    *,
    query: str = "0123456789ab",
    files: int = 1,
    final: bool = True,
    started: datetime | None = None,
    redacted_with: str | None = None,
) -> list[str]:
    """Writes a batch whose records were all rejected. `final`: with a ledger entry. Returns the files' paths.

    `started`: the batch's start; if it is not given, batches start every minute from DAY.
    """
    written = []
    for number in range(files):
        part = records[number * len(records) // files : (number + 1) * len(records) // files]
        content = gzip.compress(b"".join(_line(record, f"{query}-{batch}") + b"\n" for record in part))
        partition = f"ingest_date={part[0].at:%Y-%m-%d}"
        path = f"quarantine/{partition}/{query}-{batch}-00000-{number}.json.gz"
        lake.put(path, io.BytesIO(content))
        written.append(WrittenFile("quarantine", path, partition, len(part), len(content)))
    if final:
        started = started or DAY + timedelta(minutes=batch)
        report = TaskReport(read=len(records), raw=len(records), quarantined=len(records), files=written)
        report.redacted_with = redacted_with
        report.reasons = dict(Counter(record.reason for record in records))
        Ledger(lake, query).commit(LedgerEntry(query, batch, "stream", started, started, report, {}, {}))
    return [file.path for file in written]


def _line(record: Bad, batch: str) -> bytes:
    encoding, payload = "utf-8", ""
    try:
        payload = record.payload.decode()
    except UnicodeDecodeError:
        encoding, payload = "base64", base64.b64encode(record.payload).decode()
    return msgspec.json.encode(
        QuarantinedRecord(
            reason=record.reason,
            stage="batch" if batch.startswith("batch-") else "transform",
            field=None,
            value=None,
            shard_id="shardId-000000000000",
            sequence_number="1",
            partition_key=record.key,
            arrival_time=record.at,
            batch=batch,
            encoding=encoding,
            payload=payload,
        )
    )
