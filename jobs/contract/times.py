"""Times as people give them on a command line."""

from __future__ import annotations

from datetime import UTC, datetime

from jobs.contract.errors import ConfigurationError


def moment(text: str, option: str) -> datetime:
    """A day or a time as ISO 8601, in UTC; UTC where it names no zone.

    Raises ConfigurationError, naming the `option` that it was given for.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{option} '{text}' is no ISO 8601 time; allowed: such as 2026-11-23 or 2026-11-23T10:30:00Z"
        ) from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
