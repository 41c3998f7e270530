"""Limits the planner's GetRecords calls to a shard, so that the readers get their share.

AWS allows 5 GetRecords calls a second for each shard, by all its consumers together.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from math import ceil


class RateLimiter:
    """A token bucket for each shard: `per_second` calls on average, at most `burst` in any one second. Thread-safe.

    burst   default: one more than `per_second`. With 2 a second that is 3: two calls find a tip and a third measures a
            range, so a trigger need not wait, and 2 of AWS's 5 calls are left for the readers
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
        """Returns when the shard may be called."""
        with self._lock:
            now = self._clock()
            booked = self._booked.setdefault(shard_id, deque(maxlen=self._burst))
            # A bucket alone would allow `burst` calls, and in the same second the next ones that become free.
            second_over = booked[0] + 1.0 if len(booked) == self._burst else now
            free_at = max(now, second_over, self._free_at.get(shard_id, now) - self._slack)
            booked.append(free_at)
            self._free_at[shard_id] = max(now, self._free_at.get(shard_id, now)) + self._interval
        if free_at > now:
            self._sleep(free_at - now)
