"""Reads a task's delivery files: in come URIs, out go Arrow batches of records in the columns of the stream's rows.

`json_splitter` finds the records, and the WriteTask takes the batches. Instead of the shard and the sequence number,
a row names its file and its position in the file, which starts at 1.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter

import pyarrow as pa

from jobs.common.errors import TransientError
from jobs.delivery.delivery_files import arrival_of, split_uri
from jobs.delivery.json_splitter import MAX_RECORD_BYTES, split_records
from jobs.lake.store import lake_at
from jobs.schema.encoding import stretches, without_file_compression

log = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024
# A batch is full at either limit; one record may have 10 MiB.
BATCH_RECORDS = 10_000
BATCH_BYTES = 32 * 1024 * 1024

# Gzip input is passed to zlib in small slices, because zlib copies the unread rest of a slice for every chunk.
_SLICE_BYTES = 64 * 1024
_GZIP = 31  # zlib's window bits for a gzip header and trailer
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class DeliveryReader:
    """Reads delivery files in a Spark task; it can be pickled, because it opens the files' stores there.

    name        shortens a file's URI for the rows
    planned_at  the arrival time of a file whose name and folder contain no time
    max_gzip_bytes  the most bytes of text in a record, if records are gzip (`encoding: gzip`); None: they are not
    """

    name: Callable[[str], str]
    planned_at: datetime
    max_gzip_bytes: int | None = None

    def __call__(self, uris: Iterable[str]) -> Iterator[pa.RecordBatch]:
        """Batches of data, shard_id, sequence_number, partition_key and arrival_time, each from a single file.

        Raises TransientError if a file was deleted after the run was planned.
        """
        for uri in uris:
            store, path = split_uri(uri)
            content = lake_at(store).get(path)
            if content is None:
                raise TransientError(
                    f"{uri} is gone since the run was planned: put it back, or an empty file in its place if its "
                    "records are lost for good; then run the job again"
                )
            is_zipped = uri.endswith(".gz")
            if self.max_gzip_bytes is not None:
                content = without_file_compression(content) if is_zipped else content
                yield from self._batches(uri, gzip_records(content, self.max_gzip_bytes))
            else:
                yield from self._batches(uri, split_records(gunzip(content, uri) if is_zipped else _chunks(content)))

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
                "arrival_time": pa.repeat(pa.scalar(arrival_of(uri, self.planned_at), _TIME), count),
            }
        )


def gzip_records(content: bytes, max_bytes: int) -> Iterator[bytes]:
    """The records of a file of gzip records: the JSON text of each, or the bytes of a bad one, in pieces of 10 MiB."""
    for is_text, parts in groupby(stretches(content, max_bytes), key=itemgetter(0)):
        if is_text:
            yield from split_records(text for _, text in parts)
        else:
            for _, bad in parts:
                yield from (bad[start : start + MAX_RECORD_BYTES] for start in range(0, len(bad), MAX_RECORD_BYTES))


def gunzip(content: bytes, name: str) -> Iterator[bytes]:
    """The decompressed content of one or several gzip members, in chunks of at most CHUNK_BYTES.

    If the file is truncated or damaged, its remaining compressed bytes follow as the last chunk, after a newline. The
    record parser rejects them, so quarantine shows the damage and the records before it are kept.
    """
    member = zlib.decompressobj(_GZIP)
    for start in range(0, len(content), _SLICE_BYTES):
        rest, has_more = content[start : start + _SLICE_BYTES], False
        while rest or has_more:
            if member.eof:
                rest = rest.lstrip(b"\0")  # gzip files may be padded
                if not rest:
                    break
                member = zlib.decompressobj(_GZIP)
            try:
                chunk = member.decompress(rest, CHUNK_BYTES)
            except zlib.error as error:
                log.warning("%s: not readable as gzip from byte %d on: %s", name, start, error)
                yield from (b"\n", rest)
                return
            if chunk:
                yield chunk
            rest, has_more = (member.unused_data, False) if member.eof else (member.unconsumed_tail, len(chunk) > 0)
    if not member.eof:
        log.warning("%s: truncated inside a gzip member", name)
        yield from (b"\n", content[-_SLICE_BYTES:])


def _chunks(content: bytes) -> Iterator[bytes]:
    return (content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES))
