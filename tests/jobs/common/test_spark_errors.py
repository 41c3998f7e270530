"""Errors on their way through Spark, which passes on their text alone."""

from __future__ import annotations

import pytest

from jobs.common.errors import AlreadyRunningError, MovementError, TerminalError, TransientError
from jobs.common.spark_errors import explained_failure, find_cause

TRACEBACK = """An error occurred while calling o1.collectToPython.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 1 times:
org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/x/worker.py", line 1, in main
    raise TransientError("first")
jobs.common.errors.TerminalError: the cause of the next one

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
{raised}

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:581)
"""


class SourceFaultError(Exception):
    """Another package's errors."""


class ThrottledFaultError(SourceFaultError):
    """One of them that may pass."""


class NestedFaultError(ThrottledFaultError):
    """A subclass that the translations do not name."""


OTHERS = {SourceFaultError: TerminalError, ThrottledFaultError: TransientError}


def text_of(error: type[Exception]) -> str:
    return TRACEBACK.format(raised=f"{error.__module__}.{error.__qualname__}: lake x: y: z")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (TransientError, TransientError),
        (TerminalError, TerminalError),
        (AlreadyRunningError, TerminalError),
        (MovementError, TerminalError),
        (SourceFaultError, TerminalError),
        (ThrottledFaultError, TransientError),
        (NestedFaultError, TransientError),
    ],
)
def test_an_error_that_a_worker_raised_keeps_its_message_and_whether_it_may_pass(
    raised: type[Exception], kind: type[MovementError]
) -> None:
    found = explained_failure(RuntimeError(text_of(raised)), "the query", OTHERS)
    assert (type(found), str(found)) == (kind, "lake x: y: z")


def test_an_error_that_is_not_known_is_named_with_what_failed() -> None:
    text = TRACEBACK.replace("jobs.common.errors.", "elsewhere.").format(raised="elsewhere.OtherError: y")
    found = explained_failure(RuntimeError(text), "the query", OTHERS)
    assert type(found) is TerminalError
    assert str(found) == "the query failed: An error occurred while calling o1.collectToPython."
    assert find_cause(RuntimeError("")).message == "RuntimeError('')"
