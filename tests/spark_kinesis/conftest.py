"""Emulators of Kinesis and a Spark session for the source's tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from jobs.settings.settings import load_settings
from local import server
from tests.helpers.emulators import Emulator, Stream
from tests.helpers.kinesis_mock import running_kinesis_mock
from tests.helpers.ports import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session", autouse=True)
def _aws_environment() -> Iterator[None]:
    """Fixed credentials, so that no test reaches AWS."""
    before = {key: os.environ.get(key) for key in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    yield
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """The embedded AWS, started as by `movement local up`."""
    settings = load_settings(None, [f"local.state_dir={tmp_path_factory.mktemp('moto')}", f"local.port={free_port()}"])
    running = server.up(settings)
    yield Emulator("moto", running.endpoint)
    server.down(settings)


@pytest.fixture(scope="session")
def kinesis_mock() -> Iterator[Emulator]:
    with running_kinesis_mock() as endpoint:
        yield Emulator("kinesis-mock", endpoint)


@pytest.fixture(params=["moto", "kinesis_mock"])
def emulator(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Emulator:
    """Each test runs against both, because they differ."""
    found: Emulator = request.getfixturevalue(request.param)
    record_property("server", found.name)
    return found


@pytest.fixture
def new_stream(emulator: Emulator) -> Iterator[Callable[..., Stream]]:
    """Creates streams, `new_stream(shards=4)`, and deletes them after the test."""
    made: list[Stream] = []

    def make(shards: int = 2) -> Stream:
        client: Any = boto3.client(
            "kinesis",
            endpoint_url=emulator.endpoint,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 3}),
        )
        stream = Stream(client, f"s-{uuid.uuid4().hex[:12]}", emulator)
        stream.create(shards)
        made.append(stream)
        return stream

    yield make
    for stream in made:
        stream.delete()
