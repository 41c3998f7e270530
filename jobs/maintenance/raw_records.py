"""Turns raw lines back into records with shard, sequence number and arrival time, for `movement replay --raw`.

A raw file holds only the records' bytes. The ledger names its runs: consecutive records of one shard between two
sequence numbers. The batch's processed rows and quarantine lines have the sequence numbers, so the n lines of a run are
the n records found within it, in order. If the numbers differ, that is an error; nothing is guessed.
"""

from __future__ import annotations

import gzip
import io
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.common.errors import TerminalError
from jobs.lake.ledger import LedgerEntry
from jobs.lake.quarantine_files import read_lines
from jobs.lake.store import Lake
from jobs.lake.table_files import files_of_entries
from jobs.lake.task_report import RecordRun, SequenceOrder, WrittenFile, sequence_order
from jobs.schema.partitions import parse_partition_path

_COLUMNS = ["batch", "shard_id", "sequence_number", "arrival_time"]
_LINES_AT_ONCE = 10_000


class RecordOrigin(NamedTuple):
    """Where a record came from.

    payload    its exact bytes, if it is in quarantine
    skip       it is not parsed again, because its quarantine line must not change
    """

    order: SequenceOrder
    sequence_number: str
    arrival_time: datetime
    partition_key: str | None = None
    payload: bytes | None = None
    skip: bool = False


# By batch `<query>-<batch>` and shard: the records, in order.
Origins = dict[str, dict[str, list[RecordOrigin]]]


def record_origins(lake: Lake, batches: Iterable[LedgerEntry], kept: frozenset[str]) -> Origins:
    """The origins of all records of some batches, from their rows and quarantine lines.

    `kept`: quarantine files whose records are skipped. Takes about 0.5 kB of memory per record.
    """
    entries = {entry.name: entry for entry in batches}
    origins: Origins = {batch: defaultdict(list) for batch in entries}
    wanted = pa.array(sorted(entries), pa.string())
    for file in files_of_entries(lake, *entries.values()):
        rows = pq.read_table(io.BytesIO(lake.get(file.path) or b""), columns=_COLUMNS)
        rows = rows.filter(pc.is_in(rows["batch"], value_set=wanted))
        columns = [rows[name].to_pylist() for name in _COLUMNS]
        for batch, shard, sequence, arrival in zip(*columns, strict=True):
            origins[batch][shard].append(RecordOrigin(sequence_order(sequence), sequence, arrival))
    for batch, entry in entries.items():
        for path in (file.path for file in entry.report.files if file.kind == "quarantine"):
            for line in read_lines(lake, path):
                sequence = line.sequence_number or ""
                origin = RecordOrigin(
                    sequence_order(sequence), sequence, line.arrival_time, line.partition_key, line.data, path in kept
                )
                origins[batch][line.shard_id or ""].append(origin)
        for of_shard in origins[batch].values():
            of_shard.sort(key=lambda origin: origin.order)
    return origins


def read_records(lake: Lake, entry: LedgerEntry, origins: dict[str, list[RecordOrigin]]) -> Iterator[pa.RecordBatch]:
    """The batch's records, except skipped ones, with the columns of the Kinesis source.

    `origins`: by shard. Raises TerminalError if a raw file is gone, or if its lines and the origins do not match.
    """
    for file in entry.report.files:
        if file.kind != "raw":
            continue
        matched = [
            (run.shard, origin) for run in file.runs for origin in _within(run, origins.get(run.shard, []), file)
        ]
        expected: Counter[str] = Counter()
        for run in file.runs:
            expected[run.shard] += run.records
        if len(matched) != file.rows or Counter(shard for shard, _ in matched) != expected:
            raise _unmatched(lake, entry, file, f"{len(matched)} of its records are known by their sequence numbers")
        content = lake.get(file.path)
        if content is None:
            raise _unmatched(lake, entry, file, "it is gone")
        remaining = iter(matched)
        with gzip.open(io.BytesIO(content)) as lines:
            while part := list(islice(lines, _LINES_AT_ONCE)):
                found = list(zip(part, islice(remaining, len(part)), strict=False))
                if len(found) < len(part):
                    raise _unmatched(lake, entry, file, "it has more lines")
                chosen = [(line, shard, origin) for line, (shard, origin) in found if not origin.skip]
                if chosen:
                    yield _record_batch(chosen)
        if next(remaining, None) is not None:
            raise _unmatched(lake, entry, file, "it has fewer lines")


def _record_batch(records: list[tuple[bytes, str, RecordOrigin]]) -> pa.RecordBatch:
    data = [line.removesuffix(b"\n") if origin.payload is None else origin.payload for line, _, origin in records]
    return pa.record_batch(
        {
            "data": pa.array(data, pa.binary()),
            "shard_id": pa.array([shard for _, shard, _ in records], pa.string()),
            "sequence_number": pa.array([origin.sequence_number for _, _, origin in records], pa.string()),
            "partition_key": pa.array([origin.partition_key for _, _, origin in records], pa.string()),
            "arrival_time": pa.array([origin.arrival_time for _, _, origin in records], pa.timestamp("us", tz="UTC")),
        }
    )


def _unmatched(lake: Lake, entry: LedgerEntry, file: WrittenFile, why: str) -> TerminalError:
    return TerminalError(
        f"{lake.uri}/{file.path}: the ledger says {file.rows} lines, but {why}. movement replay --raw needs each "
        "line's sequence number, from processed rows and quarantine, and a ledger entry of this release or later. "
        f"Nothing was changed; choose a window without batch {entry.name}"
    )


def _within(run: RecordRun, origins: list[RecordOrigin], file: WrittenFile) -> list[RecordOrigin]:
    """The origins of a run's records: between its sequence numbers, in the file's hour. `origins`: of its shard."""
    hour = parse_partition_path(file.partition)
    first = bisect_left(origins, sequence_order(run.first), key=lambda origin: origin.order)
    last = bisect_right(origins, sequence_order(run.last), key=lambda origin: origin.order)
    return [
        origin
        for origin in origins[first:last]
        if f"{origin.arrival_time:%Y-%m-%d %H}" == f"{hour['ingest_date']} {hour['hour']}"
    ]
