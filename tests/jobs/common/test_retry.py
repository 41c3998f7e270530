"""The retry policy: how often a call is made, after which pauses, and what is raised in the end."""

from __future__ import annotations

import pytest

from jobs.common.errors import TerminalError, TransientError
from jobs.common.retry import RetryPolicy


class Flaky:
    """Raises the errors one after another, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_a_call_is_repeated_while_it_fails_with_growing_pauses() -> None:
    pauses: list[float] = []
    policy = RetryPolicy(attempts=4, first_pause=1, longest_pause=2, sleep=pauses.append)
    assert policy.call(Flaky(*[TransientError("x")] * 3)) == "done"
    first, second, third = pauses
    assert 0.5 <= first <= 1 <= second <= 2
    assert 1 <= third <= 2, "no pause is longer than the longest"


def test_the_last_error_is_raised_after_the_last_attempt() -> None:
    pauses: list[float] = []
    operation = Flaky(TransientError("first"), TransientError("second"), TransientError("third"))
    with pytest.raises(TransientError, match=r"^second$"):
        RetryPolicy(attempts=2, sleep=pauses.append).call(operation)
    assert len(pauses) == 1, "there is no pause after the last attempt"


@pytest.mark.parametrize("error", [TerminalError("x"), KeyError("x")])
def test_any_other_error_is_raised_at_once(error: Exception) -> None:
    operation = Flaky(error, error)
    with pytest.raises(type(error)):
        RetryPolicy(sleep=lambda _: None).call(operation)
    assert len(operation.errors) == 1


def test_a_call_can_be_repeated_for_one_kind_of_transient_error_only() -> None:
    class LostRaceError(TransientError):
        pass

    policy = RetryPolicy(sleep=lambda _: None)
    assert policy.call(Flaky(LostRaceError("x")), on=LostRaceError) == "done"
    with pytest.raises(TransientError, match="other"):
        policy.call(Flaky(TransientError("other")), on=LostRaceError)
