"""What the planner knows of time: up to when each shard has been read, and whether records can have expired unread.

`planner` asks here before it moves a shard on, and says here what it saw. What decides stands in the offset; what this
remembers is newer than the offset, and only saves alarms and calls. `loss` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from spark_kinesis import data_loss as loss
from spark_kinesis.cursor import Cursor, Found
from spark_kinesis.offset import SHARD_END, Offset, Position
from spark_kinesis.options import KinesisOptions
from spark_kinesis.shard_discovery import Discovery
from spark_kinesis.shards import ShardGraph


@dataclass
class Progress:
    """The offset under construction. `arrivals`: when a record arrived that was seen in the shard meanwhile."""

    shards: dict[str, Position]
    behind: dict[str, datetime]
    losses: int
    arrivals: dict[str, datetime] = field(default_factory=dict)

    def saw(self, shard_id: str, found: Found) -> None:
        arrival = max(found.oldest or 0.0, found.cursor.arrival)
        if arrival:
            self.arrivals[shard_id] = datetime.fromtimestamp(arrival, UTC)


class Reckoning:
    """One planner's. `cursors`: where its searches stand. `peek` looks at what comes first behind some cursors.

    Not thread-safe.
    """

    def __init__(
        self,
        options: KinesisOptions,
        discovery: Discovery,
        now: Callable[[], datetime],
        peek: Callable[[list[Cursor]], list[Found]],
    ) -> None:
        self._options = options
        self._discovery = discovery
        self._now = now
        self._peek = peek
        self.cursors: dict[str, Cursor] = {}
        self._caught_up_at: dict[str, datetime] = {}
        self._peeked: set[str] = set()

    def remember(self, found: Found) -> None:
        """What a search found becomes where the next one begins."""
        self.cursors[found.cursor.shard_id] = found.cursor
        if found.at_tip:
            self._caught_up_at[found.cursor.shard_id] = datetime.fromtimestamp(found.until, UTC)

    def forget(self, shards: Mapping[str, Position]) -> None:
        """Drops what is remembered of shards that are done, so that memory does not grow with the resharding."""
        for shard_id in set(self.cursors) - {each for each, at in shards.items() if at != SHARD_END}:
            self.cursors.pop(shard_id, None)
            self._caught_up_at.pop(shard_id, None)

    def wants_proof(self, start: Offset, progress: Progress, now: datetime) -> bool:
        """Whether a batch without records is due, to keep the checkpoint able to tell an idle stream from a lossy one.

        So it is once more is known of a shard that was behind for long.
        """
        known_until = [(start.planned_at, now)] if start.planned_at is not None else []
        known_until += [(was, progress.behind.get(shard_id, now)) for shard_id, was in start.behind.items()]
        return any(until - was > self.proof_holds() for was, until in known_until)

    def complete_until(self, shard_id: str, position: Position, start: Offset) -> datetime | None:
        """Everything that arrived before this time had been read at `position`: from the offset, or seen since."""
        joins = shard_id not in start.shards
        known = self._discovery.before_joining(start) if joins else start.complete_until(shard_id)
        if known is not None:
            known = loss.later(known, position.moment)
        cursor = self.cursors.get(shard_id)
        if cursor is not None and cursor.position == position:
            return loss.later(known, self._caught_up_at.get(shard_id))
        return known

    def start_is_lost(self, shard_id: str, position: Position, start: Offset, *, is_there: bool) -> bool:
        complete_until = self.complete_until(shard_id, position, start)
        return loss.start_is_lost(position, is_there, complete_until, self._discovery.retention_hours(), self._now())

    def proof_holds(self) -> timedelta:
        """How old what is known of a shard may get before it is looked at, or written down, again."""
        return timedelta(hours=self._discovery.retention_hours()) / 4

    def lose(self, progress: Progress, shard_id: str, position: Position, start: Offset, oldest: float | None) -> None:
        loss.report_loss(
            self._options.stream,
            shard_id,
            position,
            fail=self._options.fail_on_data_loss,
            complete_until=self.complete_until(shard_id, position, start),
            oldest=oldest,
            retention_hours=self._discovery.retention_hours(),
        )
        progress.losses += 1

    def check_starts(
        self, progress: Progress, shard_ids: list[str], known: Mapping[str, Position], start: Offset
    ) -> None:
        """Looks at the positions that are old enough for a loss, of shards whose end needs no search."""
        suspects = [each for each in shard_ids if self.start_is_lost(each, known[each], start, is_there=False)]
        cursors = [Cursor(shard_id, known[shard_id]) for shard_id in suspects]
        for found in self._peek(cursors):
            shard_id = found.cursor.shard_id
            progress.saw(shard_id, found)
            if self.start_is_lost(shard_id, known[shard_id], start, is_there=not found.gone):
                self.lose(progress, shard_id, known[shard_id], start, found.oldest)

    def rest(
        self, progress: Progress, shard_ids: list[str], start: Offset, graph: ShardGraph, ending: Offset | None
    ) -> None:
        """Says of shards that this batch did not search up to when they have been read.

        A child that waits for its parent has not been read at all: but nothing arrived in it before its parent's
        records. So that a long wait is not taken for a loss, its first record is looked at when the time known gets
        old: nothing arrived before that one either.
        """
        until: dict[str, datetime | None] = {}
        for shard_id in shard_ids:
            position = progress.shards[shard_id]
            at = self.complete_until(shard_id, position, start)
            if at is not None and not position.is_record:
                at = loss.later(at, loss.opened_after(shard_id, graph, start, progress.arrivals))
            if ending is not None and position == ending.shards.get(shard_id):
                at = loss.later(at, ending.complete_until(shard_id))
            until[shard_id] = at
        self._peeked.intersection_update(shard_ids)
        now, retention = self._now(), self._discovery.retention_hours()

        def gets_old(shard_id: str, at: datetime) -> bool:
            return (
                shard_id not in self._peeked
                and now - at > self.proof_holds()
                and not loss.may_have_lost(at, retention, now)
            )

        to_peek = [shard_id for shard_id, at in until.items() if at is None or gets_old(shard_id, at)]
        for found in self._peek([Cursor(each, progress.shards[each]) for each in to_peek]):
            shard_id, position = found.cursor.shard_id, progress.shards[found.cursor.shard_id]
            at = until[shard_id]
            if at is None and found.gone:
                self.lose(progress, shard_id, position, start, found.oldest)
            # Too late: what was seen first need not have been the first.
            if at is None or not loss.may_have_lost(at, retention, self._now()):
                until[shard_id] = loss.later(at, datetime.fromtimestamp(found.until, UTC))
                if found.first:
                    self._peeked.add(shard_id)
        progress.behind.update({shard_id: at for shard_id, at in until.items() if at is not None})
