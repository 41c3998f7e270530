"""A local Firehose: reads a Kinesis stream and writes files under the lake's `delivery/`.

moto accepts a delivery stream with a Kinesis source but never reads the source. The S3 event of each file starts the
batch path (`local.events`). Like Firehose, this class delivers at least once, keeps a shard's order, and names folder
and file after the arrival of the file's oldest record, UTC:
`delivery/ingest_date=YYYY-MM-DD/hour=HH/<delivery stream>-<version>-YYYY-MM-DD-HH-mm-ss-<uuid>[.gz]`.
Its position is stored in the lake, `_delivery/<delivery stream>.json`, so another process can resume there.
Sources: https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html and …/s3-prefixes.html
"""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from botocore.exceptions import ClientError

from jobs.common import aws
from jobs.common.errors import ConfigurationError
from local.resources import lake_location

# The most records that GetRecords returns; also at most 10 MB.
RECORDS_A_CALL = 10_000


@dataclass(frozen=True)
class DeliveryOptions:
    """Firehose's buffering hints, compression and AppendDelimiterToRecord, with its defaults except for gzip.

    `delimiter` False writes records one after the other without a newline, as Firehose does by default.
    """

    name: str = "movement-delivery"
    version: int = 1
    buffer_bytes: int = 5 * 1024 * 1024
    buffer_seconds: float = 300.0
    compression: Literal["GZIP", "UNCOMPRESSED"] = "GZIP"
    delimiter: bool = False
    prefix: str = "delivery/ingest_date=%Y-%m-%d/hour=%H/"


@dataclass(frozen=True)
class DeliveredFile:
    """A file that was written: bucket, key, number of records, and size in bytes as stored."""

    bucket: str
    key: str
    records: int
    size: int


