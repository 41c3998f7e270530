"""Our own error out of Spark's, whose text is a worker's whole traceback."""

from __future__ import annotations

from jobs.contract.errors import TerminalError

_OURS = "jobs.contract.errors."


def explained_failure(error: Exception, what: str) -> TerminalError:
    """What a worker raised on purpose, or else that `what` failed and the first line of why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(_OURS)]
    if ours:
        return TerminalError(ours[-1].partition(": ")[2])
    return TerminalError(f"{what} failed: {lines[0] if lines else repr(error)}")
