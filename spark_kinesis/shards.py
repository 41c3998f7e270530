"""The stream's shards: which there are, how they descend from each other, and which of them may be read now.

AWS closes a shard when it is split or merged, and never reopens it. The closed shard is listed, and keeps its records,
until these expire. A record that is put after the reshard goes to a child. So reading a shard's parents to their end
before the shard keeps the order of each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property

from spark_kinesis.client import Shard, StreamClient, StreamSummary
from spark_kinesis.offset import SHARD_END, Offset, Position

# A shard list younger than this is never fetched again.
_LIST_AT_MOST_EVERY = 1.0
# The difference between AWS's clock and this host's that is tolerated: a stream that is younger than its checkpoint
# by less is the same stream.
_CLOCK_SKEW = timedelta(seconds=60)


class ShardGraph:
    """The shards that AWS lists at one moment. Decides without calling AWS."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self.shards: Mapping[str, Shard] = {shard.shard_id: shard for shard in shards}

    @cached_property
    def children(self) -> Mapping[str, tuple[str, ...]]:
        """The listed children of each shard that has any."""
        found: dict[str, list[str]] = {}
        for shard in self.shards.values():
            for parent in shard.parents:
                found.setdefault(parent, []).append(shard.shard_id)
        return {parent: tuple(sorted(children)) for parent, children in found.items()}

    def is_closed(self, shard_id: str) -> bool:
        """Whether the shard takes no more records: AWS gives its end, or lists a child of it."""
        shard = self.shards.get(shard_id)
        return shard is None or shard.is_closed or shard_id in self.children

    def ending_sequence(self, shard_id: str) -> str | None:
        shard = self.shards.get(shard_id)
        return None if shard is None else shard.ending_sequence

    def ancestors(self, shard_ids: Iterable[str]) -> frozenset[str]:
        """All shards, listed or not, that any of `shard_ids` descends from."""
        found: set[str] = set()
        ahead = list(shard_ids)
        while ahead:
            for parent in self._parents(ahead.pop()):
                if parent not in found:
                    found.add(parent)
                    ahead.append(parent)
        return frozenset(found)

    def joining(self, known: Mapping[str, Position]) -> tuple[str, ...]:
        """The listed shards that the offset `known` lacks and needs.

        It does not need the ancestors of its own shards: they were over before the query started.
        """
        before_start = self.ancestors(known)
        return tuple(sorted(shard for shard in self.shards if shard not in known and shard not in before_start))

    def readable(self, known: Mapping[str, Position]) -> tuple[str, ...]:
        """The shards of the offset that may be read now: they are not at their end, and each parent is.

        A parent that is not in the offset was retired, has expired, or was over before the query started.

        Example: of {parent: 5, child: TRIM_HORIZON} only the parent is readable, of {parent: SHARD_END,
        child: TRIM_HORIZON} only the child.
        """
        return tuple(
            sorted(
                shard_id
                for shard_id, position in known.items()
                if position != SHARD_END
                and all(known.get(parent, SHARD_END) == SHARD_END for parent in self._parents(shard_id))
            )
        )

    def _parents(self, shard_id: str) -> tuple[str, ...]:
        shard = self.shards.get(shard_id)
        return () if shard is None else shard.parents

    def retired(self, known: Mapping[str, Position]) -> tuple[str, ...]:
        """The shards of the offset that were read to their end and that AWS no longer lists."""
        return tuple(sorted(shard for shard, at in known.items() if at == SHARD_END and shard not in self.shards))

    def vanished(self, known: Mapping[str, Position]) -> tuple[str, ...]:
        """The shards of the offset that AWS no longer lists although they were not read to their end."""
        return tuple(sorted(shard for shard, at in known.items() if at != SHARD_END and shard not in self.shards))


class ShardDiscovery:
    """Lists the shards every `every_seconds`, and as soon as one was read to its end, to find its children.

    `clock` gives seconds since 1970. Not thread-safe. It is a cache: the planner decides by the offsets.
    """

    def __init__(self, client: StreamClient, every_seconds: float, clock: Callable[[], float]) -> None:
        self._client = client
        self._every = every_seconds
        self._clock = clock
        self._graph: ShardGraph | None = None
        self._summary: StreamSummary | None = None
        self._listed_at = float("-inf")

    def graph(self, start: Offset) -> ShardGraph:
        """The shards, listed again if that is due or if `start` has read a shard to its end."""
        age = self._clock() - self._listed_at
        graph = self._graph
        if graph is None or age >= self._every or (age >= _LIST_AT_MOST_EVERY and _has_new_end(start, graph)):
            return self.list_now()
        return graph

    def last_listed(self) -> ShardGraph:
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

        The shard did not exist when the shards were last listed before `offset` was planned. And nothing arrived before
        the stream was created.
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
    """Whether the offset has read a shard to its end and knows none of its children."""
    return any(
        position == SHARD_END and not any(child in start.shards for child in graph.children.get(shard_id, ()))
        for shard_id, position in start.shards.items()
    )
