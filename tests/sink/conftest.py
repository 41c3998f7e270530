"""Lakes of both kinds: what one can do, the other must."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from jobs.sink.lake import FolderLake, Lake, S3Lake


@pytest.fixture
def s3_lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Lake]:
    """An empty lake in a bucket of moto's, in this process."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="tests")
        yield S3Lake("s3://tests/some/lake")


@pytest.fixture
def folder_lake(tmp_path: Path) -> FolderLake:
    return FolderLake(str(tmp_path / "lake"))


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest) -> Lake:
    """Each test runs against both."""
    found: Lake = request.getfixturevalue(f"{request.param}_lake")
    return found
