"""What the tests share: one embedded AWS and one Spark session a run, and settings of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.settings.settings import Settings, load_settings
from local import server
from tests.helpers.lakes import make_lake
from tests.helpers.paths import EXPORTS
from tests.helpers.ports import free_port

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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


@pytest.fixture(scope="session")
def exports() -> Path:
    """The folder of real exports beside the project."""
    if not EXPORTS.is_dir():
        pytest.skip(f"the real exports are not here: {EXPORTS}")
    return EXPORTS


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials and a region, as on any machine; no endpoint yet."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return monkeypatch
