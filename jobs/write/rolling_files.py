"""A task's open files: written on the worker's disk, put into the lake when they are full or the task ends.

A file's name is `<query>-<batch>-<task>-<number>`. The same task of a repeated batch writes the same names with the
same bytes (see `rebatch`), so a repetition changes nothing. If small files are merged (`merge_small_files`), a file
that stayed small is not put into the lake but kept in `small_files`.
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


class FileEncoder(Protocol):
    """Encodes rows into the bytes of one file."""

    suffix: str

    @property
    def buffered_bytes(self) -> int:
        """Bytes in memory that are not encoded yet."""
        ...

    def write(self, rows: Any) -> int:
        """Encodes rows, or buffers them; returns their number."""
        ...

    def flush(self) -> None:
        """Encodes the buffered rows."""

    def close(self) -> None:
        """Writes the buffered rows and the end of the file."""

    def close_if_small(self) -> bool:
        """If the file is small, closes it in the form that `merge_small_files` reads, and returns True."""
        ...


@dataclass(frozen=True)
class SmallFile:
    """A partition's file that stayed small: `size` bytes of `spool` from `start`, in the form of its encoder."""

    kind: TableName
    partition: str
    number: int
    rows: int
    runs: tuple[RecordRun, ...]
    spool: BinaryIO
    start: int
    size: int


@dataclass
class _OpenFile:
    file: BinaryIO
    encoder: FileEncoder
    rows: int = 0
    runs: tuple[RecordRun, ...] = ()


class RollingFiles:
    """The open files of one table and task, one for each partition. A file is closed at `target_bytes`.

    written       the files in the lake
    small_files   the files that stayed small
    """

    # With more partitions than this (a replay over years) all files are closed, and continued in new ones.
    MAX_OPEN = 400
    # With more buffered bytes than this over all files, the fullest ones are encoded early.
    MAX_BUFFERED_BYTES = 16 * 1024 * 1024

    def __init__(
        self,
        lake: Lake,
        kind: TableName,
        name: str,
        open_encoder: Callable[[BinaryIO], FileEncoder],
        target_bytes: int,
        locations: Mapping[str, str] | None = None,
    ) -> None:
        """`name`: the start of the files' names. `locations`: folders of moved partitions; default
        `<kind>/<partition>/`."""
        self._locations = locations or {}
        self._lake = lake
        self._kind: TableName = kind
        self._name = name
        self._open_encoder = open_encoder
        self._target_bytes = target_bytes
        self._open: dict[str, _OpenFile] = {}
        self._numbers: dict[str, int] = {}
        self.written: list[WrittenFile] = []
        self.small_files: list[SmallFile] = []
        self._spool: BinaryIO | None = None  # one file for the small files of all partitions

    def write(self, partition: str, rows: Any, runs: tuple[RecordRun, ...] = ()) -> None:
        """Adds rows to the partition's file. `runs`: the records that the rows hold, for the ledger."""
        if partition not in self._open:
            if len(self._open) >= self.MAX_OPEN:
                self.close()
            file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is put into the lake
            self._open[partition] = _OpenFile(file, self._open_encoder(file))
        open_file = self._open[partition]
        open_file.rows += open_file.encoder.write(rows)
        open_file.runs = merge_runs(open_file.runs, runs)
        self._limit_memory()
        if open_file.file.tell() >= self._target_bytes:
            self._put(partition)

    def close(self) -> None:
        """Puts every open file into the lake, except small ones."""
        for partition, open_file in list(self._open.items()):
            if open_file.encoder.close_if_small():
                del self._open[partition]
                with open_file.file:
                    self._keep_small(partition, open_file)
            else:
                self._put(partition)

    def _limit_memory(self) -> None:
        encoders = [open_file.encoder for open_file in self._open.values()]
        buffered = sum(encoder.buffered_bytes for encoder in encoders)
        if buffered <= self.MAX_BUFFERED_BYTES:
            return
        for encoder in sorted(encoders, key=lambda encoder: encoder.buffered_bytes, reverse=True):
            if buffered <= self.MAX_BUFFERED_BYTES // 2:
                break
            buffered -= encoder.buffered_bytes
            encoder.flush()

    def _put(self, partition: str) -> None:
        open_file = self._open.pop(partition)
        open_file.encoder.close()
        folder = self._locations.get(partition) or f"{self._kind}/{partition}/"
        path = f"{folder}{self._name}-{self._next_number(partition):03d}{open_file.encoder.suffix}"
        with open_file.file as file:
            size = file.tell()
            file.seek(0)
            fault_point("file.encoded")
            self._lake.put(path, file)
            fault_point("file.put")
        self.written.append(WrittenFile(self._kind, path, partition, open_file.rows, size, open_file.runs))

    def _keep_small(self, partition: str, open_file: _OpenFile) -> None:
        if self._spool is None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the last small file
        start, size = self._spool.tell(), open_file.file.tell()
        open_file.file.seek(0)
        shutil.copyfileobj(open_file.file, self._spool)
        number = self._next_number(partition)
        self.small_files.append(
            SmallFile(self._kind, partition, number, open_file.rows, open_file.runs, self._spool, start, size)
        )

    def _next_number(self, partition: str) -> int:
        """The number of the partition's next file: 0, 1, 2, …"""
        number = self._numbers.get(partition, 0)
        self._numbers[partition] = number + 1
        return number


def merge_runs(before: tuple[RecordRun, ...], after: tuple[RecordRun, ...]) -> tuple[RecordRun, ...]:
    """The runs of consecutive lines. If the last run and the next one are of the same shard, they become one."""
    if before and after and before[-1].shard == after[0].shard:
        both = RecordRun(after[0].shard, before[-1].first, after[0].last, before[-1].records + after[0].records)
        return (*before[:-1], both, *after[1:])
    return before + after
