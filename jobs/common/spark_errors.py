"""Finds the error that a Python worker raised in the text of Spark's error.

Spark passes a worker's error to the driver as text only: a traceback whose last line is `module.Class: message`. That
name is looked up among the names of the known classes. A Transient error stays Transient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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


@dataclass(frozen=True)
class SparkFailure:
    """What an error of Spark's says.

    raised_on_purpose  whether a worker raised one of the known errors; `message` is then complete
    """

    kind: type[MovementError]
    message: str
    raised_on_purpose: bool


def find_cause(error: Exception, others: Translations | None = None) -> SparkFailure:
    """The error that a worker raised on purpose, or else the first line of Spark's text.

    others  errors besides ours that count as raised on purpose, such as a data source's
    """
    known = dict(_names({**OURS, **(others or {})}))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        name, _, message = line.partition(": ")
        if name in known:
            return SparkFailure(known[name], message, True)
    kind = TransientError if _BROKEN_CONNECTION.search(str(error)) else TerminalError
    return SparkFailure(kind, lines[0] if lines else repr(error), False)


def explained_failure(error: Exception, what: str, others: Translations | None = None) -> MovementError:
    """What a worker raised on purpose, or else that `what` failed and the first line of why.

    A TransientError if a worker raised one, or if Spark lost a connection of its own, such as to its checkpoint; else
    a TerminalError.
    """
    cause = find_cause(error, others)
    return cause.kind(cause.message if cause.raised_on_purpose else f"{what} failed: {cause.message}")


def _names(translations: Translations) -> Iterator[tuple[str, type[MovementError]]]:
    """Each class and its subclasses by the name that a traceback gives them; a subclass's own entry wins."""
    for base, kind in sorted(translations.items(), key=lambda entry: len(entry[0].__mro__)):
        for each in _with_subclasses(base):
            yield f"{each.__module__}.{each.__qualname__}", kind


def _with_subclasses(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for each in base.__subclasses__():
        yield from _with_subclasses(each)
