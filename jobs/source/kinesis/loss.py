"""The one gate for "records may have left the stream unread": the planner and the readers both ask here.

Kinesis gives no sign of trimmed records: an iterator at a position that has expired silently starts at the
oldest record left. So a position's own record is looked up first; where it is gone, the time up to which the
shard is known to have been read decides. An idle shard whose last record expired is no loss.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from jobs.contract.errors import DataLossError
from jobs.source.kinesis.position import Position

_log = logging.getLogger(__name__)


def may_have_lost(complete_until: datetime | None, retention_hours: int, now: datetime) -> bool:
    """Whether records that arrived after `complete_until` can have expired by `now`."""
    return complete_until is None or complete_until <= now - timedelta(hours=retention_hours)


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
    """Raises DataLossError where `fail`, else logs the same sentence as a warning."""
    since = complete_until.isoformat(timespec="seconds") if complete_until else "an unknown time"
    left = (
        f"the oldest record left arrived at {datetime.fromtimestamp(oldest, UTC).isoformat(timespec='seconds')}"
        if oldest
        else "no record is left"
    )
    message = (
        f"stream {stream}, shard {shard_id}: the position {position} is not in the stream any more; it was read up "
        f"to {since}, {left}, the stream keeps {retention_hours} h. Records in between may be lost."
    )
    if fail:
        raise DataLossError(
            f"{message} Either go on without them (failOnDataLoss=false), or start a new checkpoint; raise the "
            "stream's retention (up to 8760 h) to survive longer stops"
        )
    _log.warning("%s Going on, because failOnDataLoss=false", message)
