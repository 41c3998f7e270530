"""The stream's shards and who descends from whom: pure decisions about resharding, no AWS call.

`client` lists the shards; `planner` asks here which of them join the offset, which may be read now and which
are done with.

AWS closes a shard when it is split or merged and never reopens it; its records stay until they expire, and
ListShards shows it that long. A record put after the reshard stands in a child. So a key's order is kept when a
shard's parents are read to their end before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from spark_kinesis.offset import SHARD_END, Position


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as ListShards shows it. `ending_sequence` is set once it is closed, and is at least the last
    record's number; it need not be a record's own."""

    shard_id: str
    parents: tuple[str, ...] = ()
    starting_sequence: str = ""
    ending_sequence: str | None = None

    @property
    def is_closed(self) -> bool:
        return self.ending_sequence is not None


class ShardGraph:
    """The shards that AWS lists at one moment."""

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
            shard = self.shards.get(ahead.pop())
            for parent in shard.parents if shard else ():
                if parent not in found:
                    found.add(parent)
                    ahead.append(parent)
        return frozenset(found)

    def joining(self, known: Mapping[str, Position]) -> tuple[str, ...]:
        """The listed shards that are not in the offset yet and belong there.

        A shard that has a descendant in the offset is behind the query: it was over before the query started.
        """
        behind = self.ancestors(known)
        return tuple(sorted(shard for shard in self.shards if shard not in known and shard not in behind))

    def readable(self, known: Mapping[str, Position]) -> tuple[str, ...]:
        """The shards of the offset that may be read now: not at their end, and no parent still to be read.

        A parent that is not in the offset was retired, has expired, or lies before the query's start.
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
