"""Cuts a task's records into blocks that depend on the records alone, not on the batches they arrive in.

The sizes of Kinesis answers vary from one read to the next. Files are compressed, sorted and rolled over block by
block, so with fixed blocks a task that runs again (a retry, a speculative copy, the same batch after a crash) writes
the same bytes under the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_ROWS = 10_000  # Kinesis answers of a backlog have this many records, and pass without a copy
MAX_BYTES = 8 * 1024 * 1024


def rebatch(batches: Iterable[pa.RecordBatch], max_bytes: int = MAX_BYTES) -> Iterator[pa.RecordBatch]:
    """Regroups batches with a column `data binary` into blocks, in the same order.

    A block ends with its MAX_ROWS-th record, or with the record that brings its data to `max_bytes` or more. Example:
    with `max_bytes` 1000, records of 600, 600 and 100 bytes are two blocks: 600 + 600, and 100.
    """
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        start, ends = 0, np.cumsum(pc.binary_length(batch["data"]).to_numpy(zero_copy_only=False), dtype=np.int64)
        while start < batch.num_rows:
            before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, before + max_bytes - size)) + 1
            end = min(batch.num_rows, full, start + MAX_ROWS - rows)
            pending.append(batch.slice(start, end - start))
            rows, size, start = rows + end - start, size + int(ends[end - 1]) - before, end
            if rows == MAX_ROWS or size >= max_bytes:
                yield _concat(pending)
                pending, rows, size = [], 0, 0
    if pending:
        yield _concat(pending)


def _concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