@dataclass
class _Buffer:
    """Records of the next file, and the position in each shard once that file is written."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    oldest: datetime | None = None
    since: float = 0.0
    reached: dict[str, str] = field(default_factory=dict)


class DeliveryStream:
    """Reads `stream` from the stored position, or from its oldest record, and writes to the lake's bucket."""

    def __init__(
        self,
        stream: str,
        lake: str,
        options: DeliveryOptions | None = None,
        clock: Callable[[], float] = time.time,
    ):
        bucket, self._prefix = lake_location(lake)
        if bucket is None:
            raise ConfigurationError(f"lake: a delivery stream writes to S3, not to the folder {lake}")
        self._bucket = bucket
        self._stream = stream
        self._options = options or DeliveryOptions()
        self._clock = clock
        self._kinesis = aws.client("kinesis")
        self._s3 = aws.client("s3")
        self._position_key = f"{self._prefix}_delivery/{self._options.name}.json"
        self._buffer = _Buffer()
        self._stream_created: str | None = None

    def drain(self) -> list[DeliveredFile]:
        """Delivers every record that arrived before the call, even if the last file is small."""
        tip = datetime.fromtimestamp(self._clock(), UTC)
        delivered = list(self._read(until=tip))
        if self._buffer.parts:
            delivered.append(self._deliver())
        return delivered

    def poll(self) -> list[DeliveredFile]:
        """Reads the records that have arrived, and delivers every buffer that is full or old enough."""
        delivered = list(self._read(until=datetime.fromtimestamp(self._clock(), UTC)))
        if self._buffer.parts and self._clock() - self._buffer.since >= self._options.buffer_seconds:
            delivered.append(self._deliver())
        return delivered

    def _read(self, until: datetime) -> Iterator[DeliveredFile]:
        with aws.translate_aws_errors(f"read the stream {self._stream}"):
            if self._stream_created is None:
                self._load_position()
            pages = self._kinesis.get_paginator("list_shards").paginate(StreamName=self._stream)
            shards = [shard for page in pages for shard in page["Shards"]]
            for shard in shards:
                for record in self._records(shard, until):
                    yield from self._take(shard["ShardId"], record)

    def _records(self, shard: Mapping[str, Any], until: datetime) -> Iterator[dict[str, Any]]:
        """The shard's records after the position that arrived no later than `until`."""
        last = self._buffer.reached.get(shard["ShardId"])
        ending = shard["SequenceNumberRange"].get("EndingSequenceNumber")
        if last is not None and ending is not None and int(last) == int(ending):
            return  # closed, and read to its end: on moto, which gives no null iterator, the end is the last record
        start: dict[str, Any] = (
            {"ShardIteratorType": "TRIM_HORIZON"}
            if last is None
            else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": last}
        )
        iterator = self._kinesis.get_shard_iterator(StreamName=self._stream, ShardId=shard["ShardId"], **start)[
            "ShardIterator"
        ]
        while iterator is not None:
            answer = self._get_records(iterator)
            for record in answer["Records"]:
                if record["ApproximateArrivalTimestamp"] > until:
                    return
                yield record
            # An empty answer is not the end: Kinesis may answer so although more records follow.
            if not answer["MillisBehindLatest"] and not answer["Records"]:
                return
            iterator = answer.get("NextShardIterator")

    def _get_records(self, iterator: str) -> Any:
        while True:
            try:
                return self._kinesis.get_records(ShardIterator=iterator, Limit=RECORDS_A_CALL)
            except ClientError as error:
                if aws.error_code(error) != "ProvisionedThroughputExceededException":
                    raise
                time.sleep(0.25)  # other readers share the shard's five calls a second

    def _take(self, shard: str, record: dict[str, Any]) -> Iterator[DeliveredFile]:
        data = record["Data"] + (b"\n" if self._options.delimiter else b"")
        buffer = self._buffer
        if buffer.parts and buffer.size + len(data) > self._options.buffer_bytes:
            yield self._deliver()
            buffer = self._buffer
        if not buffer.parts:
            buffer.since = self._clock()
        arrival = record["ApproximateArrivalTimestamp"]
        buffer.oldest = arrival if buffer.oldest is None else min(buffer.oldest, arrival)
        buffer.parts.append(data)
        buffer.size += len(data)
        buffer.reached[shard] = record["SequenceNumber"]

    def _deliver(self) -> DeliveredFile:
        buffer, options = self._buffer, self._options
        if buffer.oldest is None:
            raise ValueError("the buffer is empty")
        oldest = buffer.oldest.astimezone(UTC)
        zipped = options.compression == "GZIP"
        body = b"".join(buffer.parts)
        body = gzip.compress(body, compresslevel=3) if zipped else body
        key = (
            f"{self._prefix}{oldest.strftime(options.prefix)}{options.name}-{options.version}-"
            f"{oldest:%Y-%m-%d-%H-%M-%S}-{uuid.uuid4()}{'.gz' if zipped else ''}"
        )
        with aws.translate_aws_errors(f"deliver to s3://{self._bucket}/{key}"):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/octet-stream")
        self._buffer = _Buffer(reached=dict(buffer.reached))
        self._store_position()
        return DeliveredFile(self._bucket, key, len(buffer.parts), len(body))

    def _load_position(self) -> None:
        """Reads the stored position, the last sequence number delivered of each shard; ignores another stream's."""
        summary = self._kinesis.describe_stream_summary(StreamName=self._stream)["StreamDescriptionSummary"]
        self._stream_created = summary["StreamCreationTimestamp"].isoformat()
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=self._position_key)["Body"].read()
        except ClientError as error:
            if aws.error_code(error) != "NoSuchKey":
                raise
            return
        stored = json.loads(body)
        if stored["version"] != 1:
            raise ConfigurationError(
                f"s3://{self._bucket}/{self._position_key}: version {stored['version']} is unknown; "
                "this release reads version 1"
            )
        # A stream that was deleted and created again has new sequence numbers.
        if (stored["stream"], stored["stream_created"]) == (self._stream, self._stream_created):
            self._buffer.reached = stored["last_delivered"]

    def _store_position(self) -> None:
        position = {
            "version": 1,
            "stream": self._stream,
            "stream_created": self._stream_created,
            "last_delivered": self._buffer.reached,
        }
        with aws.translate_aws_errors(f"store the position of {self._options.name}"):
            self._s3.put_object(Bucket=self._bucket, Key=self._position_key, Body=json.dumps(position).encode())
