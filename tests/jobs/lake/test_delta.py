"""delta-rs reaches S3 as boto3 does."""

from __future__ import annotations

import pytest

from jobs.lake.delta import storage_options


def options() -> dict[str, str]:
    found = storage_options("s3://bucket/lake/processed")
    assert found is not None
    return found


def test_plain_http_is_only_for_an_endpoint_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")

    assert not options().keys() & {"AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"}
    assert options()["AWS_REGION"] == "eu-west-3"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://127.0.0.1:2")
    assert options()["AWS_ENDPOINT_URL"] == "https://127.0.0.1:2"
    assert options()["AWS_ALLOW_HTTP"] == "false"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert options()["AWS_ALLOW_HTTP"] == "true"
