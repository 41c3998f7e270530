"""How often the planner may call GetRecords on one shard, so that the readers' share is left to them.

AWS allows 5 GetRecords calls a second per shard, whoever makes them; the planner keeps to `per_second` of these.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """A token bucket for each shard: `burst` calls at once, then `per_second`. Thread-safe.

    Four calls find the tip of a long backlog and weigh its range, so a query's start need not wait.
    """

    def __init__(
        self,
        per_second: float,
        *,
        burst: int = 4,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1.0 / per_second
        self._slack = self._interval * (burst - 1)
        self._clock = clock
        self._sleep = sleep
        self._free_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait(self, shard_id: str) -> None:
        """Returns when the shard may be called; waits where the budget is used up."""
        with self._lock:
            now = self._clock()
            free_at = max(self._free_at.get(shard_id, 0.0), now - self._slack)
            self._free_at[shard_id] = free_at + self._interval
        if free_at > now:
            self._sleep(free_at - now)
