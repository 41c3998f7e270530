"""Lakes of both kinds: what one can do, the other must."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from moto import mock_aws

from jobs.lake.store import FolderLake, Lake, S3Lake


@pytest.fixture(scope="module")
def _moto() -> Iterator[S3Lake]:
    """moto's S3 in this process, and a client of it, which is slow to make."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        environment.setenv("AWS_REGION", "us-east-1")
        with mock_aws():
            lake = S3Lake("s3://tests/some/lake")
            _one_request_at_a_time(lake)
            yield lake


def _one_request_at_a_time(lake: S3Lake) -> None:
    """moto is not thread-safe: a GET may find the object closed by a PUT of the lease's thread that replaces it."""
    lock, send = Lock(), lake._s3._endpoint.make_request

    def make_request(*arguments: Any) -> Any:
        with lock:
            return send(*arguments)

    lake._s3._endpoint.make_request = make_request


@pytest.fixture
def s3_lake(_moto: S3Lake) -> Iterator[S3Lake]:
    """An empty lake in a bucket of moto's."""
    s3 = _moto._s3
    s3.create_bucket(Bucket="tests")
    yield _moto
    _moto.delete([path for path, _ in _moto.list("")])
    for stray in s3.list_objects_v2(Bucket="tests").get("Contents", []):
        s3.delete_object(Bucket="tests", Key=stray["Key"])
    s3.delete_bucket(Bucket="tests")


@pytest.fixture
def folder_lake(tmp_path: Path) -> FolderLake:
    return FolderLake(str(tmp_path / "lake"))


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest) -> Lake:
    """Each test runs against both."""
    found: Lake = request.getfixturevalue(f"{request.param}_lake")
    return found
