"""Raw lines → records again, each with shard, sequence number and arrival time: for `movement replay --raw`.

A raw file holds records' bytes alone. Which records they are, the ledger says: the file's runs, each the records of
one shard between two sequence numbers, in their order. What stood in processed and quarantine for that batch has the
sequence numbers, so the n records of a run are the n places found within it, in order. Where the counts differ
nothing is guessed: it is an error.
"""

from __future__ import annotations

import gzip
import io
from bisect import bisect_left, bisect_right
from collections import defaultdict
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
_ROWS = 10_000


class RecordOrigin(NamedTuple):
    """Where a record came from. `payload`: its exact bytes, where quarantine has them; `stays`: it is not read anew,
    for its line of quarantine is not to be touched."""

    order: SequenceOrder
    sequence_number: str
    arrival_time: datetime
    partition_key: str | None = None
    payload: bytes | None = None
    stays: bool = False


# Batch `<query>-<batch>` → shard → its records, in order.
Origins = dict[str, dict[str, list[RecordOrigin]]]


def record_origins(lake: Lake, batches: Iterable[LedgerEntry], kept: frozenset[str]) -> Origins:
    """The origins of all records of some batches, from their rows and their lines of quarantine.

    `kept`: files of quarantine whose records stay as they are. Memory: about half a kilobyte a record.
    """
    entries = {entry.name: entry for entry in batches}
    found: Origins = {batch: defaultdict(list) for batch in entries}
    wanted = pa.array(sorted(entries), pa.string())
    for file in files_of_entries(lake, *entries.values()):
        rows = pq.read_table(io.BytesIO(lake.get(file.path) or b""), columns=_COLUMNS)
        rows = rows.filter(pc.is_in(rows["batch"], value_set=wanted))
        columns = [rows[name].to_pylist() for name in _COLUMNS]
        for batch, shard, sequence, arrival in zip(*columns, strict=True):
            found[batch][shard].append(RecordOrigin(sequence_order(sequence), sequence, arrival))
    for batch, entry in entries.items():
        for path in (file.path for file in entry.report.files if file.kind == "quarantine"):
            for record in read_lines(lake, path):
                sequence = record.sequence_number or ""
                found[batch][record.shard_id or ""].append(
                    RecordOrigin(
                        sequence_order(sequence), sequence, record.arrival_time, record.partition_key,
                        record.data, path in kept,
                    )
                )  # fmt: skip
        for of_shard in found[batch].values():
            of_shard.sort(key=lambda place: place.order)
    return found


def read_records(lake: Lake, entry: LedgerEntry, of_batch: dict[str, list[RecordOrigin]]) -> Iterator[pa.RecordBatch]:
    """The batch's records as a source hands them to the sink, without those that stay.

    Raises TerminalError where a raw file is gone, or its lines and the places do not match one to one.
    """
    for file in entry.report.files:
        if file.kind != "raw":
            continue
        matched = [(run.shard, place) for run in file.runs for place in _within(run, of_batch.get(run.shard, []), file)]
        if len(matched) != file.rows or _counts(file, matched):
            raise _unmatched(lake, entry, file, f"{len(matched)} of its records are known by their sequence numbers")
        content = lake.get(file.path)
        if content is None:
            raise _unmatched(lake, entry, file, "it is gone")
        origins = iter(matched)
        with gzip.open(io.BytesIO(content)) as lines:
            while part := list(islice(lines, _ROWS)):
                found = list(zip(part, islice(origins, len(part)), strict=False))
                if len(found) < len(part):
                    raise _unmatched(lake, entry, file, "it has more lines")
                chosen = [(line, shard, place) for line, (shard, place) in found if not place.stays]
                if chosen:
                    yield _as_records(chosen)
        if next(origins, None) is not None:
            raise _unmatched(lake, entry, file, "it has fewer lines")


def _as_records(chosen: list[tuple[bytes, str, RecordOrigin]]) -> pa.RecordBatch:
    data = [line.removesuffix(b"\n") if place.payload is None else place.payload for line, _, place in chosen]
    return pa.record_batch(
        {
            "data": pa.array(data, pa.binary()),
            "shard_id": pa.array([shard for _, shard, _ in chosen], pa.string()),
            "sequence_number": pa.array([place.sequence_number for _, _, place in chosen], pa.string()),
            "partition_key": pa.array([place.partition_key for _, _, place in chosen], pa.string()),
            "arrival_time": pa.array([place.arrival_time for _, _, place in chosen], pa.timestamp("us", tz="UTC")),
        }
    )


def _unmatched(lake: Lake, entry: LedgerEntry, file: WrittenFile, why: str) -> TerminalError:
    return TerminalError(
        f"{lake.uri}/{file.path}: the ledger says {file.rows} lines, but {why}. movement replay --raw needs each "
        f"line's sequence number, which processed and quarantine have, and a ledger entry of this release or a later. "
        f"Nothing was changed; choose a window without batch {entry.name}"
    )


def _within(run: RecordRun, of_shard: list[RecordOrigin], file: WrittenFile) -> list[RecordOrigin]:
    """The places of a run's records: of its shard, between its bounds, in the file's hour."""
    hour = parse_partition_path(file.partition)
    first = bisect_left(of_shard, sequence_order(run.first), key=lambda place: place.order)
    last = bisect_right(of_shard, sequence_order(run.last), key=lambda place: place.order)
    return [
        place
        for place in of_shard[first:last]
        if f"{place.arrival_time:%Y-%m-%d %H}" == f"{hour['ingest_date']} {hour['hour']}"
    ]


def _counts(file: WrittenFile, matched: list[tuple[str, RecordOrigin]]) -> bool:
    """Whether a shard of the file has another number of records than its runs say."""
    said: dict[str, int] = defaultdict(int)
    for run in file.runs:
        said[run.shard] += run.records
    for shard, _ in matched:
        said[shard] -= 1
    return any(said.values())
