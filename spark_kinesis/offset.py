"""The offset of a batch: a position in each shard, as the JSON that stands in Spark's own checkpoint.

`planner` makes it, Spark writes it before the batch runs and gives it back after a restart. There is no second
place that knows how far a query has read, so nothing can disagree with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from jobs.common.errors import ConfigurationError
from spark_kinesis.position import Position, parse, parse_time

VERSION = 1
_KEYS = {"version", "stream", "initial", "planned_at", "shards", "behind", "bytes", "losses"}


@dataclass(frozen=True)
class Offset:
    """How far each shard has been read: all records up to and including a shard's position, none after it.

    stream      the stream's name; an offset is never used for another stream
    initial     only before the first batch: how the query starts (`TRIM_HORIZON`, `LATEST`,
                `AT_TIMESTAMP:<time>`, `SHARDS`: from the positions in `shards`)
    shards      position by shard; a shard is taken out when AWS no longer lists it
    planned_at  when the batch was planned (UTC). At that moment each position was its shard's tip …
    behind      … but for these shards: everything that arrived before this time had been read. In a child that
                waits for its parent, nothing arrived before it. Both together say which records can have left the
                stream unread (`loss`)
    bytes       about how much this batch reads of a shard, where that is known: what ranges share a task by, so that a
                batch which is read again has the same tasks
    losses      how often planning found that records had left the stream unread (`failOnDataLoss=false`)
    """

    stream: str
    shards: Mapping[str, Position] = field(default_factory=dict)
    planned_at: datetime | None = None
    behind: Mapping[str, datetime] = field(default_factory=dict)
    initial: str | None = None
    bytes: Mapping[str, int] = field(default_factory=dict)
    losses: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", MappingProxyType(dict(self.shards)))
        object.__setattr__(self, "behind", MappingProxyType(dict(self.behind)))
        object.__setattr__(self, "bytes", MappingProxyType(dict(self.bytes)))

    def complete_until(self, shard: str) -> datetime | None:
        """Every record of the shard that arrived before this time had been read; None where unknown."""
        return self.behind.get(shard, self.planned_at)

    def to_json(self) -> dict[str, Any]:
        """As Spark keeps it. Keys are in a fixed order: Spark compares offsets as text."""
        found: dict[str, Any] = {"version": VERSION, "stream": self.stream}
        if self.initial is not None:
            found["initial"] = self.initial
        if self.planned_at is not None:
            found["planned_at"] = _text(self.planned_at)
        if self.shards or self.initial is None:
            found["shards"] = {shard: str(position) for shard, position in sorted(self.shards.items())}
        if self.behind:
            found["behind"] = {shard: _text(moment) for shard, moment in sorted(self.behind.items())}
        if self.bytes:
            found["bytes"] = dict(sorted(self.bytes.items()))
        if self.losses:
            found["losses"] = self.losses
        return found


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_json(content: Any, stream: str, where: str = "the checkpoint") -> Offset:
    """The offset in `content` (a dict, or JSON text). `stream` is the one that the query reads.

    Raises ConfigurationError for another stream's offset, a newer version's, and what is no offset at all.
    """
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{where}: an offset is not readable as JSON: {error}") from error
    if not isinstance(content, Mapping) or "version" not in content or "stream" not in content:
        raise ConfigurationError(
            f"{where} holds no offset of the Kinesis source; expected "
            '{"version": 1, "stream": …, "shards": …}. A checkpoint of another source cannot be taken over'
        )
    version = content["version"]
    if not isinstance(version, int) or version < 1 or version > VERSION:
        raise ConfigurationError(
            f"{where}: the offset has version {version!r}, this release reads up to {VERSION}; "
            "run the release that wrote it, or a newer one"
        )
    if content["stream"] != stream:
        raise ConfigurationError(
            f"{where}: the offset belongs to stream '{content['stream']}', the query reads '{stream}'; "
            "give each stream a checkpoint of its own"
        )
    unknown = sorted(set(content) - _KEYS)
    if unknown:
        raise ConfigurationError(f"{where}: the offset has unknown keys: {', '.join(unknown)}")
    planned_at = content.get("planned_at")
    return Offset(
        stream=stream,
        shards={shard: parse(text) for shard, text in content.get("shards", {}).items()},
        planned_at=None if planned_at is None else parse_time(planned_at),
        behind={shard: parse_time(text) for shard, text in content.get("behind", {}).items()},
        initial=content.get("initial"),
        bytes=content.get("bytes", {}),
        losses=content.get("losses", 0),
    )
