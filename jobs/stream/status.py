"""The state of the pipeline for `movement status`: the job's lease, the newest batches and each shard's lag.

Reads a bounded number of ledger entries and asks Kinesis once per shard. Needs no Spark and writes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from jobs.catalog.check import catalog_check
from jobs.common.errors import AwsAccessError, MovementError
from jobs.lake.lease import LeaseRecord, is_alive, leases
from jobs.lake.ledger import Ledger, LedgerEntry, last_sequence_numbers, newest_entries
from jobs.lake.replayed import ReplayedRecords
from jobs.lake.store import lake_at
from jobs.lake.task_report import add_counts, sequence_order
from jobs.schema.rejections import TOO_MANY_PARTITIONS
from jobs.settings.settings import Settings
from jobs.stream.connector import stream_lag


def status(settings: Settings, newest: int, command: str = "movement") -> dict[str, Any]:
    """The state of the pipeline, as `--json` writes it.

    `newest`: how many of the newest batches to read. `reasons` counts their rejected records that are still in
    quarantine, `new_partitions.kept_out` those of them that the limit of new partitions has rejected; `replayed` counts
    those that `movement replay` has sent to the stream again; `nulled` and `warned` count values that failed a check
    with `on_fail` and did not reject their record, by `<column>.<reason>`. `notes` names what could not be
    read, with the remedy; `command` is how these remedies call the command line.
    """
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
        "nulled": {},
        "warned": {},
        "replayed": 0,
        "new_partitions": {"limit": settings.sink.max_new_partitions_per_batch, "kept_out": 0},
        "alarms": [],
        "shards": [],
        "behind_ms": None,
        "notes": notes,
    }
    lake = lake_at(settings.lake)
    entries: list[LedgerEntry] = []
    try:
        lease = next((each for each in leases(lake) if each.checkpoint == settings.checkpoint_name), None)
        found["job"] = _job(lease) if lease else None
        ledgers = [each for each in newest_entries(lake, newest) if each.entries[0].stream == settings.stream.name]
    except AwsAccessError as error:
        notes.append(f"{error}. No lake yet? `{command} local up` makes one here; on AWS deploy the storage stack")
        ledgers = []
    if ledgers:
        entries = ledgers[0].entries
        found |= {"query": ledgers[0].query, "batches": ledgers[0].batches, "last": [_batch(each) for each in entries]}
        found["alarms"] = [alarm for entry in entries for alarm in entry.alarms]
        try:
            replayed = ReplayedRecords(lake).by_reason(entries)
        except AwsAccessError as error:
            notes.append(f"{error}. Rejected records that were sent to the stream again may be counted twice")
            replayed = {}
        reasons: Counter[str] = Counter()
        for entry in entries:
            reasons += Counter(entry.report.reasons) - replayed.get(entry.name, Counter())
        found |= {"reasons": dict(reasons), "replayed": sum(each.total() for each in replayed.values())}
        found["new_partitions"]["kept_out"] = reasons[TOO_MANY_PARTITIONS]
        for entry in entries:
            add_counts(found["nulled"], entry.report.nulled)
            add_counts(found["warned"], entry.report.warned)
    elif not notes:
        notes.append(f"no batch of stream {settings.stream.name} in this lake yet: start `{command} stream`")
    try:
        found["shards"] = _shards(settings, entries, whole=len(ledgers) <= 1 and len(entries) == found["batches"])
    except MovementError as error:
        notes.append(f"{error}. No stream yet? `{command} local up` makes one here; on AWS deploy the stream stack")
    ages = [shard["behind_ms"] for shard in found["shards"] if shard["behind_ms"] is not None]
    found["behind_ms"] = max(ages, default=None)
    gone = [shard["shard"] for shard in found["shards"] if shard["state"] == "gone"]
    if gone:
        notes.append(f"records left the stream unread in {', '.join(gone)}: docs/operations.md, Restore")
    return found


def catalog_status(settings: Settings) -> dict[str, Any]:
    """How many partitions of the catalog are wrong, over all tables. `error`: why they could not be compared."""
    try:
        found = catalog_check(settings).differences()
    except MovementError as error:
        return {"error": str(error)}
    return {
        "error": None,
        "missing_tables": [each.table for each in found if each.missing],
        "partitions": sum(each.partitions for each in found),
        "unregistered": sum(len(each.unregistered) for each in found),
        "elsewhere": sum(len(each.elsewhere) for each in found),
        "empty": sum(len(each.empty) for each in found),
    }


def positions(settings: Settings) -> dict[str, Any]:
    """Where a job with a new checkpoint starts, so that it skips and repeats no record.

    `starting_position` is the value for `source.options.startingPosition`: `{"shardId-0": "495…"}` if 495… is the last
    record read of that shard (the job goes on after it), TRIM_HORIZON if there is no batch yet. Reads every entry of
    every query of the stream, because each restore starts a new query. Leaves out shards that the stream no longer
    lists, and shards of which nothing was read: they start at their beginning.
    """
    lake = lake_at(settings.lake)
    ledgers = [each for each in newest_entries(lake, 1) if each.entries[0].stream == settings.stream.name]
    last: dict[str, str] = {}
    for each in ledgers:
        for shard, number in last_sequence_numbers(lake, each.query, each.entries).items():
            last[shard] = max(last.get(shard, number), number, key=sequence_order)
    listed = stream_lag(settings, last) if ledgers else []
    # Only shards that were read: to name another would keep the source from reading that shard's parents.
    kept = {each.shard: str(each.position) for each in listed if each.shard in last}
    newest = ledgers[0].entries[0] if ledgers else None
    return {
        "stream": settings.stream.name,
        "lake": settings.lake,
        "database": settings.database,
        "query": newest.query if newest else None,
        "last_batch": newest.batch if newest else None,
        "positions": kept,
        "starting_position": json.dumps(kept) if kept else "TRIM_HORIZON",
        "gone": [each.shard for each in listed if each.state == "gone"],
        "leftovers": Ledger(lake, newest.query).leftovers(newest.batch + 1) if newest else [],
    }


def _job(lease: LeaseRecord) -> dict[str, Any]:
    alive = is_alive(lease)
    state = lease.released or {True: "running", False: "died", None: "running or died"}[alive]
    return {"state": state, "machine": lease.machine.partition("/")[0], "pid": lease.pid, "beat": lease.beat}


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
        "seconds": round(entry.duration, 3),
        "stages": entry.seconds,
        "age_ms": entry.age,
        "retries": report.retries,
        "throttles": report.throttles,
        "resent": report.resent,
        "alarms": entry.alarms,
    }


def _shards(settings: Settings, entries: list[LedgerEntry], whole: bool) -> list[dict[str, Any]]:
    """Each shard's lag behind the tip, from the newest entry that names the shard.

    `whole`: `entries` are all that there are.
    """
    last: dict[str, str] = {}
    arrived: dict[str, datetime | None] = {}
    for entry in sorted(entries, key=lambda each: -each.batch):
        for shard, part in entry.report.shards.items():
            if shard not in last:
                last[shard], arrived[shard] = part.last, part.arrived
    rows = []
    for each in stream_lag(settings, last):
        row = {**asdict(each), "position": str(each.position), "last_arrival": arrived.get(each.shard)}
        if each.shard not in last and not whole:
            # An older entry, which was not read, may name the shard's last record.
            row |= {"state": "quiet", "behind_ms": None, "position": None}
        rows.append(row)
    return rows
