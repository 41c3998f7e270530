"""Raw files: each record's own bytes as a line, gzip, in `raw/ingest_date=…/hour=…/` by arrival time (UTC)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib

from jobs.lake.task_report import RecordRun

_GZIP = 31  # zlib's window bits for a gzip header and trailer
# Up to this level ISA-L compresses: five times as fast as zlib, about as small as zlib's level 3.
_MAX_ISAL_LEVEL = 3


class GzipLines:
    """Encodes binary arrays as gzip, each value as a line. A small file is one gzip member."""

    suffix = ".json.gz"
    buffered_bytes = 0

    def __init__(self, file: BinaryIO, level: int, small_file_bytes: int = 0) -> None:
        self._file = file
        self._small_file_bytes = small_file_bytes
        library = isal_zlib if level <= _MAX_ISAL_LEVEL else zlib
        self._gzip = library.compressobj(level, zlib.DEFLATED, _GZIP)

    def write(self, rows: pa.Array) -> int:
        lines = pc.binary_join_element_wise(rows, pa.scalar(b"", rows.type), pa.scalar(b"\n", rows.type))
        size = pc.sum(pc.binary_length(lines)).as_py() or 0
        self._file.write(self._gzip.compress(memoryview(lines.buffers()[2])[:size]))
        return len(rows)

    def flush(self) -> None:
        """Nothing is buffered: lines are compressed as they arrive."""

    def close(self) -> None:
        self._file.write(self._gzip.flush())

    def close_if_small(self) -> bool:
        if self._file.tell() >= self._small_file_bytes:
            return False
        self.close()
        return True


class GzipMembers:
    """Joins small files of `GzipLines`, each given as `(rows, bytes)`: gzip members can be concatenated (RFC 1952)."""

    suffix = GzipLines.suffix
    buffered_bytes = 0

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: tuple[int, bytes | memoryview]) -> int:
        count, member = rows
        self._file.write(member)
        return count

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Each member has its own end."""

    def close_if_small(self) -> bool:
        return False


def to_lines(data: pa.BinaryArray) -> pa.BinaryArray:
    """Records as lines: a line break inside a record becomes a space. In JSON it can only be white space.

    A record that is not JSON is altered by this. Quarantine keeps its exact bytes.
    """
    content = _joined_bytes(data)
    for line_break in (b"\n", b"\r"):
        if line_break in content:
            data = pc.replace_substring(data, line_break, b" ")
    return data


def record_runs(shards: pa.StringArray, sequences: pa.StringArray) -> tuple[RecordRun, ...]:
    """The records that the lines hold: one run for each stretch of records of one shard.

    Example: shards a, a, b with numbers 5, 6, 3 are the runs (a, 5 to 6, 2 records) and (b, 3 to 3, 1 record).
    Empty if the shards are unknown, as with the JVM connector.
    """
    if shards.null_count:
        return ()
    encoded = pc.run_end_encode(shards)
    runs, start = [], 0
    for shard, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        runs.append(RecordRun(shard, sequences[start].as_py(), sequences[end - 1].as_py(), end - start))
        start = end
    return tuple(runs)


def split_by_hour(arrival: pa.TimestampArray) -> Iterator[tuple[str, pa.Array | None]]:
    """(partition, mask) of each hour in `arrival: timestamp[us, UTC]`. The mask is None if there is only one hour."""
    hours = pc.floor_temporal(arrival, unit="hour")
    distinct = pc.unique(hours)
    for hour in distinct:
        partition = f"ingest_date={hour.as_py():%Y-%m-%d}/hour={hour.as_py():%H}"
        yield partition, None if len(distinct) == 1 else pc.equal(hours, hour)


def _joined_bytes(data: pa.BinaryArray) -> bytes:
    """The bytes of all values, joined: searching them is 30 times as fast as an Arrow kernel on each value."""
    if len(data) == 0:
        return b""
    _, starts, values = data.buffers()
    ends = pa.Array.from_buffers(pa.int32(), len(data) + 1, [None, starts], offset=data.offset)
    first, last = ends[0].as_py(), ends[-1].as_py()
    return b"" if values is None else values.slice(first, last - first).to_pybytes()
