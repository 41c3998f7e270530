"""The processes that a command has started: its JVM, and the JVM's Python workers."""

from __future__ import annotations

from pathlib import Path


def processes_of_session(session: int) -> dict[int, str]:
    """The running processes of a session, which is that of a process started with `start_new_session`: id and name."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended
            continue
        fields = text.rpartition(")")[2].split()
        if int(fields[3]) == session and fields[0] not in "ZX":
            found[int(stat.parent.name)] = text.partition("(")[2].rpartition(")")[0]
    return found
