"""Emulators of Kinesis and a Spark session for the source's tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from jobs.settings.settings import load_settings
from local import server
from tests.helpers.emulators import Emulator, Stream
from tests.helpers.paths import ROOT

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session", autouse=True)
def _aws_environment() -> Iterator[None]:
    """No test may reach AWS: fixed credentials, and no profile."""
    before = {key: os.environ.get(key) for key in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    yield
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{what} does not answer on port {port}")


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An embedded AWS of its own, as `movement local up` starts it."""
    settings = load_settings(None, [f"local.state_dir={tmp_path_factory.mktemp('moto')}", f"local.port={_free_port()}"])
    running = server.up(settings)
    yield Emulator("moto", running.endpoint)
    server.down(settings)


@pytest.fixture(scope="session")
def kinesalite() -> Iterator[Emulator]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("kinesalite needs Node.js, which is not installed")
    script = ROOT / ".emulators" / "node_modules" / "kinesalite" / "cli.js"
    if not script.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("kinesalite is installed with npm, which is missing")
        subprocess.run(
            [
                npm,
                "install",
                "--no-save",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(ROOT / ".emulators"),
                "kinesalite@3.3.3",
            ],
            check=True,
            capture_output=True,
        )
    port = _free_port()
    process = subprocess.Popen(
        [
            node,
            "--require",
            str(ROOT / "tests" / "helpers" / "keep_serving.cjs"),
            str(script),
            "--port",
            str(port),
            "--createStreamMs",
            "5",
            "--updateStreamMs",
            "5",
            "--shardLimit",
            "1000",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process, "kinesalite")
        yield Emulator("kinesalite", f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["moto", "kinesalite"])
def emulator(request: pytest.FixtureRequest) -> Emulator:
    """Each test runs against both: where they disagree, the source must not care."""
    found: Emulator = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def new_stream(emulator: Emulator) -> Iterator[Callable[..., Stream]]:
    """Makes streams that are deleted afterwards: `new_stream(shards=4)`."""
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
