"""Divides a batch's cap among the shards that have something for it. Called by `planner`; `tips` does the searching.

With an even share for each shard, idle ones would use up the cap: of a hundred shards with one loaded, a batch would
hold a hundredth. So each shard is looked at first, by the one call that an idle shard costs anyway. Those with
something new share the cap evenly, and what some leave of their share goes to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spark_kinesis.cursor import Cap, Cursor, Found
from spark_kinesis.tips import Tips, Turn

# What is left of a cap is handed on only where it is a good part of it: it costs those who take it a call more.
_WORTH_HANDING_ON = 0.25

Each = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


def search_all(tips: Tips, cursors: Sequence[Cursor], cap: Cap, each: Each, *, exhaustive: bool = False) -> list[Found]:
    """Where each shard's part of a batch ends. `each` calls a function with each item, several at a time.

    Exact caps are not exceeded in sum, but that each shard with something new gives at least one record.
    """
    if not (cap.records or cap.bytes):
        return each(lambda cursor: tips.search(cursor, cap, exhaustive=exhaustive), cursors)
    turns: list[Turn] = each(lambda cursor: tips.begin(cursor, cap, exhaustive=exhaustive), cursors)
    whole = _Amount.of(cap)
    loaded = [turn for turn in turns if turn.goes_on]
    share = whole.part(len(loaded))
    counted = [turn for turn in loaded if not turn.predicts]
    each(lambda turn: turn.take(share.within(cap)), counted)
    # Where nothing need be counted a batch is planned in one call, so these come last, and know what is left.
    predicting = [turn for turn in loaded if turn.predicts]
    surplus = whole.without([*(_Amount(*turn.used) for turn in turns), *(share for _ in predicting)])
    if surplus.is_good_part_of(whole):
        unfinished = [turn for turn in counted if turn.goes_on]
        more = surplus.part(len(predicting) + len(unfinished))
        each(lambda turn: turn.take(_Amount(*turn.used).plus(more).within(cap)), unfinished)
        share = share.plus(more)
    each(lambda turn: turn.take(share.within(cap)), predicting)
    return [turn.found() for turn in turns]


@dataclass(frozen=True)
class _Amount:
    """Records and bytes; infinite where a cap does not limit them."""

    records: float
    bytes: float

    @classmethod
    def of(cls, cap: Cap) -> _Amount:
        return cls(cap.records or float("inf"), cap.bytes or float("inf"))

    def part(self, count: int) -> _Amount:
        """One of `count` even parts."""
        return _Amount(self.records / max(1, count), self.bytes / max(1, count))

    def plus(self, other: _Amount) -> _Amount:
        return _Amount(self.records + other.records, self.bytes + other.bytes)

    def without(self, others: Iterable[_Amount]) -> _Amount:
        records, size = self.records, self.bytes
        for other in others:
            records -= 0 if self.records == float("inf") else other.records
            size -= 0 if self.bytes == float("inf") else other.bytes
        return _Amount(records, size)

    def is_good_part_of(self, whole: _Amount) -> bool:
        return all(
            here >= _WORTH_HANDING_ON * there or there == float("inf")
            for here, there in ((self.records, whole.records), (self.bytes, whole.bytes))
        )

    def within(self, cap: Cap) -> Cap:
        """`cap` for one shard: so much, and at least one record."""
        return replace(
            cap,
            records=max(1, int(self.records)) if cap.records else 0,
            bytes=max(1, int(self.bytes)) if cap.bytes else 0,
        )
