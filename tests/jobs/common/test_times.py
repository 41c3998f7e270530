"""ISO 8601 times of settings and options."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobs.common.errors import ConfigurationError
from jobs.common.times import format_time, parse_time, time_option


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23T10:30:00Z", datetime(2026, 11, 23, 10, 30, tzinfo=UTC)),
        ("2026-11-23T10:30+02:00", datetime(2026, 11, 23, 8, 30, tzinfo=UTC)),
    ],
)
def test_an_option_is_a_day_or_a_time(text: str, found: datetime) -> None:
    assert time_option(text, "--since") == found


def test_a_wrong_time_is_refused_with_its_option() -> None:
    with pytest.raises(ConfigurationError, match=r"--since: 'yesterday'.*ISO 8601"):
        time_option("yesterday", "--since")


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T10:30:00Z",
        "2026-11-23T10:30:00z",
        "2026-11-23t10:30Z",
        "2026-11-23 10:30:00 +00:00",
        "2026-11-23T11:30:00.000+01",
        "20261123T103000Z",
        "2026-W48-1T10:30:00,0Z",
    ],
)
def test_every_unambiguous_form_is_read(text: str) -> None:
    assert parse_time(text) == datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


def test_a_default_zone_is_for_times_without_an_offset() -> None:
    assert parse_time("2026-11-23T10:30", default_zone=UTC) == datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
    assert parse_time("2026-11-23T10:30+02:00", default_zone=UTC) == datetime(2026, 11, 23, 8, 30, tzinfo=UTC)


def test_a_time_is_formatted_in_utc() -> None:
    time = datetime(2026, 11, 23, 12, 30, 1, 500, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(time) == "2026-11-23T10:30:01.000500Z"
    assert format_time(time, "milliseconds") == "2026-11-23T10:30:01.000Z"


def test_a_date_alone_is_its_midnight_in_utc() -> None:
    assert parse_time("2026-11-23") == datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T10.5Z",
        "2026-11-23T10:30.5Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T10:00:60Z",
        "2026-327T10:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-23Z",
        "0001-01-01T00:00:00+01:00",
        "yesterday",
    ],
)
def test_an_ambiguous_time_is_refused_with_an_allowed_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 2026-11-23T00:00:00Z"):
        parse_time(text)


def test_the_advice_for_a_time_without_an_offset_can_be_followed() -> None:
    with pytest.raises(ValueError, match="write 2026-11-23T10:30:00Z") as error:
        parse_time("2026-11-23T10:30:00")
    assert parse_time(str(error.value).split("write ")[1].split(" ")[0]) == datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
