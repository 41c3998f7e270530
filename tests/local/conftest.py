"""An embedded AWS of the tests' own, on a free port, that AWS clients find by the environment."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.loaders
import botocore.session
import pytest

from jobs.contract.settings import Settings, load_settings
from lambdas import sqs_batch
from local import server


@pytest.fixture(autouse=True, scope="session")
def one_loader_of_service_models() -> Iterator[None]:
    """A boto3 session for each client, as the code makes them, reads the service's model anew each time: 0.1 s."""
    shared = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda *_: shared)
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_in(folder: Path, *overrides: str) -> Settings:
    return load_settings(None, [f"local.port={free_port()}", f"local.state={folder / 'state'}", *overrides])


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a free port and a state folder of their own; what was started there is stopped."""
    found = settings_in(tmp_path)
    yield found
    server.down(found)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Running]:
    """One embedded AWS for the tests of a file."""
    own = settings_in(tmp_path_factory.mktemp("aws"))
    yield server.up(own)
    server.down(own)


@pytest.fixture
def aws_here(running: server.Running) -> Iterator[server.Running]:
    """As `running`; boto3 finds it, and nothing else."""
    with server.aimed_at(running):
        yield running
    sqs_batch.glue.cache_clear()


@pytest.fixture
def named(request: pytest.FixtureRequest) -> Callable[..., Settings]:
    """Settings whose stream, bucket and database carry the test's name, so that tests share one server."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:28].strip("-")
    name = f"{words}-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]}"

    def build(*overrides: str) -> Settings:
        return load_settings(
            None,
            [f"stream.name={name}", f"lake=s3://{name}/lake", f"database={name.replace('-', '_')}", *overrides],
        )

    return build
