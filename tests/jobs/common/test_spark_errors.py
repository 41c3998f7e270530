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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Failed to read log file file:/lake/_checkpoints/stream/offsets/5. Incomplete log file",
            "offsets/5 is empty or cut off, as after a power cut or on a full disk: run again with `--start-from led",
        ),
        (
            "java.io.IOException: No space left on device",
            "a disk is full: No space left on device. Free space",
        ),
        (
            "Caused by: java.io.FileNotFoundException: /ck/.metadata.tmp (Permission denied)",
            "a folder cannot be written: /ck/.metadata.tmp (Permission denied). Give this user the right to write",
        ),
        (
            "java.io.IOException: mkdir of file:/sys/ck/sources failed",
            "a folder cannot be written: mkdir of file:/sys/ck/sources failed. Give",
        ),
        (
            "org.apache.hadoop.fs.s3a.UnknownStoreException: `s3a://gone/': getFileStatus on s3a://gone/ck: "
            "software.amazon.awssdk.services.s3.model.NoSuchBucketException: The specified bucket does not exist",
            "the bucket s3a://gone does not exist: check `lake` and `stream_job.checkpoint`",
        ),
        (
            "javax.net.ssl.SSLHandshakeException: PKIX path building failed: "
            "sun.security.provider.certpath.SunCertPathBuilderException: unable to find valid certification path",
            "Java does not trust the certificate of the AWS endpoint: set AWS_CA_BUNDLE to a PEM file",
        ),
    ],
)
def test_a_fault_of_the_platform_is_one_sentence_with_the_remedy(text: str, said: str) -> None:
    error = RuntimeError(
        f"An error occurred while calling o1.start.\n: java.lang.Exception: x\n{text}\n\tat a.B.c(D:1)"
    )
    found = explained_failure(error, "the streaming query")
    assert type(found) is TerminalError
    assert said in str(found)
    assert "\n" not in str(found)
