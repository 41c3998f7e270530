"""What the producer asks about the stream before and while it sends: is it there, its record limit, its shards."""

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
    """The stream's limit of one record, data and partition key together; its existence is checked on the way.

    Raises AwsAccessError, with the remedy, where the stream is not there. A role that may put but not describe is
    no fault: it gets AWS's default of 1 MiB.
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
    """The open shards and where each one's range of hash keys starts, ascending."""

    starts: tuple[int, ...]
    names: tuple[str, ...]

    def shard_of(self, partition_key: str) -> str:
        """The shard that takes the key: Kinesis maps a key to a range by its MD5, read as a 128-bit number.

        Source: https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html#partition-key
        """
        digest = hashlib.md5(partition_key.encode(), usedforsecurity=False).digest()
        return self.names[max(0, bisect_right(self.starts, int.from_bytes(digest, "big")) - 1)]


def shard_map(client: KinesisClient, stream: str) -> ShardMap:
    """The stream's open shards now; call again after a reshard. Raises AwsAccessError or TransientError."""
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
