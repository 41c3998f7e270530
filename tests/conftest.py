"""What the tests share: one embedded AWS and one Spark session a run, and settings of its own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.settings.settings import Settings, load_settings
from local import resources, server
from tests.helpers.paths import EXPORTS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DATA = EXPORTS
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def embedded_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Running]:
    """The embedded AWS on a free port; this process and its children talk to it alone."""
    state = tmp_path_factory.mktemp("embedded-aws")
    settings = load_settings(None, [f"local.state_dir={state}", f"local.port={free_port()}"])
    running = server.up(settings)
    with server.aimed_at(running):
        yield running
    server.down(settings)


@pytest.fixture(scope="session")
def spark(embedded_aws: server.Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The one Spark session of the run, made as the entry points make theirs."""
    from jobs.common.spark_session import spark_session

    settings = load_settings(None, ["spark.master=local[2]"])
    session = spark_session(settings, "tests", str(tmp_path_factory.mktemp("spark") / "spark.log"))
    yield session
    session.stop()


@pytest.fixture
def lake_settings(embedded_aws: server.Running, tmp_path: Path) -> Settings:
    """Settings whose stream, bucket and database exist and are this test's alone."""
    return make_lake(tmp_path)


def make_lake(folder: Path, *overrides: str) -> Settings:
    """A stream, a bucket and a database that no other test uses."""
    number = f"{os.getpid()}-{next(_numbers)}"
    settings = load_settings(
        None,
        [
            f"stream.name=test-{number}",
            f"lake=s3://test-{number}/lake",
            f"database=test_{number.replace('-', '_')}",
            f"local.state_dir={folder}",
            *overrides,
        ],
    )
    resources.ensure(settings)
    return settings


@pytest.fixture(scope="session")
def exports() -> Path:
    """The folder of real exports beside the project."""
    if not DATA.is_dir():
        pytest.skip(f"the real exports are not here: {DATA}")
    return DATA


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on just now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
