"""The one gate for "records may have left the stream unread": the planner and the readers both ask here.

Kinesis gives no sign of trimmed records: an iterator at a position that has expired silently starts at the
oldest record left. So a position's own record is looked up first; where it is gone, or where a position names no
record, the time up to which the shard is known to have been read decides. An idle shard whose last record expired
is no loss.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from spark_kinesis.errors import DataLossError
from spark_kinesis.offset import TRIM_HORIZON, Offset, Position
from spark_kinesis.shards import ShardGraph

_log = logging.getLogger(__name__)


def may_have_lost(complete_until: datetime | None, retention_hours: int, now: datetime) -> bool:
    """Whether records that arrived after `complete_until` can have expired by `now`."""
    return complete_until is None or complete_until <= now - timedelta(hours=retention_hours)


def start_is_lost(
    position: Position, is_there: bool, complete_until: datetime | None, retention_hours: int, now: datetime
) -> bool:
    """Whether a range that begins at `position` may lack records. `is_there`: the position's own record was seen.

    A position that names no record (TRIM_HORIZON, AT_TIMESTAMP) has nothing whose absence would tell, so the time
    alone decides. Without a time the query is new there: what left the stream before it began was never its own.
    """
    if position.is_record:
        return not is_there and may_have_lost(complete_until, retention_hours, now)
    return complete_until is not None and may_have_lost(complete_until, retention_hours, now)


def opened_after(shard_id: str, graph: ShardGraph, start: Offset, arrivals: Mapping[str, datetime]) -> datetime | None:
    """A time before which nothing had arrived in a shard, going by its ancestors; None where they tell nothing.

    All that an ancestor holds is older than all that the shard holds. So every record's arrival that was seen in one
    is such a time (`arrivals`), and so is the time up to which one was read in `start`, where the shard was not there.
    """
    found: datetime | None = None
    for ancestor in graph.ancestors([shard_id]):
        found = later(found, arrivals.get(ancestor))
        if shard_id not in start.shards and start.shards.get(ancestor, TRIM_HORIZON).is_record:
            found = later(found, start.complete_until(ancestor))
    return found


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later time of those that are known."""
    return max((each for each in (one, other) if each is not None), default=None)


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
    """Raises DataLossError where `fail`, else logs the same sentence as a warning.

    oldest  arrival of the oldest record left; None where it was not seen
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
            f"{message} Either go on without them (failOnDataLoss=false), or start a new checkpoint; raise the "
            "stream's retention (up to 8760 h) to survive longer stops"
        )
    _log.warning("%s Going on, because failOnDataLoss=false", message)
