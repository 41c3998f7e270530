"""Emulators and streams for the producer's tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.helpers.paths import ROOT

REAL_DATA = Path(os.environ.get("MOVEMENT_REAL_DATA", "/work/shared/data"))
CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}

# moto's own threaded server loses records under concurrent PutRecords: one request at a time does not.
_MOTO = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple, WSGIRequestHandler
WSGIRequestHandler.protocol_version = "HTTP/1.1"
class Quiet(WSGIRequestHandler):
    def log_request(self, *a): pass
app = DomainDispatcherApplication(create_backend_app)
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=False, request_handler=Quiet)
"""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Returns once somebody listens on the port."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"nothing came up on port {port}")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """The URL of a moto server in a process of its own."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _MOTO, str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def kinesalite_endpoint() -> Iterator[str]:
    """The URL of a kinesalite, whose sequence numbers look like AWS's and which bears concurrent requests."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("kinesalite needs Node.js and npm, which are not installed")
    folder = ROOT / ".emulators"
    script = folder / "node_modules" / "kinesalite" / "cli.js"
    if not script.exists():
        install = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), "kinesalite@3.3.3"]
        subprocess.run(install, check=True, capture_output=True)
    port = free_port()
    process = subprocess.Popen(
        [node, str(script), "--port", str(port), "--createStreamMs", "5", "--shardLimit", "100"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


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


class Stream:
    """A stream of an emulator: its name, and what stands on it."""

    def __init__(self, endpoint: str, shards: int) -> None:
        self.name = f"stream-{uuid.uuid4().hex[:12]}"
        self.endpoint = endpoint
        self.client: Any = boto3.client("kinesis", endpoint_url=endpoint, **CREDENTIALS)
        self.client.create_stream(StreamName=self.name, ShardCount=shards)
        self.client.get_waiter("stream_exists").wait(StreamName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    def records(self) -> list[dict[str, Any]]:
        """Every record on the stream, each shard's in order."""
        found = []
        for shard in self.client.list_shards(StreamName=self.name)["Shards"]:
            iterator = self.client.get_shard_iterator(
                StreamName=self.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while True:
                answer = self.client.get_records(ShardIterator=iterator, Limit=10000)
                found += answer["Records"]
                iterator = answer["NextShardIterator"]
                if not answer["Records"] and not answer["MillisBehindLatest"]:
                    break
        return found


@pytest.fixture
def stream(moto_endpoint: str, aws_environment: pytest.MonkeyPatch) -> Stream:
    """A new stream of four shards on moto; AWS_ENDPOINT_URL_KINESIS leads to it."""
    aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", moto_endpoint)
    return Stream(moto_endpoint, 4)


@pytest.fixture(params=["moto", "kinesalite"])
def any_stream(request: pytest.FixtureRequest, aws_environment: pytest.MonkeyPatch) -> Stream:
    """A new stream of four shards on each of the emulators."""
    endpoint: str = request.getfixturevalue(f"{request.param}_endpoint")
    aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", endpoint)
    return Stream(endpoint, 4)


@pytest.fixture
def real_data() -> Path:
    """The folder of the real exports."""
    if not list(REAL_DATA.glob("Travel_Times - *.csv")):
        pytest.skip(f"the real exports are not in {REAL_DATA} (MOVEMENT_REAL_DATA names another folder)")
    return REAL_DATA
