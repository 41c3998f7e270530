"""An embedded AWS of the tests' own, on a free port, that AWS clients find by the environment."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.contract.settings import Settings, load_settings
from local import server


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


@pytest.fixture
def named(request: pytest.FixtureRequest) -> Callable[..., Settings]:
    """Settings whose stream, bucket and database carry the test's name, so that tests share one server."""
    name = "".join(char if char.isalnum() else "-" for char in request.node.name.removeprefix("test_")).lower()[:40]
    name = name.strip("-")

    def build(*overrides: str) -> Settings:
        return load_settings(
            None,
            [f"stream.name={name}", f"lake=s3://{name}/lake", f"database={name.replace('-', '_')}", *overrides],
        )

    return build
