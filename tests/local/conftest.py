"""The tests' embedded AWS, on a free port; AWS clients find it by environment variables."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest

from jobs.common import aws
from jobs.settings.settings import Settings, load_settings
from lambdas import sqs_batch
from local import server
from tests.helpers.ports import free_port

# Clients by service and environment, and the one reader of the services' models.
_clients: dict[str, Any] = {}
_loader = botocore.loaders.create_loader()


@pytest.fixture(autouse=True, scope="module")
def clients_are_made_once() -> Iterator[None]:
    """Caches boto3 clients by service and environment, because creating one takes up to 0.1 s."""

    def remembered(make: Callable[..., Any]) -> Callable[..., Any]:
        def client(service: str, **config: Any) -> Any:
            environment = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
            key = repr((make.__module__, service, config, environment))
            if key not in _clients:
                _clients[key] = make(service, **config)
            return _clients[key]

        return client

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda *_: _loader)
        patch.setattr(boto3, "client", remembered(boto3.client))
        patch.setattr(aws, "client", remembered(aws.client))
        yield


def settings_in(folder: Path, *overrides: str) -> Settings:
    return load_settings(None, [f"local.port={free_port()}", f"local.state_dir={folder / 'state'}", *overrides])


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a free port and the test's own state folder; stops its server after the test."""
    found = settings_in(tmp_path)
    yield found
    server.down(found)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.RunningServer]:
    """One embedded AWS for all tests of this folder, whose resources have different names."""
    own = settings_in(tmp_path_factory.mktemp("aws"))
    yield server.up(own)
    server.down(own)


@pytest.fixture
def aws_here(running: server.RunningServer) -> Iterator[server.RunningServer]:
    """As `running`, with the environment variables set. Clears the client that the Lambda functions cache."""
    sqs_batch.glue.cache_clear()
    with server.aimed_at(running):
        yield running
    sqs_batch.glue.cache_clear()


@pytest.fixture
def named(request: pytest.FixtureRequest) -> Callable[..., Settings]:
    """Settings whose stream, bucket and database are named after the test, so that tests can share a server."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:28].strip("-")
    name = f"{words}-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]}"

    def build(*overrides: str) -> Settings:
        return load_settings(
            None,
            [f"stream.name={name}", f"lake=s3://{name}/lake", f"database={name.replace('-', '_')}", *overrides],
        )

    return build
