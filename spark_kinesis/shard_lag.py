"""Where positions stand behind their shards' tips: asked of Kinesis, one small call a shard, without reading on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from spark_kinesis.client import PositionGoneError, StreamClient
from spark_kinesis.position import TRIM_HORIZON, Position

# Empty answers with data ahead that are followed, as AWS may give them in a sparse shard.
_EMPTY_PAGES = 5


@dataclass(frozen=True)
class Standing:
    """One shard against what has been read of it.

    state      `tip`: nothing is unread · `behind` · `gone`: the position has left the stream
    behind_ms  age of the oldest unread record, as the server's clock says it; None where it is `gone`
    closed     whether the shard was split or merged
    """

    shard: str
    position: Position
    state: str
    behind_ms: int | None
    closed: bool


def standings(client: StreamClient, positions: Mapping[str, Position], threads: int = 16) -> list[Standing]:
    """Every listed shard; one without a position stands at its beginning.

    Raises AwsAccessError where the stream does not exist or may not be read, TransientError where AWS keeps failing.
    """
    shards = sorted(client.list_shards(), key=lambda shard: shard.shard_id)

    def stand(shard_id: str, closed: bool) -> Standing:
        position = positions.get(shard_id, TRIM_HORIZON)
        try:
            state, behind = _behind(client, shard_id, position)
        except PositionGoneError:
            state, behind = "gone", None
        return Standing(shard_id, position, state, behind, closed)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda shard: stand(shard.shard_id, shard.ending_sequence is not None), shards))


def _behind(client: StreamClient, shard_id: str, position: Position) -> tuple[str, int]:
    iterator: str | None = client.iterator(shard_id, position)
    behind = 0
    for _ in range(_EMPTY_PAGES):
        if iterator is None:
            return "tip", 0
        page = client.heads(iterator, 1)
        behind = page.millis_behind
        if page.records:
            # Behind by the age of this record: MillisBehindLatest is 0 where it is the only one.
            return "behind", max(0, int((page.served_at - page.records[0].arrival) * 1000))
        if page.caught_up:
            return "tip", 0
        iterator = page.next_iterator
    return "behind", behind
