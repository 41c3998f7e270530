"""How far each shard's position is behind the shard's tip. Costs one small GetRecords call a shard."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from spark_kinesis.client import StreamClient
from spark_kinesis.errors import PositionGoneError
from spark_kinesis.offset import TRIM_HORIZON, Position

# Empty answers with data ahead to follow, as AWS may give them in a sparse shard.
_EMPTY_PAGES = 5


@dataclass(frozen=True)
class ShardLag:
    """One shard's unread records.

    state      `tip`: everything is read · `behind` · `gone`: the position has left the stream
    behind_ms  age of the oldest unread record, by the server's clock; None if `gone`
    closed     whether the shard was split or merged

    Example: records 5 and 6 arrived 9 s and 4 s ago. The position 5 is `behind` by 4000 ms, 6 is at the `tip`.
    """

    shard: str
    position: Position
    state: str
    behind_ms: int | None
    closed: bool


def shard_lags(client: StreamClient, positions: Mapping[str, Position], threads: int = 16) -> list[ShardLag]:
    """Every listed shard, in order; a shard without a position counts from its oldest record.

    Raises StreamAccessError if the stream does not exist or may not be read, TransientSourceError if AWS keeps failing.
    """
    shards = sorted(client.list_shards(), key=lambda shard: shard.shard_id)

    def lag(shard_id: str, closed: bool) -> ShardLag:
        position = positions.get(shard_id, TRIM_HORIZON)
        try:
            state, behind = _behind(client, shard_id, position)
        except PositionGoneError:
            state, behind = "gone", None
        return ShardLag(shard_id, position, state, behind, closed)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda shard: lag(shard.shard_id, shard.ending_sequence is not None), shards))


def _behind(client: StreamClient, shard_id: str, position: Position) -> tuple[str, int]:
    iterator: str | None = client.iterator(shard_id, position)
    behind = 0
    for _ in range(_EMPTY_PAGES):
        if iterator is None:
            return "tip", 0
        page = client.headers(iterator, 1)
        behind = page.millis_behind
        if page.records:
            # The record's age, not MillisBehindLatest: that is 0 if it is the only one.
            return "behind", max(0, int((page.served_at - page.records[0].arrival) * 1000))
        if page.caught_up:
            return "tip", 0
        iterator = page.next_iterator
    return "behind", behind
