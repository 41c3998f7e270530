"""Raw: each record's own bytes, a line each, gzip, under `raw/ingest_date=…/hour=…/` by arrival (UTC)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib

from jobs.lake.task_report import RecordRun

_GZIP = 31  # zlib's window bits for a gzip header and trailer
# Up to here ISA-L compresses, five times as fast as zlib and as small as its level 3.
_FAST_LEVELS = 3


class GzipLines:
    """Encodes binary arrays as gzip, each value a line. Less than `small_file_bytes` is a part: one gzip member."""

    suffix = ".json.gz"
    waiting = 0

    def __init__(self, file: BinaryIO, level: int, small_file_bytes: int = 0) -> None:
        self._file = file
        self._small_file_bytes = small_file_bytes
        maker = isal_zlib if level <= _FAST_LEVELS else zlib
        self._gzip = maker.compressobj(level, zlib.DEFLATED, _GZIP)

    def write(self, rows: pa.Array) -> int:
        ended = pc.binary_join_element_wise(rows, pa.scalar(b"", rows.type), pa.scalar(b"\n", rows.type))
        size = pc.sum(pc.binary_length(ended)).as_py() or 0
        self._file.write(self._gzip.compress(memoryview(ended.buffers()[2])[:size]))
        return len(rows)

    def flush(self) -> None:
        """Nothing waits: lines are compressed as they come."""

    def close(self) -> None:
        self._file.write(self._gzip.flush())

    def part(self) -> bool:
        if self._file.tell() >= self._small_file_bytes:
            return False
        self.close()
        return True


class GzipMembers:
    """Encodes parts of `GzipLines`, each `(rows, bytes)`: gzip members in a row are a gzip file (RFC 1952)."""

    suffix = GzipLines.suffix
    waiting = 0

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: tuple[int, bytes | memoryview]) -> int:
        self._file.write(rows[1])
        return rows[0]

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """A member has its own end."""

    def part(self) -> bool:
        return False


def lines(data: pa.BinaryArray) -> pa.BinaryArray:
    """Records as lines. A line break inside a record becomes a space: in JSON it can only be white space.

    A record that is not JSON is altered by that; its exact bytes stand in quarantine.
    """
    content = _content(data)
    for breaking in (b"\n", b"\r"):
        if breaking in content:
            data = pc.replace_substring(data, breaking, b" ")
    return data


def runs(shards: pa.StringArray, sequences: pa.StringArray) -> tuple[RecordRun, ...]:
    """Which records the lines are: each stretch of one shard's records, in their order.

    None where the shards are not known (the JVM connector does not tell them).
    """
    if shards.null_count:
        return ()
    encoded = pc.run_end_encode(shards)
    found, start = [], 0
    for shard, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        found.append(RecordRun(shard, sequences[start].as_py(), sequences[end - 1].as_py(), end - start))
        start = end
    return tuple(found)


def _content(data: pa.BinaryArray) -> bytes:
    """All values' bytes in one piece: looked through by memchr, which is 30 times as fast as a kernel on each value."""
    if len(data) == 0:
        return b""
    _, starts, values = data.buffers()
    ends = pa.Array.from_buffers(pa.int32(), len(data) + 1, [None, starts], offset=data.offset)
    first, last = ends[0].as_py(), ends[-1].as_py()
    return b"" if values is None else values.slice(first, last - first).to_pybytes()


def by_hour(arrival: pa.TimestampArray) -> Iterator[tuple[str, pa.Array | None]]:
    """(partition, mask) of each hour in `arrival: timestamp[us, UTC]`; mask None where one hour holds them all."""
    hours = pc.floor_temporal(arrival, unit="hour")
    distinct = pc.unique(hours)
    for hour in distinct:
        partition = f"ingest_date={hour.as_py():%Y-%m-%d}/hour={hour.as_py():%H}"
        yield partition, None if len(distinct) == 1 else pc.equal(hours, hour)
