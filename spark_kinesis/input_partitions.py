"""The ranges of a batch, and how they share Spark tasks. `planner` makes them, `reader` reads them in the workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from spark_kinesis.offset import Kind, Offset, Position


@dataclass(frozen=True, slots=True)
class ShardRange:
    """The records of one shard after `start`, up to and including `end`. Every reading returns the same records.

    Example: with `start` 5 and `end` 9 the range holds the records 6, 7, 8 and 9; its text is `(5, 9]`.

    complete_until    every record that arrived before this time is at or before `start`; None if unknown
    ending_sequence   the closed shard's end, if `end` is SHARD_END and AWS lists it
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


def into_tasks(ranges: Iterable[ShardRange], bytes_per_task: int) -> list[tuple[ShardRange, ...]]:
    """Groups whole ranges into Spark tasks of at most `bytes_per_task`.

    A larger range, and one of unknown size, has a task of its own; with `bytes_per_task` 0 every range has.
    """
    tasks: list[tuple[ShardRange, ...]] = []
    open_task: list[ShardRange] = []
    size = 0
    for part in ranges:
        if part.bytes is None or part.bytes >= bytes_per_task:
            tasks.append((part,))
            continue
        if open_task and size + part.bytes > bytes_per_task:
            tasks.append(tuple(open_task))
            open_task, size = [], 0
        open_task.append(part)
        size += part.bytes
    if open_task:
        tasks.append(tuple(open_task))
    return tasks
