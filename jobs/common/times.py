"""Times as people give them, on a command line or as a position in a stream."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from jobs.common.errors import ConfigurationError

# What `datetime.fromisoformat` reads right: it takes the half hour of `T10.5Z` for half a second.
_DATE = r"(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}-?W\d{2}(?:-?\d)?)"
_CLOCK = r"\d{2}(?::\d{2}(?::\d{2}(?:[.,]\d+)?)?|\d{2}(?:\d{2}(?:[.,]\d+)?)?)?"
_ISO = re.compile(rf"(?P<date>{_DATE})(?:[Tt ](?P<clock>{_CLOCK}) ?(?P<zone>[Zz]|[+-]\d{{2}}(?::?\d{{2}})?)?)?")


def iso_time(text: str) -> datetime:
    """An ISO 8601 time with its offset from UTC, in UTC; a date alone is its midnight in UTC.

    Raises ValueError where it is none, where it names no offset, and for what Python would take for another time or
    not at all: fractions of hours or minutes, days of the year, 24:00, leap seconds.
    """
    found = _ISO.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        clock, zone = found["clock"], found["zone"]
        read = datetime.fromisoformat(found["date"] + (f"T{clock}" if clock else "") + (zone or "").upper())
    except ValueError as error:
        raise ValueError(
            f"'{text}' is no ISO 8601 time that is understood; allowed: such as 2026-11-23T00:00:00Z, "
            "2026-11-23T01:00:00.5+01:00 or 2026-11-23 (fractions only of seconds, hours up to 23)"
        ) from error
    if read.tzinfo is None and clock:
        raise ValueError(f"'{text}' has no offset from UTC; write {text}Z for UTC, or {text}+01:00")
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


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
