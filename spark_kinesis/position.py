"""A position in one shard: where reading starts, or where a batch ends.

Positions come from the options and from `planner`; they go into `offset`, where they are text, and to `reader`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import total_ordering

from jobs.common.errors import ConfigurationError
from jobs.common.times import iso_time

_SEQUENCE = re.compile(r"(?P<sequence>\d{1,128})(?::(?P<sub>\d{1,9}))?")
_AT_TIMESTAMP = "AT_TIMESTAMP:"


class Kind(IntEnum):
    """What a position refers to, in the order in which a shard passes through them."""

    TRIM_HORIZON = 0
    AT_TIMESTAMP = 1
    AFTER = 2
    SHARD_END = 3


@total_ordering
@dataclass(frozen=True, slots=True)
class Position:
    """A place between two records of one shard; only positions of the same shard can be compared.

    - `TRIM_HORIZON`: before the oldest record that the shard still holds
    - `AT_TIMESTAMP`: before the first record that arrived at `moment` (UTC) or later
    - `AFTER`: `sequence` is the last sequence number read; reading resume AFTER it. With `sub`, only the user
      records up to number `sub` (from 0) of that KPL aggregate were read; an AFTER without `sub` has read it whole
    - `SHARD_END`: behind the last record of a closed shard

    `sequence` stays text: AWS's numbers have 56 digits, an emulator's may have one; they compare as integers.
    """

    kind: Kind
    sequence: str = ""
    moment: datetime | None = None
    sub: int | None = None

    def __str__(self) -> str:
        """As it stands in an offset's JSON; `parse` reads it back."""
        if self.kind is Kind.AFTER:
            return self.sequence if self.sub is None else f"{self.sequence}:{self.sub}"
        if self.kind is Kind.AT_TIMESTAMP and self.moment is not None:
            return _AT_TIMESTAMP + self.moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return self.kind.name

    @property
    def is_record(self) -> bool:
        """Whether the position names a record of the shard."""
        return self.kind is Kind.AFTER

    @property
    def number(self) -> int:
        """The sequence number as an integer; 0 for a position that names no record."""
        return int(self.sequence) if self.sequence else 0

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
    """The position behind the record `sequence`: it is the last one read."""
    return Position(Kind.AFTER, sequence=sequence, sub=sub)


def at_timestamp(moment: datetime) -> Position:
    """The position before the first record that arrived at `moment` or later."""
    return Position(Kind.AT_TIMESTAMP, moment=moment.astimezone(UTC))


def parse(text: str) -> Position:
    """The position that `str(position)` wrote. Raises ConfigurationError where the text is none."""
    if text == "TRIM_HORIZON":
        return TRIM_HORIZON
    if text == "SHARD_END":
        return SHARD_END
    if text.startswith(_AT_TIMESTAMP):
        return at_timestamp(parse_time(text.removeprefix(_AT_TIMESTAMP)))
    found = _SEQUENCE.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            f"'{text}' is no position in a shard; allowed: a sequence number, TRIM_HORIZON, "
            "AT_TIMESTAMP:<ISO 8601 time>, SHARD_END"
        )
    sub = found["sub"]
    return after(found["sequence"], None if sub is None else int(sub))


def parse_time(text: str) -> datetime:
    """An ISO 8601 time with its offset, in UTC; see `times.iso_time`. Raises ConfigurationError where it is none."""
    try:
        return iso_time(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
