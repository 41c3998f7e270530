"""Patience with Glue: what botocore does not retry (an entry of a batch, a lost race) is tried a few times more."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from jobs.common.aws import translate_aws_errors
from jobs.common.errors import TerminalError, TransientError

T = TypeVar("T")
Values = tuple[str, ...]

ATTEMPTS = 6
_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 5.0


def pauses() -> Iterator[float]:
    """How long to wait after each of ATTEMPTS attempts, in seconds: growing, with jitter."""
    for attempt in range(ATTEMPTS):
        longest = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2**attempt)
        yield random.uniform(longest / 2, longest)  # noqa: S311 - spreads retries; guards nothing


class Patience:
    """Makes calls to Glue. Raises AwsAccessError at once, TerminalError where a call fails to the end."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self.sleep = sleep

    def call(self, what: str, call: Callable[..., T], **arguments: Any) -> T:
        """What the call returns, once it does. `what` is being done, for the error."""

        def attempt() -> T:
            with translate_aws_errors(what):
                return call(**arguments)

        return self._until_done(attempt)

    def batch(
        self,
        what: str,
        send: Callable[[list[Any]], Mapping[str, Any]],
        entries: Mapping[Values, Any],
        *,
        values_key: str,
        harmless: str,
    ) -> list[Values]:
        """Sends a Batch… call's entries (by a partition's values), those that fail again and again.

        Such a call answers 200 with an error for each entry that failed, under `values_key`, so botocore retries none
        of them. Returns the values of those that failed with the code `harmless`.
        """
        left, told = dict(entries), list[Values]()

        def attempt() -> None:
            with translate_aws_errors(what):
                errors = send(list(left.values())).get("Errors", [])
            failed = {}
            for error in errors:
                values, detail = tuple(error[values_key]), error.get("ErrorDetail", {})
                if detail.get("ErrorCode") == harmless:
                    told.append(values)
                else:
                    failed[values] = f"{list(values)}: {detail.get('ErrorCode')}: {detail.get('ErrorMessage')}"
            for values in [values for values in left if values not in failed]:
                del left[values]
            if failed:
                raise TransientError(f"{what}: {len(failed)} failed, such as {next(iter(failed.values()))}")

        self._until_done(attempt)
        return told

    def _until_done(self, attempt: Callable[[], T]) -> T:
        last: TransientError | None = None
        for pause in pauses():
            try:
                return attempt()
            except TransientError as error:
                last = error
                self.sleep(pause)
        raise TerminalError(f"{last}; given up after {ATTEMPTS} attempts: see AWS's health, then start again") from last
