"""Positions in a shard; the offset of a batch: a position for each shard; the ranges of records between two offsets.

`planner` makes an offset, Spark writes it before the batch runs and hands it back after a restart. No second store
holds how far a query has read, so nothing can disagree with the checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from functools import total_ordering
from types import MappingProxyType
from typing import Any

from spark_kinesis.errors import SourceConfigurationError

VERSION = 1
_KEYS = {"version", "stream", "initial", "planned_at", "stream_created", "shards", "behind", "bytes", "losses"}
# Only forms that `datetime.fromisoformat` reads correctly: it would read T10.5Z as half a second past ten.
_DATE = r"(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}-?W\d{2}(?:-?\d)?)"
_CLOCK = r"\d{2}(?::\d{2}(?::\d{2}(?:[.,]\d+)?)?|\d{2}(?:\d{2}(?:[.,]\d+)?)?)?"
_ISO = re.compile(rf"(?P<date>{_DATE})(?:[Tt ](?P<clock>{_CLOCK}) ?(?P<zone>[Zz]|[+-]\d{{2}}(?::?\d{{2}})?)?)?")
_SEQUENCE = re.compile(r"(?P<sequence>\d{1,128})(?::(?P<sub>\d{1,9}))?")
_AT_TIMESTAMP = "AT_TIMESTAMP:"


class Kind(IntEnum):
    """The kinds of position, in the order in which a shard passes through them."""

    TRIM_HORIZON = 0
    AT_TIMESTAMP = 1
    AFTER = 2
    SHARD_END = 3


@total_ordering
@dataclass(frozen=True, slots=True)
class Position:
    """A place between two records of one shard. Only positions of the same shard compare.

    - `TRIM_HORIZON`: before the oldest record that the shard still holds
    - `AT_TIMESTAMP`: before the first record that arrived at `moment` (UTC) or later
    - `AFTER`: after the record `sequence`, the last one read
    - `SHARD_END`: after the last record of a closed shard

    Example: if record 5 is the last one read, the position is `after("5")`, its text is `5`, and the next batch
    starts with record 6. `after("5", sub=2)`, text `5:2`, is a position within record 5, a KPL aggregate: its user
    records 0, 1 and 2 were read, 3 is next. `after("5")` means that all of them were read.

    `sequence` stays text: AWS's numbers have 56 digits, an emulator's may have one. They compare as integers.
    """

    kind: Kind
    sequence: str = ""
    moment: datetime | None = None
    sub: int | None = None

    def __str__(self) -> str:
        """The text in an offset's JSON; `parse_position` reads it."""
        if self.kind is Kind.AFTER:
            return self.sequence if self.sub is None else f"{self.sequence}:{self.sub}"
        if self.kind is Kind.AT_TIMESTAMP and self.moment is not None:
            return _AT_TIMESTAMP + self.moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return self.kind.name

    @property
    def is_record(self) -> bool:
        """Whether the position names a record."""
        return self.kind is Kind.AFTER

    @property
    def number(self) -> int:
        """The sequence number as an integer; 0 if the position names no record."""
        return int(self.sequence) if self.sequence else 0

    @property
    def last_whole_record(self) -> int:
        """The sequence number of the last record read whole: an aggregate that was read in part is read again."""
        return self.number - (self.sub is not None)

    def _rank(self) -> tuple[int, int, float]:
        if self.kind is Kind.AFTER:
            return self.kind, self.number, float("inf") if self.sub is None else self.sub
        if self.kind is Kind.AT_TIMESTAMP and self.moment is not None:
            return self.kind, 0, self.moment.timestamp()
        return self.kind, 0, 0.0

    def __lt__(self, other: Position) -> bool:
        return self._rank() < other._rank()


TRIM_HORIZON = Position(Kind.TRIM_HORIZON)
SHARD_END = Position(Kind.SHARD_END)


def after(sequence: str, sub: int | None = None) -> Position:
    """The position after the record `sequence`: the last one read."""
    return Position(Kind.AFTER, sequence=sequence, sub=sub)


