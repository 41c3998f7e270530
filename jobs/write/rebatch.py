"""A task's records in blocks that depend on the records alone, whatever batches they come in.

How a source cuts them is chance: answers of Kinesis differ in size from one reading to the next. Files are compressed,
sorted and rolled over block by block, so with blocks that are always the same a task that runs a second time (a retry,
a speculative copy, the same batch after a crash) writes the same bytes under the same names.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS = 10_000  # most answers of a backlog are of so many records, and pass as they are
BYTES = 8 * 1024 * 1024


def blocks(batches: Iterator[pa.RecordBatch], most_bytes: int = BYTES) -> Iterator[pa.RecordBatch]:
    """Batches with a column `data binary` → the same rows in blocks, each ended by its ROWS-th record or the one with
    which it has `most_bytes` of data."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        start, ends = 0, np.cumsum(pc.binary_length(batch["data"]).to_numpy(zero_copy_only=False), dtype=np.int64)
        while start < batch.num_rows:
            before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, before + most_bytes - size)) + 1
            end = min(batch.num_rows, full, start + ROWS - rows)
            waiting.append(batch.slice(start, end - start))
            rows, size, start = rows + end - start, size + int(ends[end - 1]) - before, end
            if rows == ROWS or size >= most_bytes:
                yield _one(waiting)
                waiting, rows, size = [], 0, 0
    if waiting:
        yield _one(waiting)


def _one(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    return parts[0] if len(parts) == 1 else pa.concat_batches(parts)
