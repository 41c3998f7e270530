"""Where the planner stands in a shard, what a batch may take of it, and what a search found there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from spark_kinesis.offset import Position

# The low bits of AWS's 186-bit sequence numbers hold the shard and the time, the higher ones a counter.
_KEPT_BITS = 80


@dataclass(frozen=True, slots=True)
class Density:
    """What lay between two records, on average, where a shard's records were last counted.

    numbers, seconds, bytes   per record: sequence numbers, time of arrival, payload
    timed                     the server tells how far it is behind, so its AT_TIMESTAMP is worth asking
    uses                      how many batches have been extrapolated from it
    """

    numbers: int
    seconds: float
    bytes: float
    timed: bool
    uses: int = 0

    def used(self) -> Density:
        return replace(self, uses=self.uses + 1)

    def ahead(self, number: int, records: int) -> int:
        """About the sequence number that many `records` behind `number`."""
        target = number + self.numbers * records
        if number < 1 << (2 * _KEPT_BITS):
            return target
        return target >> _KEPT_BITS << _KEPT_BITS | number & (1 << _KEPT_BITS) - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the planner stands in one shard.

    look       how many records the next search asks for first: where little comes, one call then sees all of it
    iterator   reads on right behind `position`; None: to be opened
    verified   the position was seen to be in the stream, by this process
    arrival    when the position's record arrived, in seconds since 1970; 0: unknown
    horizon    a time of the server's clock that has passed for certain
    empty_to   nothing behind `position` arrived before this time, as far as is known (seconds since 1970; 0: unknown).
               Only where to look on, in a long stretch without records: ranges never begin there
    """

    shard_id: str
    position: Position
    look: int = field(default=10, kw_only=True)
    iterator: str | None = None
    verified: bool = False
    arrival: float = 0.0
    density: Density | None = None
    horizon: float = 0.0
    empty_to: float = 0.0


@dataclass(frozen=True, slots=True)
class Cap:
    """What a shard may add to one batch, at least one record; 0 means no cap. `bytes` counts payloads.

    exact   count every batch, at twice the reading; else most batches of a backlog end at about the cap
    """

    records: int = 0
    bytes: int = 0
    seconds: int = 0
    exact: bool = False

    @property
    def is_set(self) -> bool:
        return bool(self.records or self.bytes or self.seconds)


@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a search.

    cursor   where the batch ends; its position is the old one where nothing is new
    at_tip   whether the shard held nothing behind it when it was looked at
    until    every record that arrived before this time (seconds since 1970) stands before the cursor
    first, since   number and arrival of the first record behind the old position; 0 where none was seen
    bytes, records   roughly how much the range holds; records 0 where unknown
    gone     whether the old position had left the stream
    oldest   arrival of the oldest record left, where the position is gone
    """

    cursor: Cursor
    at_tip: bool
    until: float
    bytes: int = 0
    records: int = 0
    gone: bool = False
    oldest: float | None = None
    first: int = 0
    since: float = 0.0
