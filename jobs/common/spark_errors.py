"""Our own error out of Spark's, whose text is a worker's whole traceback."""

from __future__ import annotations

import re

from jobs.common.errors import MovementError, TerminalError, TransientError

_OURS = "jobs.common.errors."
# A connection of Spark's own that broke: the AWS SDK for Java does not repeat a call whose answer breaks off while it
# is read (https://github.com/aws/aws-sdk-java-v2/issues/6578 and 5442), and so S3A does not either.
_BROKE = re.compile(
    r"\bjava\.net\.|\bjava\.io\.UncheckedIOException|\borg\.apache\.http\.|Could not parse XML response"
)


def explained_failure(error: Exception, what: str) -> MovementError:
    """What a worker raised on purpose, or else that `what` failed and the first line of why.

    A TransientError where Spark lost a connection of its own, such as to its checkpoint; else a TerminalError.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(_OURS)]
    if ours:
        return TerminalError(ours[-1].partition(": ")[2])
    kind = TransientError if _BROKE.search(str(error)) else TerminalError
    return kind(f"{what} failed: {lines[0] if lines else repr(error)}")
