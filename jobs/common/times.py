"""ISO 8601 times: parsed from settings, options and records, and formatted."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

from jobs.common.errors import ConfigurationError

# Only forms that `datetime.fromisoformat` reads correctly: it would read T10.5Z as half a second past ten.
_DATE = r"(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}-?W\d{2}(?:-?\d)?)"
_CLOCK = r"\d{2}(?::\d{2}(?::\d{2}(?:[.,]\d+)?)?|\d{2}(?:\d{2}(?:[.,]\d+)?)?)?"
_ISO = re.compile(rf"(?P<date>{_DATE})(?:[Tt ](?P<clock>{_CLOCK}) ?(?P<zone>[Zz]|[+-]\d{{2}}(?::?\d{{2}})?)?)?")


def parse_time(text: str, *, default_zone: tzinfo | None = None) -> datetime:
    """Parses an ISO 8601 time; the result is in UTC. A date alone means its midnight.

    `2026-11-23T01:00:00+01:00` and `2026-11-23` both give 2026-11-23 00:00 UTC. `default_zone` is the zone of a time
    without an offset; None: the offset is required, and a date alone is in UTC.

    Raises ValueError for anything else, including valid ISO 8601 that Python misreads or does not read: fractions of
    hours or minutes, days of the year, 24:00, leap seconds.
    """
    match = _ISO.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        clock, zone = match["clock"], match["zone"]
        time = datetime.fromisoformat(match["date"] + (f"T{clock}" if clock else "") + (zone or "").upper())
        if time.tzinfo is None:
            time = time.replace(tzinfo=default_zone if clock or default_zone else UTC)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"'{text}' is not a supported ISO 8601 time; allowed: such as 2026-11-23T00:00:00Z, "
            "2026-11-23T01:00:00.5+01:00 or 2026-11-23 (fractions only of seconds, hours up to 23)"
        ) from error
    raise ValueError(f"'{text}' has no offset from UTC; write {text}Z for UTC, or {text}+01:00")


def time_option(text: str, option: str) -> datetime:
    """The value of a command-line option as a time in UTC; a time without an offset is in UTC.

    Raises ConfigurationError that names the option.
    """
    try:
        return parse_time(text, default_zone=UTC)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from error


def format_time(time: datetime, timespec: str = "auto") -> str:
    """ISO 8601 in UTC, such as 2026-11-23T10:30:00Z. `timespec` as in `datetime.isoformat`."""
    return time.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