def at_timestamp(moment: datetime) -> Position:
    """The position before the first record that arrived at `moment` or later."""
    return Position(Kind.AT_TIMESTAMP, moment=moment.astimezone(UTC))


def parse_position(text: str) -> Position:
    """The inverse of `str(position)`. Raises SourceConfigurationError if the text is no position."""
    if text == "TRIM_HORIZON":
        return TRIM_HORIZON
    if text == "SHARD_END":
        return SHARD_END
    if text.startswith(_AT_TIMESTAMP):
        return at_timestamp(parse_time(text.removeprefix(_AT_TIMESTAMP)))
    found = _SEQUENCE.fullmatch(text)
    if found is None:
        raise SourceConfigurationError(
            f"'{text}' is no position in a shard; allowed: a sequence number, TRIM_HORIZON, "
            "AT_TIMESTAMP:<ISO 8601 time>, SHARD_END"
        )
    sub = found["sub"]
    return after(found["sequence"], None if sub is None else int(sub))


def parse_time(text: str) -> datetime:
    """Parses an ISO 8601 time; the result is in UTC. A date alone means its midnight in UTC.

    `2026-11-23T01:00:00+01:00` and `2026-11-23` both give 2026-11-23 00:00 UTC.

    Raises SourceConfigurationError for a time without an offset from UTC, and for valid ISO 8601 that Python misreads
    or does not read: fractions of hours or minutes, days of the year, 24:00, leap seconds.
    """
    match = _ISO.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        clock, zone = match["clock"], match["zone"]
        time = datetime.fromisoformat(match["date"] + (f"T{clock}" if clock else "") + (zone or "").upper())
        if time.tzinfo is None and not clock:
            time = time.replace(tzinfo=UTC)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise SourceConfigurationError(
            f"'{text}' is not a supported ISO 8601 time; allowed: such as 2026-11-23T00:00:00Z, "
            "2026-11-23T01:00:00.5+01:00 or 2026-11-23 (fractions only of seconds, hours up to 23)"
        ) from error
    raise SourceConfigurationError(f"'{text}' has no offset from UTC; write {text}Z for UTC, or {text}+01:00")


@dataclass(frozen=True)
class Offset:
    """How far each shard has been read: every record up to and including the shard's position, and none after it.

    Example: `Offset("s", {"shardId-0": after("5")})` ends a batch with record 5 of shard 0; the next batch starts
    with record 6. A batch between the offsets with 5 and 9 holds the records 6 to 9.

    stream      the stream's name; an offset never applies to another stream
    initial     set only before the first batch: how the query starts (`TRIM_HORIZON`, `LATEST`,
                `AT_TIMESTAMP:<time>`, or `SHARDS`: from the positions in `shards`)
    shards      position by shard; a shard leaves the offset when AWS no longer lists it
    planned_at  when the batch was planned (UTC). At that moment each position was its shard's tip, …
    behind      … except in these shards: every record that arrived before this time had been read. Nothing arrived
                before this time in a child that waits for its parent. `data_loss` decides by both times whether
                records can have expired unread
    bytes       approximate size of the batch in each shard, if known. Ranges share Spark tasks by it, so a batch
                that is read again has the same tasks
    losses      how often the planner found that records had expired unread (`failOnDataLoss=false`)
    stream_created
                when the stream was created, by Kinesis: it tells the stream from an earlier one of the same name. None
                if unknown, as in offsets of earlier releases
    """

    stream: str
    shards: Mapping[str, Position] = field(default_factory=dict)
    planned_at: datetime | None = None
    behind: Mapping[str, datetime] = field(default_factory=dict)
    initial: str | None = None
    bytes: Mapping[str, int] = field(default_factory=dict)
    losses: int = 0
    stream_created: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", MappingProxyType(dict(self.shards)))
        object.__setattr__(self, "behind", MappingProxyType(dict(self.behind)))
        object.__setattr__(self, "bytes", MappingProxyType(dict(self.bytes)))

    def complete_until(self, shard: str) -> datetime | None:
        """Every record of the shard that arrived before this time had been read; None if unknown."""
        return self.behind.get(shard, self.planned_at)

    @property
    def default_position(self) -> Position:
        """Where reading starts in a shard that the offset does not name."""
        if self.initial is not None and self.initial.startswith("AT_TIMESTAMP"):
            return parse_position(self.initial)
        return TRIM_HORIZON

    def to_json(self) -> dict[str, Any]:
        """The form in Spark's checkpoint. The keys have a fixed order, because Spark compares offsets as text."""
        found: dict[str, Any] = {"version": VERSION, "stream": self.stream}
        if self.initial is not None:
            found["initial"] = self.initial
        if self.planned_at is not None:
            found["planned_at"] = _text(self.planned_at)
        if self.stream_created is not None:
            found["stream_created"] = _text(self.stream_created)
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


