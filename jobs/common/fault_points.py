"""Fault points: named places between two steps where a test ends the job as `kill -9` or a lost machine would.

`MOVEMENT_FAULT=<point>[:<n>]` kills the driver when a process passes the point for the n-th time (default 1). Without
the variable a fault point costs one comparison. `tests/system/test_kill.py` kills at every one of POINTS.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

POINTS = (
    # On the driver, in the order in which a micro-batch passes them.
    "ledger.looked_up",
    "leftovers.listed",
    "leftovers.deleted",
    # In a task.
    "task.started",
    "task.batch_written",
    "file.encoded",
    "file.put",
    "task.files_put",
    # In a task that merges the small files of others; a micro-batch of one task has none.
    "join.started",
    "join.files_put",
    # On the driver again.
    "catalog.registering",
    "catalog.registered",
    "ledger.committing",
    "ledger.committed",
)
# Of a micro-batch that holds records of new partitions back, around its second pass; held.read is in a task.
HELD_POINTS = ("held.put", "held.read", "held.written", "held.deleted")
# Of a partition's move, and of a micro-batch whose partitions have moved meanwhile.
MOVE_POINTS = (
    "move.announced",
    "move.filled",
    "move.awaited",
    "move.complete",
    "move.relocated",
    "move.switched",
    "sweep.deleted",
    "locations.copied",
)
# Of `movement replay --raw`, around the moves.
REBUILD_POINTS = ("rebuild.staged", "rebuild.planned", "rebuild.moved", "rebuild.amended", "rebuild.cleared")
# Of `movement replay --quarantine`, in the order in which a chunk of records passes them.
REPLAY_POINTS = ("replay.opening", "replay.opened", "replay.sent", "replay.closed")
# Of the gold job's driver, for each table.
GOLD_POINTS = ("gold.writing", "gold.written")
# Around each commit to the processed table's Delta log (`sink.format: delta`).
DELTA_POINTS = ("delta.committing", "delta.committed")
_ALL = POINTS + HELD_POINTS + MOVE_POINTS + REBUILD_POINTS + REPLAY_POINTS + GOLD_POINTS + DELTA_POINTS

_ARMED, _, _NUMBER = os.environ.get("MOVEMENT_FAULT", "").partition(":")
_passed: Counter[str] = Counter()

if _ARMED:
    if _ARMED not in _ALL:
        raise ValueError(f"MOVEMENT_FAULT={_ARMED}: unknown fault point; known: {', '.join(_ALL)}")
    # The driver imports this first; Spark's workers inherit its environment.
    os.environ.setdefault("MOVEMENT_FAULT_DRIVER", str(os.getpid()))


def fault_point(name: str) -> None:
    """Kills the driver here if a test has armed `name`, one of the points above."""
    if name == _ARMED:
        _passed[name] += 1
        if _passed[name] == int(_NUMBER or 1):
            os.kill(int(os.environ["MOVEMENT_FAULT_DRIVER"]), signal.SIGKILL)
