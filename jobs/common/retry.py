"""Repeats calls that fail with a TransientError, with growing random pauses.

botocore repeats throttled and failed requests itself. This policy is for failures that botocore does not see: an answer
with status 200 that reports failed entries, a connection that breaks within an object's body, a lost race.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from jobs.common.errors import TransientError

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How many times a call is made, and the pauses between.

    With the defaults a call is made at most 6 times, with pauses of up to 0.2, 0.4, 0.8, 1.6 and 3.2 seconds.
    """

    attempts: int = 6
    first_pause: float = 0.2
    longest_pause: float = 5.0
    sleep: Callable[[float], None] = time.sleep

    def call(self, operation: Callable[[], T], on: type[TransientError] = TransientError) -> T:
        """Returns the result of `operation`. Repeats it while it raises `on`; raises the error of the last attempt."""
        # Imported here: most processes, such as Spark's Python workers, never retry.
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        return Retrying(
            retry=retry_if_exception_type(on),
            stop=stop_after_attempt(self.attempts),
            wait=lambda state: self.pause(state.attempt_number),
            sleep=self.sleep,
            reraise=True,
        )(operation)

    def pause(self, attempt: int) -> float:
        """Seconds to wait after attempt 1, 2, …: random, from half of a growing limit up to that limit."""
        limit = min(self.longest_pause, self.first_pause * 2 ** (attempt - 1))
        return random.uniform(limit / 2, limit)  # noqa: S311 - spreads the retries of many processes
