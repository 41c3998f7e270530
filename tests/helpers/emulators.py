"""A stream on an emulator, with the few calls that tests make on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import md5
from typing import Any


@dataclass(frozen=True)
class Emulator:
    name: str
    endpoint: str


class Stream:
    def __init__(self, client: Any, name: str, emulator: Emulator) -> None:
        self.client = client
        self.name = name
        self.emulator = emulator

    def create(self, shards: int) -> None:
        self.client.create_stream(StreamName=self.name, ShardCount=shards)
        self.wait_until_active()

    def delete(self) -> None:
        self.client.delete_stream(StreamName=self.name)

    def wait_until_active(self) -> None:
        """Waits until the stream is active again."""
        for _ in range(200):
            found = self.client.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
            if found["StreamStatus"] == "ACTIVE":
                return
            time.sleep(0.02)
        raise AssertionError(f"{self.name} does not become active")

    def put(self, values: list[str], key: str | None = None) -> list[dict[str, Any]]:
        """Puts each value, under `key` or under itself; the answers in the same order."""
        answers: list[dict[str, Any]] = []
        for begin in range(0, len(values), 500):
            batch = [{"Data": value.encode(), "PartitionKey": key or value} for value in values[begin : begin + 500]]
            answer = self.client.put_records(StreamName=self.name, Records=batch)
            assert answer["FailedRecordCount"] == 0
            answers += answer["Records"]
        return answers

    def open_shards(self) -> list[dict[str, Any]]:
        shards = self.client.list_shards(StreamName=self.name)["Shards"]
        return [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]

    def key_in(self, shard_id: str) -> str:
        """A partition key whose records go to this open shard."""
        shard = next(each for each in self.open_shards() if each["ShardId"] == shard_id)
        low, high = (int(shard["HashKeyRange"][key]) for key in ("StartingHashKey", "EndingHashKey"))
        keys = (f"key-{number}" for number in range(10_000))
        return next(
            key for key in keys if low <= int.from_bytes(md5(key.encode(), usedforsecurity=False).digest()) <= high
        )

    def split(self, shard_id: str) -> None:
        shard = next(each for each in self.open_shards() if each["ShardId"] == shard_id)
        low, high = (int(shard["HashKeyRange"][key]) for key in ("StartingHashKey", "EndingHashKey"))
        self.client.split_shard(StreamName=self.name, ShardToSplit=shard_id, NewStartingHashKey=str((low + high) // 2))
        self.wait_until_active()

    def merge(self, left: str, right: str) -> None:
        self.client.merge_shards(StreamName=self.name, ShardToMerge=left, AdjacentShardToMerge=right)
        self.wait_until_active()
