"""The stream as the producer sees it: does it exist, how large may a record be, which shards does it have."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.common import aws
from jobs.common.errors import AwsAccessError
from producer.put_records import DEFAULT_MAX_RECORD_BYTES, missing_stream

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient


def max_record_bytes(client: KinesisClient, stream: str) -> int:
    """The stream's size limit in bytes for one record: data and partition key together.

    Raises AwsAccessError with the remedy if the stream does not exist. A role that may put records but may not
    describe the stream gets AWS's default of 1 MiB.
    """
    try:
        with aws.translate_aws_errors(f"describe stream '{stream}'"):
            try:
                summary = client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
            except ClientError as error:
                code = aws.error_code(error)
                if code == "ResourceNotFoundException":
                    raise missing_stream(stream) from error
                if code == "AccessDeniedException":
                    return DEFAULT_MAX_RECORD_BYTES
                raise
    except KeyError as error:
        raise AwsAccessError(f"describe stream '{stream}': the endpoint's answer is not Kinesis's") from error
    return int(summary.get("MaxRecordSizeInKiB", DEFAULT_MAX_RECORD_BYTES // 1024)) * 1024


@dataclass(frozen=True)
class ShardMap:
    """The open shards, ordered by the start of their hash key range."""

    starts: tuple[int, ...]
    names: tuple[str, ...]

    def shard_of(self, partition_key: str) -> str:
        """The shard of a partition key: Kinesis compares the key's MD5, a 128-bit number, with the hash key ranges.

        Source: https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html#partition-key
        """
        digest = hashlib.md5(partition_key.encode(), usedforsecurity=False).digest()
        return self.names[max(0, bisect_right(self.starts, int.from_bytes(digest, "big")) - 1)]


def shard_map(client: KinesisClient, stream: str) -> ShardMap:
    """The stream's open shards. Call it again after a reshard. Raises AwsAccessError or TransientError."""
    found: list[tuple[int, str]] = []
    arguments: dict[str, Any] = {"StreamName": stream}
    with aws.translate_aws_errors(f"list the shards of stream '{stream}'"):
        while True:
            page = client.list_shards(**arguments)
            for shard in page["Shards"]:
                if "EndingSequenceNumber" not in shard["SequenceNumberRange"]:
                    found.append((int(shard["HashKeyRange"]["StartingHashKey"]), shard["ShardId"]))
            if not page.get("NextToken"):
                break
            arguments = {"NextToken": page["NextToken"]}
    found.sort()
    return ShardMap(tuple(start for start, _ in found), tuple(name for _, name in found))
