"""How often the planner may call GetRecords on one shard, so that the readers' share is left to them.

AWS allows 5 GetRecords calls a second per shard, whoever makes them; the planner keeps to `per_second` of these, and
makes at most `burst` within any one second.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from math import ceil


class Pace:
    """A token bucket for each shard: `burst` calls at once, then `per_second` in the long run. Thread-safe.

    burst   calls within any one second, one more than `per_second` unless given: two calls find a tip and a third
            weighs a range, so a trigger need not wait, and of AWS's 5 two are left for the readers that follow
    """

    def __init__(
        self,
        per_second: float,
        *,
        burst: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1.0 / per_second
        self._burst = ceil(per_second) + 1 if burst is None else burst
        self._slack = self._interval * (self._burst - 1)
        self._clock = clock
        self._sleep = sleep
        self._free_at: dict[str, float] = {}
        self._booked: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def wait(self, shard_id: str) -> None:
        """Returns when the shard may be called; waits where the budget is used up."""
        with self._lock:
            now = self._clock()
            booked = self._booked.setdefault(shard_id, deque(maxlen=self._burst))
            # A bucket alone would let `burst` calls and those that come free in the same second through.
            second_over = booked[0] + 1.0 if len(booked) == self._burst else now
            free_at = max(now, second_over, self._free_at.get(shard_id, now) - self._slack)
            booked.append(free_at)
            self._free_at[shard_id] = max(now, self._free_at.get(shard_id, now)) + self._interval
        if free_at > now:
            self._sleep(free_at - now)
