"""What the planner knows of the stream as a whole: its shards, its retention, when it was created.

The list is fetched every `discoverySeconds`, and as soon as a shard was read to its end, so that its children
are found. It is a cache: `planner` decides by the offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from spark_kinesis.client import StreamClient, StreamSummary
from spark_kinesis.offset import SHARD_END, Offset
from spark_kinesis.shards import ShardGraph

# A shard list younger than this is not fetched again, whatever happened.
_LIST_AT_MOST_EVERY = 1.0
# AWS's clock and ours may differ by so much before a stream looks younger than its checkpoint.
_CLOCK_SKEW = timedelta(seconds=60)


class Discovery:
    """Not thread-safe. `clock` gives seconds since 1970."""

    def __init__(self, client: StreamClient, every_seconds: float, clock: Callable[[], float]) -> None:
        self._client = client
        self._every = every_seconds
        self._clock = clock
        self._graph: ShardGraph | None = None
        self._summary: StreamSummary | None = None
        self._listed_at = float("-inf")

    def graph(self, start: Offset) -> ShardGraph:
        """The shards, fetched anew where that is due or where `start` has read a shard to its end."""
        age = self._clock() - self._listed_at
        graph = self._graph
        if graph is None or age >= self._every or (age >= _LIST_AT_MOST_EVERY and _has_new_end(start, graph)):
            return self.list_now()
        return graph

    def known(self) -> ShardGraph:
        """The shards as last listed."""
        return self._graph or self.list_now()

    def list_now(self) -> ShardGraph:
        self._graph = ShardGraph(self._client.list_shards())
        self._summary = self._client.summary()
        self._listed_at = self._clock()
        return self._graph

    def retention_hours(self) -> int:
        return self._described().retention_hours

    def before_joining(self, offset: Offset) -> datetime | None:
        """A time before which nothing had arrived in a shard that joins after `offset`; None for a new query.

        The shard was not there when the shards were listed last before the offset was planned, nor was anything in
        it before the stream itself.
        """
        if offset.planned_at is None:
            return None
        listed_at = offset.planned_at - max(_CLOCK_SKEW, timedelta(seconds=self._every))
        created_at = self._described().created_at
        return listed_at if created_at is None else max(listed_at, created_at - _CLOCK_SKEW)

    def recreated_since(self, offset: Offset) -> bool:
        """Whether the stream was created after the offset was planned: then it is another one of the same name."""
        created_at = self._described().created_at
        if created_at is None or offset.planned_at is None:
            return False
        return created_at > offset.planned_at + _CLOCK_SKEW

    def _described(self) -> StreamSummary:
        if self._summary is None:
            self._summary = self._client.summary()
        return self._summary


def _has_new_end(start: Offset, graph: ShardGraph) -> bool:
    """Whether a shard was read to its end whose children the offset does not know."""
    return any(
        position == SHARD_END and not any(child in start.shards for child in graph.children.get(shard_id, ()))
        for shard_id, position in start.shards.items()
    )
