"""Times of the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobs.common.errors import ConfigurationError
from jobs.common.times import iso_time, moment


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23T10:30:00Z", datetime(2026, 11, 23, 10, 30, tzinfo=UTC)),
        ("2026-11-23T10:30+02:00", datetime(2026, 11, 23, 8, 30, tzinfo=UTC)),
    ],
)
def test_since_is_a_day_or_a_time(text: str, found: datetime) -> None:
    assert moment(text, "--since") == found


def test_a_since_that_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--since 'yesterday'.*ISO 8601"):
        moment("yesterday", "--since")


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
def test_a_position_in_time_is_taken_in_every_form_that_means_one_thing(text: str) -> None:
    assert iso_time(text) == datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


def test_a_date_alone_is_its_midnight_in_utc() -> None:
    assert iso_time("2026-11-23") == datetime(2026, 11, 23, tzinfo=UTC)


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
        "yesterday",
    ],
)
def test_a_time_that_might_be_taken_for_another_is_refused_with_one_that_is_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 2026-11-23T00:00:00Z"):
        iso_time(text)


def test_the_advice_for_a_time_without_an_offset_can_be_followed() -> None:
    with pytest.raises(ValueError, match="write 2026-11-23T10:30:00Z") as error:
        iso_time("2026-11-23T10:30:00")
    assert iso_time(str(error.value).split("write ")[1].split(" ")[0]) == datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
