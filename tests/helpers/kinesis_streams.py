"""Kinesis streams on an emulator, for the producer's tests."""

from __future__ import annotations

import uuid
from typing import Any

import boto3

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


class EmulatorStream:
    """A new stream on an emulator. Creates it, and reads its records."""

    def __init__(self, endpoint: str, shards: int) -> None:
        self.name = f"stream-{uuid.uuid4().hex[:12]}"
        self.endpoint = endpoint
        self.client: Any = boto3.client("kinesis", endpoint_url=endpoint, **CREDENTIALS)
        self.client.create_stream(StreamName=self.name, ShardCount=shards)
        self.client.get_waiter("stream_exists").wait(StreamName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    def records(self) -> list[dict[str, Any]]:
        """All records, shard by shard, each shard's in their order."""
        found = []
        for shard in self.client.list_shards(StreamName=self.name)["Shards"]:
            iterator = self.client.get_shard_iterator(
                StreamName=self.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while True:
                answer = self.client.get_records(ShardIterator=iterator, Limit=10000)
                found += answer["Records"]
                iterator = answer["NextShardIterator"]
                if not answer["Records"] and not answer["MillisBehindLatest"]:
                    break
        return found
