"""Decides whether records may have left the stream unread. The planner and the readers both ask here.

Kinesis does not report expired records: an iterator at an expired position silently starts at the oldest record left.
So a position's own record is looked up first. If it is gone, or the position names no record, the time decides up to
which the shard is known to have been read. An idle shard whose last record has expired lost nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from spark_kinesis.errors import DataLossError
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, Offset, Position
from spark_kinesis.options import KinesisOptions
from spark_kinesis.shard_search import Cursor, SearchResult
from spark_kinesis.shards import ShardDiscovery, ShardGraph

_log = logging.getLogger(__name__)


def may_have_expired(complete_until: datetime | None, retention_hours: int, now: datetime) -> bool:
    """Whether records that arrived after `complete_until` can have expired by `now`."""
    return complete_until is None or complete_until <= now - timedelta(hours=retention_hours)


def start_is_lost(
    position: Position, is_there: bool, complete_until: datetime | None, retention_hours: int, now: datetime
) -> bool:
    """Whether a range that begins at `position` may lack records. `is_there`: the position's own record was seen.

    TRIM_HORIZON and AT_TIMESTAMP name no record to check for, so only elapsed time can reveal a loss. Without a time
    the query is new in this shard, and what expired before it began was never part of it.

    Example: with 24 h retention, position 5 and `complete_until` 30 h ago, the range is lost if record 5 is gone:
    records 6 and later may have arrived and expired. If `complete_until` is 2 h ago, nothing later can have expired.
    """
    if position.is_record:
        return not is_there and may_have_expired(complete_until, retention_hours, now)
    return complete_until is not None and may_have_expired(complete_until, retention_hours, now)


def report_loss(
    stream: str,
    shard_id: str,
    position: Position,
    *,
    fail: bool,
    complete_until: datetime | None,
    oldest: float | None,
    retention_hours: int,
) -> None:
    """Raises DataLossError if `fail`, else logs the same sentence as a warning.

    oldest  when the oldest record left arrived; None if no record was seen
    """
    since = complete_until.isoformat(timespec="seconds") if complete_until else "an unknown time"
    left = ""
    if oldest is not None:
        arrived = datetime.fromtimestamp(oldest, UTC).isoformat(timespec="seconds")
        left = f"the oldest record left arrived at {arrived}, "
    what = "is not in the stream any more" if position.is_record else "names no record that could prove it complete"
    message = (
        f"stream {stream}, shard {shard_id}: the position {position} {what}; it was read up to {since}, {left}the "
        f"stream keeps {retention_hours} h. Records in between may be lost."
    )
    if fail:
        raise DataLossError(
            f"{message} Either continue without them (failOnDataLoss=false), or start a new checkpoint; raise the "
            "stream's retention (up to 8760 h) to survive longer stops"
        )
    _log.warning("%s Continuing, because failOnDataLoss=false", message)


@dataclass
class OffsetBuilder:
    """The parts of the offset that is being planned. `arrivals`: when a record arrived that was seen in the shard."""

    shards: dict[str, Position]
    behind: dict[str, datetime]
    losses: int
    arrivals: dict[str, datetime] = field(default_factory=dict)

    def observe(self, shard_id: str, found: SearchResult) -> None:
        arrival = max(found.oldest_arrival or 0.0, found.cursor.arrival)
        if arrival:
            self.arrivals[shard_id] = datetime.fromtimestamp(arrival, UTC)


class LossDetector:
    """Up to when the planner has read each shard, and whether records can have expired unread.

    The offset decides. What this object remembers is newer than the offset; it only saves alarms and calls.

    cursors        where the next search of each shard begins
    first_records  calls `ShardSearcher.first_record` for several cursors

    Not thread-safe.
    """

    def __init__(
        self,
        options: KinesisOptions,
        discovery: ShardDiscovery,
        now: Callable[[], datetime],
        first_records: Callable[[list[Cursor]], list[SearchResult]],
    ) -> None:
        self._options = options
        self._discovery = discovery
        self._now = now
        self._first_records = first_records
        self.cursors: dict[str, Cursor] = {}
        self._caught_up_at: dict[str, datetime] = {}
        self._first_record_seen: set[str] = set()

    @property
    def remembered_shards(self) -> frozenset[str]:
        return frozenset(self.cursors) | frozenset(self._caught_up_at)

    def remember(self, found: SearchResult) -> None:
        """The next search of the shard begins where this one ended."""
        self.cursors[found.cursor.shard_id] = found.cursor
        if found.at_tip:
            self._caught_up_at[found.cursor.shard_id] = datetime.fromtimestamp(found.complete_until, UTC)

    def forget(self, shards: Mapping[str, Position]) -> None:
        """Keeps only what concerns unfinished shards, so that memory does not grow with each reshard."""
        for shard_id in set(self.cursors) - {each for each, at in shards.items() if at != SHARD_END}:
            self.cursors.pop(shard_id, None)
            self._caught_up_at.pop(shard_id, None)

    def heartbeat_due(self, start: Offset, planned: OffsetBuilder, now: datetime) -> bool:
        """Whether the checkpoint needs a new offset although no record is new.

        The offset's times tell an idle stream from one that lost records only while they are recent.
        """
        times = [(start.planned_at, now)] if start.planned_at is not None else []
        times += [(was, planned.behind.get(shard_id, now)) for shard_id, was in start.behind.items()]
        return any(later - was > self._refresh_after() for was, later in times)

    def complete_until(self, shard_id: str, position: Position, start: Offset) -> datetime | None:
        """Every record that arrived before this time is at or before `position`, by the offset or by later searches."""
        joins = shard_id not in start.shards
        known = self._discovery.before_joining(start) if joins else start.complete_until(shard_id)
        if known is not None:
            known = _latest(known, position.moment)
        cursor = self.cursors.get(shard_id)
        if cursor is not None and cursor.position == position:
            return _latest(known, self._caught_up_at.get(shard_id))
        return known

    def start_is_lost(self, shard_id: str, position: Position, start: Offset, *, is_there: bool) -> bool:
        """The rule of the same name, for a shard's position in the offset `start`."""
        complete_until = self.complete_until(shard_id, position, start)
        return start_is_lost(position, is_there, complete_until, self._discovery.retention_hours(), self._now())

    def report_loss(
        self, planned: OffsetBuilder, shard_id: str, position: Position, start: Offset, oldest: float | None
    ) -> None:
        report_loss(
            self._options.stream,
            shard_id,
            position,
            fail=self._options.fail_on_data_loss,
            complete_until=self.complete_until(shard_id, position, start),
            oldest=oldest,
            retention_hours=self._discovery.retention_hours(),
        )
        planned.losses += 1

    def check_starts(
        self, planned: OffsetBuilder, shard_ids: list[str], known: Mapping[str, Position], start: Offset
    ) -> None:
        """Reports losses in shards whose end needs no search. Calls Kinesis only for positions that are old enough."""
        suspects = [each for each in shard_ids if self.start_is_lost(each, known[each], start, is_there=False)]
        for found in self._first_records([Cursor(shard_id, known[shard_id]) for shard_id in suspects]):
            shard_id = found.cursor.shard_id
            planned.observe(shard_id, found)
            if self.start_is_lost(shard_id, known[shard_id], start, is_there=not found.gone):
                self.report_loss(planned, shard_id, known[shard_id], start, found.oldest_arrival)

    def update_idle_shards(
        self,
        planned: OffsetBuilder,
        shard_ids: list[str],
        start: Offset,
        graph: ShardGraph,
        ending: Offset | None,
    ) -> None:
        """Sets up to when the shards are read that this batch does not search.

        Such a shard may be a child that waits for its parent: nothing of it has been read, but nothing arrived in it
        before its parent's records either. Before a long wait could look like a loss, the child's first record is
        looked at: nothing arrived before that one.
        """
        complete_until: dict[str, datetime | None] = {}
        for shard_id in shard_ids:
            position = planned.shards[shard_id]
            known = self.complete_until(shard_id, position, start)
            if known is not None and not position.is_record:
                known = _latest(known, _ancestors_read_until(shard_id, graph, start, planned.arrivals))
            if ending is not None and position == ending.shards.get(shard_id):
                known = _latest(known, ending.complete_until(shard_id))
            complete_until[shard_id] = known
        self._first_record_seen.intersection_update(shard_ids)
        retention = self._discovery.retention_hours()
        to_look_at = [each for each, known in complete_until.items() if known is None or self._is_stale(each, known)]
        for found in self._first_records([Cursor(each, planned.shards[each]) for each in to_look_at]):
            shard_id, position = found.cursor.shard_id, planned.shards[found.cursor.shard_id]
            known = complete_until[shard_id]
            if known is None and found.gone:
                self.report_loss(planned, shard_id, position, start, found.oldest_arrival)
            # Once records can have expired, the first record seen may not be the shard's first.
            if known is None or not may_have_expired(known, retention, self._now()):
                complete_until[shard_id] = _latest(known, datetime.fromtimestamp(found.complete_until, UTC))
                if found.first_number:
                    self._first_record_seen.add(shard_id)
        planned.behind.update({shard_id: known for shard_id, known in complete_until.items() if known is not None})

    def _is_stale(self, shard_id: str, complete_until: datetime) -> bool:
        """Whether the shard has to be looked at before its records can expire."""
        now = self._now()
        return (
            shard_id not in self._first_record_seen
            and now - complete_until > self._refresh_after()
            and not may_have_expired(complete_until, self._discovery.retention_hours(), now)
        )

    def _refresh_after(self) -> timedelta:
        """The age at which the time up to which a shard is read is looked up, or written down, again."""
        return timedelta(hours=self._discovery.retention_hours()) / 4


def _ancestors_read_until(
    shard_id: str, graph: ShardGraph, start: Offset, arrivals: Mapping[str, datetime]
) -> datetime | None:
    """A time before which nothing arrived in a shard, because its ancestors took the records; None if unknown.

    Every record of an ancestor is older than every record of the shard. So each arrival seen in an ancestor is such a
    time (`arrivals`), and so is the time up to which `start` had read an ancestor, if the shard had not joined yet.
    """
    found: datetime | None = None
    for ancestor in graph.ancestors([shard_id]):
        found = _latest(found, arrivals.get(ancestor))
        if shard_id not in start.shards and start.shards.get(ancestor, TRIM_HORIZON).is_record:
            found = _latest(found, start.complete_until(ancestor))
    return found


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of the times that are known."""
    return max((each for each in (one, other) if each is not None), default=None)
