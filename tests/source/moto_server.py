"""moto's server, one request at a time (its threaded server loses records under concurrent PutRecords), with its
two faults of resharding put right: it moves a parent's records into the children, and puts into closed shards."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from hashlib import md5
from typing import Any

from moto.kinesis.models import Shard, Stream
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

_split, _merge = Stream.split_shard, Stream.merge_shards


def _keeping(records_of: list[Shard], reshard: Any) -> None:
    kept = [shard.records for shard in records_of]
    for shard in records_of:
        shard.records = OrderedDict()
    reshard()
    for shard, records in zip(records_of, kept, strict=True):
        shard.records = records


def split_shard(self: Stream, shard_to_split: str, new_starting_hash_key: str) -> None:
    _keeping([self.shards[shard_to_split]], lambda: _split(self, shard_to_split, new_starting_hash_key))


def merge_shards(self: Stream, shard_to_merge: str, adjacent_shard_to_merge: str) -> None:
    parents = [self.shards[shard_to_merge], self.shards[adjacent_shard_to_merge]]
    _keeping(parents, lambda: _merge(self, shard_to_merge, adjacent_shard_to_merge))


def get_shard_for_key(self: Stream, partition_key: str, explicit_hash_key: str) -> Shard | None:
    place = int(explicit_hash_key) if explicit_hash_key else int(md5(partition_key.encode()).hexdigest(), 16)  # noqa: S324
    for shard in self.shards.values():
        if shard.is_open and shard.starting_hash <= place <= shard.ending_hash:
            return shard
    return None


if __name__ == "__main__":
    Stream.split_shard = split_shard
    Stream.merge_shards = merge_shards
    Stream.get_shard_for_key = get_shard_for_key
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
