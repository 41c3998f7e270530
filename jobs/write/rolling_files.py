"""Files under way: written on the worker's disk, put into the lake whole once they are full or the task ends.

A name is `<query>-<batch>-<task>-<number>`: the same task of a replayed batch writes the same names with the
same bytes (`blocks` sees to it), so that repeating it changes nothing.

Where the tasks of a batch are to join what they have, a file that stayed small is not put but handed on (`parts`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from jobs.common.fault_points import fault_point
from jobs.lake.store import Lake
from jobs.lake.task_report import RecordRun, TableName, WrittenFile


class Encoder(Protocol):
    """Turns what a table's writer is given into the bytes of one file."""

    suffix: str

    @property
    def waiting(self) -> int:
        """Bytes held in memory, to be encoded together."""
        ...

    def write(self, rows: Any) -> int:
        """Encodes rows into the file, now or with later ones; the number of rows."""
        ...

    def flush(self) -> None:
        """Encodes what waits."""

    def close(self) -> None:
        """Writes what is left, the file's end included."""

    def part(self) -> bool:
        """Where there is too little for a file: ends the bytes as a part, for `join` to read. Whether it did."""
        ...


@dataclass(frozen=True)
class Part:
    """What a task has for a partition: `size` bytes of `spool` from `start` on, in the form of the table's encoder."""

    kind: TableName
    partition: str
    number: int
    rows: int
    runs: tuple[RecordRun, ...]
    spool: BinaryIO
    start: int
    size: int


class RollingFiles:
    """The open files of one table and task, one a partition, each rolled over at `target_bytes`."""

    # More partitions than this at once (a replay over years): all are closed, and go on in new files.
    MAX_OPEN = 400
    # More than this in memory, over all of them: the fullest are encoded before they would be.
    MAX_WAITING_BYTES = 16 * 1024 * 1024

    def __init__(
        self,
        lake: Lake,
        kind: TableName,
        name: str,
        open_encoder: Callable[[BinaryIO], Encoder],
        target_bytes: int,
        locations: Mapping[str, str] | None = None,
    ) -> None:
        """`locations`: the folders of partitions that lie elsewhere than in `<kind>/<partition>/`."""
        self._locations = locations or {}
        self._lake = lake
        self._kind: TableName = kind
        self._name = name
        self._open_encoder = open_encoder
        self._target_bytes = target_bytes
        self._open: dict[str, tuple[BinaryIO, Encoder, int, tuple[RecordRun, ...]]] = {}
        self._numbers: dict[str, int] = {}
        self.written: list[WrittenFile] = []
        self.parts: list[Part] = []
        self._spool: BinaryIO | None = None  # one file for all parts, however many partitions there are

    def write(self, partition: str, rows: Any, runs: tuple[RecordRun, ...] = ()) -> None:
        """Adds rows to the partition's file; `runs`: which records they are, where the ledger is to say it."""
        if partition not in self._open:
            if len(self._open) >= self.MAX_OPEN:
                self.close()
            file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is put into the lake
            self._open[partition] = (file, self._open_encoder(file), 0, ())
        file, encoder, count, before = self._open[partition]
        self._open[partition] = (file, encoder, count + encoder.write(rows), joined(before, runs))
        self._bound_memory()
        if file.tell() >= self._target_bytes:
            self._put(partition)

    def close(self) -> None:
        """Puts every open file into the lake, but for what is a part."""
        for partition in list(self._open):
            file, encoder, count, runs = self._open[partition]
            if not encoder.part():
                self._put(partition)
                continue
            del self._open[partition]
            with file:
                self.parts.append(self._part(partition, count, runs, file))

    def _bound_memory(self) -> None:
        encoders = [encoder for _, encoder, _, _ in self._open.values()]
        waiting = sum(encoder.waiting for encoder in encoders)
        if waiting <= self.MAX_WAITING_BYTES:
            return
        for encoder in sorted(encoders, key=lambda encoder: encoder.waiting, reverse=True):
            if waiting <= self.MAX_WAITING_BYTES // 2:
                break
            waiting -= encoder.waiting
            encoder.flush()

    def _put(self, partition: str) -> None:
        file, encoder, count, runs = self._open.pop(partition)
        encoder.close()
        folder = self._locations.get(partition) or f"{self._kind}/{partition}/"
        path = f"{folder}{self._name}-{self._number(partition):03d}{encoder.suffix}"
        size = file.tell()
        file.seek(0)
        fault_point("file.encoded")
        self._lake.put(path, file)
        fault_point("file.put")
        file.close()
        self.written.append(WrittenFile(self._kind, path, partition, count, size, runs))

    def _part(self, partition: str, rows: int, runs: tuple[RecordRun, ...], file: BinaryIO) -> Part:
        if self._spool is None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its last part
        start, size = self._spool.tell(), file.tell()
        file.seek(0)
        shutil.copyfileobj(file, self._spool)
        return Part(self._kind, partition, self._number(partition), rows, runs, self._spool, start, size)

    def _number(self, partition: str) -> int:
        number = self._numbers.get(partition, 0)
        self._numbers[partition] = number + 1
        return number


def joined(before: tuple[RecordRun, ...], after: tuple[RecordRun, ...]) -> tuple[RecordRun, ...]:
    """The runs of lines that follow each other; where one goes on with the same shard, both are one."""
    if before and after and before[-1].shard == after[0].shard:
        both = RecordRun(after[0].shard, before[-1].first, after[0].last, before[-1].records + after[0].records)
        return (*before[:-1], both, *after[1:])
    return before + after
