"""Times of the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobs.contract.errors import ConfigurationError
from jobs.contract.times import moment


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
