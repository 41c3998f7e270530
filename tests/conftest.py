"""Fixtures of all tests: an embedded AWS and a Spark session for each worker, separate settings for each test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck

from jobs.settings.settings import Settings, load_settings
from local import server
from tests.helpers.examples import examples
from tests.helpers.jvm_options import jvm_options
from tests.helpers.lakes import make_lake
from tests.helpers.paths import EXPORTS
from tests.helpers.ports import free_port

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


# The servers besides moto. A test that uses one says so: record_property("server", "kinesis-mock").
REAL_SERVERS = ("kinesis-mock", "versitygw")

# For this process's Spark and for those of the processes that it starts.
os.environ.setdefault("SPARK_SUBMIT_OPTS", jvm_options())

# Both measure wall time, so a busy machine would fail them.
hypothesis.settings.register_profile(
    "any_machine", max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any_machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the longest modules first, so that the parallel workers finish at about the same time.

    Whole processes come first, then Spark, then the embedded AWS, then the rest. `make test` passes
    --no-loadscope-reorder, because pytest-xdist would otherwise sort the modules by their number of tests.
    """

    def cost(item: pytest.Item) -> int:
        if item.path.parent.name == "system":
            return 0
        return 1 if module_has["spark"].get(item.path) else 2 if module_has["aws"].get(item.path) else 3

    module_has: dict[str, dict[Path, bool]] = {"spark": {}, "aws": {}}
    for item in items:
        if item.get_closest_marker("nightly") and not os.environ.get("NIGHTLY"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: part of `make nightly`"))
        for marker, modules in module_has.items():
            modules[item.path] = modules.get(item.path, False) or item.get_closest_marker(marker) is not None
    items.sort(key=cost)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how many tests ran against each real server. Why one did not run is in the skips above."""
    ran = Counter(
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for name, value in report.user_properties
        if name == "server"
    )
    found = (f"{server} {f'{ran[server]} tests' if ran[server] else 'did not run'}" for server in REAL_SERVERS)
    terminalreporter.write_line(f"real servers: {', '.join(found)}")


@pytest.fixture(scope="session")
def embedded_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.RunningServer]:
    """The embedded AWS on a free port. This process and its children use no other AWS endpoint."""
    state = tmp_path_factory.mktemp("embedded-aws")
    settings = load_settings(None, [f"local.state_dir={state}", f"local.port={free_port()}"])
    running = server.up(settings)
    with server.aimed_at(running):
        yield running
    server.down(settings)


@pytest.fixture(scope="session")
def spark(embedded_aws: server.RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The worker's only Spark session, created as the entry points create theirs."""
    from jobs.common.spark_session import spark_session

    settings = load_settings(None, ["spark.master=local[2]"])
    session = spark_session(
        "tests", settings.spark.master, settings.spark.conf, str(tmp_path_factory.mktemp("spark") / "spark.log")
    )
    yield session
    session.stop()


@pytest.fixture
def lake_settings(embedded_aws: server.RunningServer, tmp_path: Path) -> Settings:
    """Settings with a stream, a bucket and a database that only this test uses."""
    return make_lake(tmp_path)


@pytest.fixture(scope="session")
def exports() -> Path:
    """The folder of real exports beside the project."""
    if not EXPORTS.is_dir():
        pytest.skip(f"the real exports are not here: {EXPORTS}")
    return EXPORTS


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Dummy credentials and a region, without an endpoint."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return monkeypatch
