"""The stream's shards: which there are, how they descend from each other, and which of them may be read now.

AWS closes a shard when it is split or merged, and never reopens it. The closed shard is listed, and keeps its records,
until these expire. A record that is put after the reshard goes to a child. So reading a shard's parents to their end
before the shard keeps the order of each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property

from spark_kinesis.client import Shard, StreamClient, StreamSummary
from spark_kinesis.offset import SHARD_END, Offset, Position

# A shard list younger than this is never fetched again.
_LIST_AT_MOST_EVERY = 1.0
# A list of shards may lag behind the shards' own answers: it is fetched again after each of these pauses.
_LIST_AGAIN_AFTER = (0.0, 1.0, 3.0, 6.0)
# Offsets hold times in milliseconds.
_OFFSET_PRECISION = timedelta(milliseconds=1)
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

    def starting_after(self, known: Mapping[str, Position]) -> tuple[str, ...]:
        """The shards of the offset that start after its position: it is one of another shard of the same id."""
        return tuple(
            sorted(each.shard_id for each in self._listed(known) if 0 < known[each.shard_id].number < each.first_number)
        )

    def reopened(self, known: Mapping[str, Position]) -> tuple[str, ...]:
        """The shards of the offset that were read to their end and are listed as open."""
        return tuple(
            sorted(
                each.shard_id
                for each in self._listed(known)
                if known[each.shard_id] == SHARD_END and not self.is_closed(each.shard_id)
            )
        )

    def _listed(self, known: Mapping[str, Position]) -> list[Shard]:
        return [shard for shard_id, shard in self.shards.items() if shard_id in known]


class ShardDiscovery:
    """Lists the shards every `every_seconds`, and as soon as one was read to its end, to find its children.

    `clock` gives seconds since 1970. Not thread-safe. It is a cache: the planner decides by the offsets.
    """

    def __init__(
        self,
        client: StreamClient,
        every_seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client = client
        self._every = every_seconds
        self._clock = clock
        self._sleep = sleep
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

    def created_at(self) -> datetime | None:
        return self._described().created_at

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

    def created_again(self, offset: Offset) -> str | None:
        """What shows that `offset` was read from an earlier stream of the same name; None if nothing does.

        Kinesis's own creation times tell it, and the shards: no shard opens again after its end, and none holds a
        record from before its start. Only an offset of an earlier release is compared with this host's clock.
        """
        if offset.planned_at is None:
            return None
        created_at = self._described().created_at
        if created_at is not None:
            known = offset.stream_created
            if known is not None and abs(created_at - known) >= _OFFSET_PRECISION:
                return f"it was created at {_text(created_at)}, and the one that was read at {_text(known)}"
            if known is None and created_at > offset.planned_at + _CLOCK_SKEW:
                return f"it was created at {_text(created_at)}"
        graph = self.last_listed()
        for shard_id in graph.starting_after(offset.shards):
            return f"shard {shard_id} was read up to {offset.shards[shard_id]}, and now starts after that"
        for pause in _LIST_AGAIN_AFTER:
            if not graph.reopened(offset.shards):
                return None
            self._sleep(pause)
            graph = self.list_now()
        for shard_id in graph.reopened(offset.shards):
            return f"shard {shard_id} was read to its end, and is open"
        return None

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


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
