"""Finds the cause in the text of Spark's error: an error that a Python worker raised, or a fault of the platform.

Spark passes a worker's error to the driver as text only: a traceback whose last line is `module.Class: message`. That
name is looked up among the names of the known classes. A Transient error stays Transient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jobs.common.errors import MovementError, TerminalError, TransientError

# What a class of errors, with all its subclasses, becomes in a job.
Translations = Mapping[type[Exception], type[MovementError]]
OURS: Translations = {TransientError: TransientError, MovementError: TerminalError}

# Spark itself lost a connection: the AWS SDK for Java does not retry a call whose answer breaks off while it is read
# (https://github.com/aws/aws-sdk-java-v2/issues/6578 and 5442), so S3A does not either.
_BROKEN_CONNECTION = re.compile(
    r"\bjava\.net\.|\bjava\.io\.UncheckedIOException|\borg\.apache\.http\.|Could not parse XML response"
)

# Faults of the platform, by what Java or the system says about them, and what to do. The first match counts; `{0}` is
# the text of the pattern's group, or nothing.
_PLATFORM_FAULTS = (
    (
        r"(?:Failed to read log file (\S+?)\. )?Incomplete log file",
        "the checkpoint's file {0} is empty or cut off, as after a power cut or on a full disk: run again with "
        "`--start-from ledger`, which rebuilds the checkpoint from the lake's ledger",
    ),
    (
        r"No space left on device|Disk quota exceeded|File too large",
        "a disk is full: {line}. Free space for the lake, the checkpoint and Spark's temporary files "
        "(spark.local.dir, by default /tmp), and start again; no record is lost",
    ),
    (
        r"Read-only file system|\(Permission denied\)|AccessDeniedException: (?:file:)?/|mkdir of (?:file:)?\S+ failed",
        "a folder cannot be written: {line}. Give this user the right to write, or choose another folder for the lake "
        "(lake), the checkpoint (stream_job.checkpoint) and Spark's temporary files (spark.conf: spark.local.dir)",
    ),
    (
        r"UnknownStoreException: `?(s3\w*://[^/'`\s]+)|NoSuchBucket|Bucket does not exist",
        "the bucket {0} does not exist: check `lake` and `stream_job.checkpoint`, and the account of the credentials",
    ),
    (
        r"PKIX path (?:building|validation) failed|unable to find valid certification path",
        "Java does not trust the certificate of the AWS endpoint: set AWS_CA_BUNDLE to a PEM file with the CA that "
        "signed it; on other machines of a cluster set the executors' Java option -Djavax.net.ssl.trustStore "
        "(docs/operations.md)",
    ),
)


@dataclass(frozen=True)
class SparkFailure:
    """What an error of Spark's says.

    raised_on_purpose  whether a worker raised one of the known errors; `message` is then complete
    """

    kind: type[MovementError]
    message: str
    raised_on_purpose: bool


def find_cause(error: BaseException, others: Translations | None = None) -> SparkFailure:
    """The error that a worker raised on purpose, or else the first line of Spark's text.

    others  errors besides ours that count as raised on purpose, such as a data source's
    """
    known = dict(_names({**OURS, **(others or {})}))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        name, _, message = line.partition(": ")
        if name in known:
            return SparkFailure(known[name], message, True)
    fault = _platform_fault(lines)
    if fault is not None:
        return SparkFailure(TerminalError, fault, False)
    kind = TransientError if _BROKEN_CONNECTION.search(str(error)) else TerminalError
    return SparkFailure(kind, lines[0] if lines else repr(error), False)


def explained_failure(error: BaseException, what: str, others: Translations | None = None) -> MovementError:
    """What a worker raised on purpose, or else that `what` failed and the first line of why.

    A TransientError if a worker raised one, or if Spark lost a connection of its own, such as to its checkpoint; else
    a TerminalError.
    """
    cause = find_cause(error, others)
    return cause.kind(cause.message if cause.raised_on_purpose else f"{what} failed: {cause.message}")


def _platform_fault(lines: Sequence[str]) -> str | None:
    """The sentence about a fault of the platform that the text names; None if it names none."""
    for pattern, sentence in _PLATFORM_FAULTS:
        for line in lines:
            if found := re.search(pattern, line):
                named = next((group for group in found.groups() if group), "")
                return " ".join(sentence.format(named, line=_without_class(line)).split())
    return None


def _without_class(line: str) -> str:
    """A line of a stack trace without `Caused by:` and the names of the error's classes."""
    return re.sub(r"^(?:Caused by: )?(?:: )?(?:[\w$]+(?:\.[\w$]+)+: )+", "", line).rstrip(".")


def _names(translations: Translations) -> Iterator[tuple[str, type[MovementError]]]:
    """Each class and its subclasses by the name that a traceback gives them; a subclass's own entry wins."""
    for base, kind in sorted(translations.items(), key=lambda entry: len(entry[0].__mro__)):
        for each in _with_subclasses(base):
            yield f"{each.__module__}.{each.__qualname__}", kind


def _with_subclasses(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for each in base.__subclasses__():
        yield from _with_subclasses(each)
