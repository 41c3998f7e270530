"""Bounds the new partitions of a micro-batch (`sink.max_new_partitions_per_batch`; docs/adr/0027).

A partition is new if the table has no file in it before the batch. All tasks together may write half of the bound at
once. Records of further new partitions are held back in `_held/<batch>/`, outside of the tables, until the driver has
the names of all tasks. A second pass writes them to the partitions that are admitted, or to quarantine.
What is admitted depends on the batch's records and the known partitions only, so a repeated batch decides the same.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from jobs.common.errors import TerminalError
from jobs.common.fault_points import fault_point
from jobs.lake.store import Lake, lake_at
from jobs.lake.task_report import NewPartitions, TaskReport, sum_reports
from jobs.schema.rejections import TOO_MANY_PARTITIONS, Rejection

FOLDER = "_held/"
# A held file is read into memory as a whole.
FILE_BYTES = 32 * 1024 * 1024
_STREAM = pa.ipc.IpcWriteOptions(compression="lz4")


class KnownPartitions:
    """The names of partitions as sorted 64-bit hashes: 8 bytes each, because every task gets them."""

    def __init__(self, partitions: Iterable[str] = ()) -> None:
        self._hashes = np.unique(np.fromiter(map(_hash, partitions), np.uint64))

    def __contains__(self, partition: str) -> bool:
        wanted = np.uint64(_hash(partition))
        at = int(np.searchsorted(self._hashes, wanted))
        return at < len(self._hashes) and bool(self._hashes[at] == wanted)

    def add(self, partitions: Iterable[str]) -> None:
        """Adds partitions."""
        new = [_hash(partition) for partition in partitions if partition not in self]
        if new:
            self._hashes = np.unique(np.concatenate([self._hashes, np.array(new, np.uint64)]))

    def __len__(self) -> int:
        return len(self._hashes)


def _hash(partition: str) -> int:
    return int.from_bytes(blake2b(partition.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class PartitionLimit:
    """What a task may write to. It is pickled to the workers.

    known      the partitions that the table has before the batch
    limit      the most new partitions of a batch
    share      first pass: how many new partitions a task writes without asking; it holds back all further ones
    admitted   second pass: the new partitions to write to; records of all others are rejected
    """

    known: KnownPartitions
    limit: int
    share: int = 0
    admitted: frozenset[str] | None = None


class PartitionGate:
    """One task's view of the limit: which partition it writes to, and the records that it holds back or rejects."""

    def __init__(self, limit: PartitionLimit, lake: Lake, batch: str, name: str) -> None:
        self._limit = limit
        self._lake = lake
        self._path = f"{FOLDER}{batch}/{name}"
        self._written: set[str] = set()
        self._held: Counter[str] = Counter()
        self._files: list[str] = []
        self._file: BinaryIO | None = None
        self._stream: pa.RecordBatchStreamWriter | None = None

    def admits(self, partition: str) -> bool:
        """Whether the task may write rows to the partition."""
        if self._limit.admitted is not None:
            return partition in self._limit.admitted
        if partition in self._written or partition in self._limit.known:
            return True
        if len(self._written) >= self._limit.share:
            return False
        self._written.add(partition)
        return True

    def refuse(self, records: pa.RecordBatch, refused: dict[str, list[int]]) -> dict[int, Rejection]:
        """Takes the records, by partition, that may not be written: holds them back, or returns their rejections."""
        if self._limit.admitted is not None:
            return {
                position: Rejection(TOO_MANY_PARTITIONS, None, partition)
                for partition, positions in refused.items()
                for position in positions
            }
        for partition, positions in refused.items():
            self._held[partition] += len(positions)
        self._hold(records.take(pa.array(sorted(at for each in refused.values() for at in each), pa.int64())))
        return {}

    def close(self) -> NewPartitions | None:
        """Puts the held records into the lake; returns the task's new partitions, None if it has none.

        Names at most `limit` held partitions, those with the most records: no other could be admitted.
        """
        self._put()
        if not self._written and not self._held:
            return None
        named = _most_records(self._held)[: self._limit.limit]
        return NewPartitions(sorted(self._written), dict(named), len(self._held) - len(named), self._files)

    def _hold(self, records: pa.RecordBatch) -> None:
        if self._stream is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is put into the lake
            self._stream = pa.ipc.new_stream(self._file, records.schema, options=_STREAM)
        self._stream.write_batch(records)
        assert self._file is not None  # noqa: S101 - opened with the stream
        if self._file.tell() >= FILE_BYTES:
            self._put()

    def _put(self) -> None:
        if self._stream is None or self._file is None:
            return
        self._stream.close()
        with self._file as file:
            file.seek(0)
            path = f"{self._path}-{len(self._files):03d}.arrow"
            self._lake.put(path, file)
        self._files.append(path)
        self._file = self._stream = None


@dataclass(frozen=True)
class HeldRecords:
    """Reads held files. Spark's rows name them by their position in `files`: the column `id`."""

    lake: str
    files: tuple[str, ...]

    def __call__(self, numbers: Iterable[pa.RecordBatch], _counters: Counter[str]) -> Iterator[pa.RecordBatch]:
        lake = lake_at(self.lake)
        for batch in numbers:
            for number in batch["id"].to_pylist():
                content = lake.get(self.files[number])
                if content is None:
                    raise TerminalError(
                        f"{self.lake}/{self.files[number]}, which holds records of this batch, was deleted meanwhile. "
                        "Nothing was committed: start the job again, and keep other tools off this folder"
                    )
                fault_point("held.read")
                with pa.ipc.open_stream(content) as stream:
                    yield from stream


def admitted(found: NewPartitions, limit: int) -> frozenset[str]:
    """The new partitions of a batch that are written to, at most `limit`.

    Those that tasks have written to already, then those with the most records; names decide between equal ones. If the
    batch has no more than `limit` new partitions, these are all.
    """
    written = set(found.written)
    rest = [name for name, _ in _most_records(found.held) if name not in written]
    return frozenset(written.union(rest[: max(0, limit - len(written))]))


def add_second_pass(report: TaskReport, second: TaskReport) -> TaskReport:
    """The report of both passes. The second one reads records that the first one has counted."""
    second.read = second.read_bytes = 0
    second.shards = {}
    return sum_reports([report, second])


def remove_held(lake: Lake, query: str) -> None:
    """Deletes the held files of runs of a query that died."""
    lake.delete([path for path, _ in lake.list(f"{FOLDER}{query}-")])


def alarm(report: TaskReport, batch: str, limit: int) -> list[str]:
    """A sentence if records of the batch were rejected because of the limit."""
    rejected, new = report.reasons.get(TOO_MANY_PARTITIONS, 0), report.new_partitions
    if not rejected or new is None:
        return []
    found = f"{'up to ' if new.unnamed else ''}{len({*new.written, *new.held}) + new.unnamed:,}"
    return [
        f"batch {batch} has records for {found} new partitions, sink.max_new_partitions_per_batch allows {limit:,}: "
        f"{rejected:,} records are in quarantine ({TOO_MANY_PARTITIONS}). Bound the partition columns in the contract "
        f"(allowed, pattern), or raise the limit and run `movement replay --quarantine --reason {TOO_MANY_PARTITIONS}`"
    ]


def _most_records(records: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(records.items(), key=lambda item: (-item[1], item[0]))
