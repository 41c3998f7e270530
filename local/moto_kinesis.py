"""Changes moto's Kinesis so that a split or a merge behaves as on AWS.

Unpatched, moto moves a parent's records into its children and still puts records into closed shards. On AWS a closed
shard keeps its records until they expire, and new records go to the open shard with the key's hash.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import md5

from moto.kinesis.models import Shard, Stream

_split, _merge = Stream.split_shard, Stream.merge_shards


def apply() -> None:
    """Patches moto's classes in this process."""
    Stream.split_shard = _split_shard
    Stream.merge_shards = _merge_shards
    Stream.get_shard_for_key = _get_shard_for_key


def _keeping(parents: list[Shard], reshard: Callable[[], None]) -> None:
    kept = [shard.records for shard in parents]
    for shard in parents:
        shard.records = OrderedDict()
    reshard()
    for shard, records in zip(parents, kept, strict=True):
        shard.records = records


def _split_shard(self: Stream, shard_to_split: str, new_starting_hash_key: str) -> None:
    _keeping([self.shards[shard_to_split]], lambda: _split(self, shard_to_split, new_starting_hash_key))


def _merge_shards(self: Stream, shard_to_merge: str, adjacent_shard_to_merge: str) -> None:
    parents = [self.shards[shard_to_merge], self.shards[adjacent_shard_to_merge]]
    _keeping(parents, lambda: _merge(self, shard_to_merge, adjacent_shard_to_merge))


def _get_shard_for_key(self: Stream, partition_key: str, explicit_hash_key: str) -> Shard | None:
    # Kinesis maps a key to a shard by its MD5.
    hash_key = int(explicit_hash_key) if explicit_hash_key else int(md5(partition_key.encode()).hexdigest(), 16)  # noqa: S324
    return next(
        (
            shard
            for shard in self.shards.values()
            if shard.is_open and shard.starting_hash <= hash_key <= shard.ending_hash
        ),
        None,
    )
