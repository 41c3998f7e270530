"""The records of a sample: of files, as `movement produce` reads and checks them, or of a stream.

In: paths, or a stream's name. Out: `SamplePart`s of consecutive records, each a JSON document as it is on the stream.
Nothing is sent and no Spark is started.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jobs.common.errors import ConfigurationError, TransientError
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from producer.csv_reader import RowChunk
from producer.input_files import InputFile, find_input_files
from producer.json_reader import JsonChunk
from producer.put_records import DEFAULT_MAX_RECORD_BYTES
from producer.readers import Chunk, encoder_for, open_reader
from producer.record_encoder import MALFORMED_ROW
from spark_kinesis.boto_client import BotoStreamClient
from spark_kinesis.client import RetryingClient
from spark_kinesis.errors import PositionGoneError, SourceError, TransientSourceError
from spark_kinesis.offset import TRIM_HORIZON
from spark_kinesis.options import parse_options

_RECORDS_PER_CALL = 1_000


@dataclass(slots=True)
class SamplePart:
    """Consecutive records of one file or shard.

    records    the documents that `movement produce` would send, without blank lines
    rejected   (where, why) of the others; where is such as `clicks.jsonl, line 3`
    fields     the names of the file's columns, with the fields of its name; empty for JSON lines, where each record
               has its own
    """

    records: list[bytes]
    rejected: list[tuple[str, Rejection]] = field(default_factory=list)
    fields: tuple[str, ...] = ()
    documents: Sequence[bytes] = ()

    @property
    def rows(self) -> int:
        return len(self.records) + len(self.rejected)


def read_files(
    paths: Sequence[str], contract: TableContract | None, *, format: str | None = None, limit: int | None = None
) -> Iterator[SamplePart]:
    """The records of files and folders, up to about `limit` of them.

    With a contract each record is checked by it, and has the fields of its file's name; without, only records that are
    no JSON object are rejected. Raises ConfigurationError for a path that does not exist, and TerminalError for a file
    that cannot be read.
    """
    taken = 0
    for file in find_input_files(paths, contract.file_name if contract else None, None, format):
        for part in _read_file(file, contract):
            yield part
            taken += part.rows
            if limit is not None and taken >= limit:
                return


def _read_file(file: InputFile, contract: TableContract | None) -> Iterator[SamplePart]:
    with open_reader(file) as reader:
        encode = encoder_for(reader, file, contract or _ANY, DEFAULT_MAX_RECORD_BYTES, contract is not None)
        names = (*reader.names, *file.fields) if reader.names is not None else ()
        for chunk in reader.chunks():
            records, rejected = encode(chunk).part(0, chunk.count)
            part = SamplePart(
                [record.Data for record in records],
                [(_where(file, chunk, index), why) for index, why in rejected],
                names,
                chunk.documents if isinstance(chunk, JsonChunk) else (),
            )
            if chunk.fault is not None:
                line, message = chunk.fault
                part.rejected.append((f"{file.path}, line {line}", Rejection(MALFORMED_ROW, value=message)))
            yield part


def _where(file: InputFile, chunk: RowChunk | Chunk, index: int) -> str:
    line = chunk.line_of(index)
    return f"{file.path}, line {line}" if line is not None else f"{file.path}, row {chunk.first_row + index + 1}"


def read_stream(stream: str, *, records: int, seconds: float) -> Iterator[SamplePart]:
    """The oldest records of a stream: up to `records` in all, taking turns over its shards, for at most `seconds`.

    Ends once every shard has been read to its tip. Raises ConfigurationError if the stream cannot be read, and
    TransientError if AWS does not answer.
    """
    try:
        yield from _read_shards(stream, records, time.monotonic() + seconds)
    except TransientSourceError as error:
        raise TransientError(str(error)) from error
    except SourceError as error:
        raise ConfigurationError(str(error)) from error


def _read_shards(stream: str, wanted: int, deadline: float) -> Iterator[SamplePart]:
    options = parse_options({"streamName": stream, "startingPosition": "TRIM_HORIZON"})
    client = RetryingClient(BotoStreamClient(options), seconds=10)
    iterators: dict[str, str | None] = {}
    for shard in client.list_shards():
        try:
            iterators[shard.shard_id] = client.iterator(shard.shard_id, TRIM_HORIZON)
        except PositionGoneError:  # a closed shard whose records have left the stream
            continue
    while iterators and wanted > 0 and time.monotonic() < deadline:
        for shard_id, iterator in list(iterators.items()):
            page = client.records(str(iterator), min(wanted, _RECORDS_PER_CALL))
            if page.records:
                yield SamplePart([record.data for record in page.records])
                wanted -= len(page.records)
            iterators[shard_id] = page.next_iterator
            if page.caught_up:
                del iterators[shard_id]
            if wanted <= 0 or time.monotonic() >= deadline:
                return


# Reads records as they are: no check uses its column.
_ANY = TableContract.model_validate(
    {
        "version": 2,
        "name": "any",
        "columns": {"value": {"type": "string"}},
        "partition_by": ["value"],
        "stream_partition_key": ["value"],
    }
)
