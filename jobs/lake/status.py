"""What `movement status` shows, gathered from lake, claim and stream: bounded reading, no Spark, nothing written."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from jobs.common.errors import AwsAccessError, MovementError
from jobs.lake.lease import ClaimEntry, is_alive
from jobs.lake.ledger import Ledger, LedgerEntry, claims, last_read, newest_entries, shard_ages
from jobs.lake.store import lake_at
from jobs.lake.table_files import live_files
from jobs.lake.task_report import sequence_order
from jobs.maintenance.compact import compaction_debt
from jobs.settings.settings import Settings
from jobs.stream.connector import standing
from movement.cli.console import command

# Files that one look at the processed table takes in: 100 requests.
MOST_FILES = 100_000


def status(settings: Settings, newest: int) -> dict[str, Any]:
    """The state of the pipeline, as `--json` holds it. What cannot be asked is told in `notes`, with what to do."""
    notes: list[str] = []
    found: dict[str, Any] = {
        "at": datetime.now(UTC),
        "stream": settings.stream.name,
        "lake": settings.lake,
        "database": settings.database,
        "checkpoint": settings.checkpoint,
        "job": None,
        "query": None,
        "batches": 0,
        "last": [],
        "reasons": {},
        "alarms": [],
        "shards": [],
        "behind_ms": None,
        "notes": notes,
    }
    lake = lake_at(settings.lake)
    entries: list[LedgerEntry] = []
    try:
        held = [claim for claim in claims(lake) if claim.checkpoint == settings.checkpoint_name]
        found["job"] = _job(held[0]) if held else None
        ledgers = [each for each in newest_entries(lake, newest) if each.entries[0].stream == settings.stream.name]
    except AwsAccessError as error:
        notes.append(f"{error}. No lake yet? `{command()} local up` makes one here; on AWS deploy the storage stack")
        ledgers = []
    if ledgers:
        entries = ledgers[0].entries
        found |= {"query": ledgers[0].query, "batches": ledgers[0].batches, "last": [_batch(each) for each in entries]}
        for entry in entries:
            found["alarms"] += entry.alarms
            for reason, count in entry.report.reasons.items():
                found["reasons"][reason] = found["reasons"].get(reason, 0) + count
    elif not notes:
        notes.append(f"no batch of stream {settings.stream.name} in this lake yet: start `{command()} stream`")
    try:
        found["shards"] = _shards(settings, entries, whole=len(ledgers) <= 1 and len(entries) == found["batches"])
    except MovementError as error:
        notes.append(f"{error}. No stream yet? `{command()} local up` makes one here; on AWS deploy the stream stack")
    ages = [shard["behind_ms"] for shard in found["shards"] if shard["behind_ms"] is not None]
    found["behind_ms"] = max(ages, default=None)
    gone = [shard["shard"] for shard in found["shards"] if shard["state"] == "gone"]
    if gone:
        notes.append(f"records left the stream unread in {', '.join(gone)}: docs/operations.md, Restore")
    return found


def files_status(settings: Settings) -> dict[str, Any]:
    """The processed table's files and their compaction debt, as `movement compact` sees it."""
    try:
        listed = list(islice(live_files(lake_at(settings.lake), "processed"), MOST_FILES + 1))
    except AwsAccessError:
        listed = []
    debts = compaction_debt(listed[:MOST_FILES], settings.compact.target_bytes)
    return {
        "partitions": len(debts),
        "files": sum(debt.files for debt in debts),
        "small_files": sum(debt.small_files for debt in debts),
        "bytes": sum(debt.bytes for debt in debts),
        "partitions_to_compact": sum(debt.is_due(settings.compact.min_files) for debt in debts),
        "complete": len(listed) <= MOST_FILES,
    }


def positions(settings: Settings) -> dict[str, Any]:
    """Where a job with a new checkpoint takes over without loss or duplicate: `source.options.startingPosition`.

    From every entry of every query of the stream (an earlier restore began a query of its own). A shard that the
    stream no longer lists is left out, one without any record read starts at its beginning.
    """
    lake = lake_at(settings.lake)
    ledgers = [each for each in newest_entries(lake, 1) if each.entries[0].stream == settings.stream.name]
    if not ledgers:
        raise AwsAccessError(
            f"no batch of stream {settings.stream.name} in {settings.lake}: nothing was read, so a job starts with "
            "source.starting_position=TRIM_HORIZON"
        )
    ledger = ledgers[0]
    last: dict[str, str] = {}
    for each in ledgers:
        for shard, number in last_read(lake, each.query, each.entries).items():
            last[shard] = max(last.get(shard, number), number, key=sequence_order)
    listed = standing(settings, last)
    # Not the shards without a record read: naming one would keep the source from reading what it descends from.
    kept = {each.shard: str(each.position) for each in listed if each.shard in last}
    return {
        "stream": settings.stream.name,
        "lake": settings.lake,
        "database": settings.database,
        "query": ledger.query,
        "last_batch": ledger.entries[0].batch,
        "positions": kept,
        "starting_position": json.dumps(kept) if kept else "TRIM_HORIZON",
        "gone": [each.shard for each in listed if each.state == "gone"],
        "leftovers": Ledger(lake, ledger.query).leftovers(ledger.entries[0].batch + 1),
    }


def _job(claim: ClaimEntry) -> dict[str, Any]:
    alive = is_alive(claim)
    state = claim.released or {True: "running", False: "died", None: "running or died"}[alive]
    return {"state": state, "machine": claim.machine.partition("/")[0], "pid": claim.pid, "beat": claim.beat}


def _batch(entry: LedgerEntry) -> dict[str, Any]:
    report = entry.report
    return {
        "batch": entry.batch,
        "finished_at": entry.finished_at,
        "read": report.read,
        "processed": report.processed,
        "quarantined": report.quarantined,
        "bytes": report.read_bytes,
        "files": len(report.files),
        "seconds": round((entry.finished_at - entry.started_at).total_seconds(), 3),
        "stages": entry.seconds,
        "age_ms": max(shard_ages(entry).values(), default=None),
        "retries": report.retries,
        "throttles": report.throttles,
        "alarms": entry.alarms,
    }


def _shards(settings: Settings, entries: list[LedgerEntry], whole: bool) -> list[dict[str, Any]]:
    """Each shard behind its tip, going by the newest entry that has records of it. `whole`: there are no others."""
    last: dict[str, str] = {}
    arrived: dict[str, datetime | None] = {}
    for entry in sorted(entries, key=lambda each: -each.batch):
        for shard, part in entry.report.shards.items():
            if shard not in last:
                last[shard], arrived[shard] = part.last, part.arrived
    rows = []
    for each in standing(settings, last):
        row = {**asdict(each), "position": str(each.position), "last_arrival": arrived.get(each.shard)}
        if each.shard not in last and not whole:
            # Its last record lies further back than the entries that were read.
            row |= {"state": "quiet", "behind_ms": None, "position": None}
        rows.append(row)
    return rows
