"""A task's delivery files → Arrow batches of records, in the columns of a source's rows.

`splitting` says where a record ends; the sink's WriteTask takes the batches. Where a stream's row names its shard
and sequence number, a row from here names its file and its position in it, from 1.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from jobs.common.errors import TransientError
from jobs.delivery.delivery_files import OpenStore, arrived_from, store_and_path
from jobs.delivery.json_splitter import split_records

log = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024
# A batch is closed at either: records may have 10 MiB each.
BATCH_RECORDS = 10_000
BATCH_BYTES = 32 * 1024 * 1024

# A file is unpacked slice by slice: what is left of one is copied for every chunk that comes out of it.
_SLICE_BYTES = 64 * 1024
_GZIP = 31  # zlib's window bits for a gzip header and trailer
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class ReadFiles:
    """Reads files; pickles, and opens its stores where it runs.

    `name` shortens a file's address to what stands in the rows; `planned_at` is the arrival time of the records of
    a file whose name tells none.
    """

    open_store: OpenStore
    name: Callable[[str], str]
    planned_at: datetime

    def __call__(self, uris: Iterable[str]) -> Iterator[pa.RecordBatch]:
        """Batches of data, shard_id, sequence_number, partition_key, arrival_time; a batch is of one file.

        Raises TransientError where a file is gone since it was listed.
        """
        for uri in uris:
            store, path = store_and_path(uri)
            content = self.open_store(store).get(path)
            if content is None:
                raise TransientError(
                    f"{uri} is gone since the run was planned: put it back, or an empty file in its place if its "
                    "records are lost for good; then run the job again"
                )
            chunks = gunzipped(content, uri) if uri.endswith(".gz") else _chunks(content)
            yield from self._batches(uri, split_records(chunks))

    def _batches(self, uri: str, records: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
        waiting: list[bytes] = []
        size, first = 0, 1
        for record in records:
            waiting.append(record)
            size += len(record)
            if len(waiting) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield self._batch(uri, waiting, first)
                first += len(waiting)
                waiting, size = [], 0
        if waiting:
            yield self._batch(uri, waiting, first)

    def _batch(self, uri: str, records: list[bytes], first: int) -> pa.RecordBatch:
        count = len(records)
        return pa.record_batch(
            {
                "data": pa.array(records, pa.binary()),
                "shard_id": pa.repeat(pa.scalar(self.name(uri), pa.string()), count),
                "sequence_number": pa.array(map(str, range(first, first + count)), pa.string()),
                "partition_key": pa.nulls(count, pa.string()),
                "arrival_time": pa.repeat(pa.scalar(arrived_from(uri, self.planned_at), _TIME), count),
            }
        )


def gunzipped(content: bytes, name: str) -> Iterator[bytes]:
    """What gzip members, one or several, hold, in chunks of CHUNK_BYTES at most.

    Where the file breaks off or is damaged, the compressed bytes from there on are the last chunk, behind a
    newline: a record that no contract takes, so that the damage is seen in quarantine and the rest is kept.
    """
    member = zlib.decompressobj(_GZIP)
    for start in range(0, len(content), _SLICE_BYTES):
        left, more = content[start : start + _SLICE_BYTES], False
        while left or more:
            if member.eof:
                left = left.lstrip(b"\0")  # gzip files may be padded
                if not left:
                    break
                member = zlib.decompressobj(_GZIP)
            try:
                chunk = member.decompress(left, CHUNK_BYTES)
            except zlib.error as error:
                log.warning("%s: not readable as gzip from byte %d on: %s", name, start, error)
                yield from (b"\n", left)
                return
            if chunk:
                yield chunk
            left, more = (member.unused_data, False) if member.eof else (member.unconsumed_tail, len(chunk) > 0)
    if not member.eof:
        log.warning("%s: breaks off within a gzip member", name)
        yield from (b"\n", content[-_SLICE_BYTES:])


def _chunks(content: bytes) -> Iterator[bytes]:
    return (content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES))
