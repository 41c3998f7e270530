"""Decompresses records before they are cut into blocks, if the contract says `encoding: gzip`.

In: batches of records as they are on the stream. Out: batches whose `data` is the JSON text, so that raw lines and
quarantine can be read. A record that is not gzip keeps its bytes, and the parser rejects it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from jobs.schema.encoding import gunzip
from jobs.schema.table import TableContract

# A batch of the result is full with this many bytes of text: a few kilobytes of gzip can be ten megabytes.
_FULL_BYTES = 8 * 1024 * 1024


def decoded(batches: Iterable[pa.RecordBatch], contract: TableContract) -> Iterable[pa.RecordBatch]:
    """The batches, with the records' JSON text in the column `data`; the same batches if records have no encoding."""
    return batches if contract.encoding == "none" else _gunzipped(batches, contract.max_record_bytes)


def _gunzipped(batches: Iterable[pa.RecordBatch], max_bytes: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        texts: list[bytes] = []
        start = size = 0
        for index, record in enumerate(batch["data"].to_pylist(), 1):
            text = gunzip(record, max_bytes)
            texts.append(text if isinstance(text, bytes) else record)
            size += len(texts[-1])
            if size >= _FULL_BYTES or index == batch.num_rows:
                part = batch.slice(start, index - start)
                at = part.schema.get_field_index("data")
                yield part.set_column(at, "data", pa.array(texts, pa.binary()))
                texts, start, size = [], index, 0