def parse_offset(content: Any, stream: str, where: str = "the checkpoint") -> Offset:
    """The offset in `content` (a dict, or JSON text); `stream` is the one that the query reads.

    Raises SourceConfigurationError for an offset of another stream or of a newer version, and for anything else.
    """
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except json.JSONDecodeError as error:
            raise SourceConfigurationError(f"{where}: an offset is not readable as JSON: {error}") from error
    if not isinstance(content, Mapping) or "version" not in content or "stream" not in content:
        raise SourceConfigurationError(
            f"{where} holds no offset of the Kinesis source; expected "
            '{"version": 1, "stream": …, "shards": …}. A checkpoint of another source cannot be taken over'
        )
    version = content["version"]
    if not isinstance(version, int) or version < 1 or version > VERSION:
        raise SourceConfigurationError(
            f"{where}: the offset has version {version!r}, this release reads up to {VERSION}; "
            "run the release that wrote it, or a newer one"
        )
    if content["stream"] != stream:
        raise SourceConfigurationError(
            f"{where}: the offset belongs to stream '{content['stream']}', the query reads '{stream}'; "
            "give each stream a checkpoint of its own"
        )
    unknown = sorted(set(content) - _KEYS)
    if unknown:
        raise SourceConfigurationError(f"{where}: the offset has unknown keys: {', '.join(unknown)}")
    return Offset(
        stream=stream,
        shards={shard: parse_position(text) for shard, text in content.get("shards", {}).items()},
        planned_at=_time(content.get("planned_at")),
        behind={shard: parse_time(text) for shard, text in content.get("behind", {}).items()},
        initial=content.get("initial"),
        bytes=content.get("bytes", {}),
        losses=content.get("losses", 0),
        stream_created=_time(content.get("stream_created")),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else parse_time(text)


@dataclass(frozen=True, slots=True)
class ShardRange:
    """The records of one shard after `start`, up to and including `end`. Every reading returns the same records.

    Example: with `start` 5 and `end` 9 the range holds the records 6, 7, 8 and 9; its text is `(5, 9]`.

    complete_until    every record that arrived before this time is at or before `start`; None if unknown
    ending_sequence   the closed shard's end, if `end` is SHARD_END and the server lists it
    hash_keys         the first and the last hash key whose records go to the shard; None if unknown
    bytes, records    approximate size of the range; None if unknown (a replay)
    """

    shard_id: str
    start: Position
    end: Position
    complete_until: datetime | None = None
    retention_hours: int = 24
    ending_sequence: str | None = None
    bytes: int | None = None
    records: int | None = None
    hash_keys: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"shard {self.shard_id}, range ({self.start}, {self.end}]"


def ranges_between(start: Offset, end: Offset) -> list[ShardRange]:
    """The non-empty ranges from `start` to `end`.

    `end` lacks the shards that have been retired. An end that names no record (an empty shard) closes no range.
    """
    found = []
    for shard_id, position in sorted(end.shards.items()):
        begin = start.shards.get(shard_id, start.default_position)
        if position.kind in (Kind.AFTER, Kind.SHARD_END) and begin < position:
            found.append(ShardRange(shard_id, begin, position))
    return found
