"""kinesis-mock: a Kinesis server that is nearer to AWS than moto. It comes from npm and needs Node.js.

Like AWS it has 56-digit sequence numbers, ends a closed shard with a null iterator and refuses an AT_TIMESTAMP in the
future. Unlike AWS it lists 9223372036854775807 as the end of every closed shard, and answers an unknown sequence number
with ResourceNotFoundException.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port, wait_for_port

_PACKAGE = "kinesis-local@0.6.2"
_FOLDER = ROOT / ".emulators" / "kinesis-mock"
_PROGRAM = _FOLDER / "node_modules" / "kinesis-local"
# How long the server takes for what AWS takes seconds for.
_DURATIONS = (
    "CREATE_STREAM_DURATION",
    "DELETE_STREAM_DURATION",
    "SPLIT_SHARD_DURATION",
    "MERGE_SHARDS_DURATION",
    "UPDATE_SHARD_COUNT_DURATION",
)


@contextmanager
def running_kinesis_mock() -> Iterator[str]:
    """A server of its own; yields its URL. Skips the test where Node.js or npm is missing."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("kinesis-mock needs Node.js, which is not installed")
    _install()
    port, tls_port = free_port(), free_port()
    settings = {
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(tls_port),
        "KINESIS_MOCK_CERT_PATH": str(_PROGRAM / "server.json"),
        "SHARD_LIMIT": "1000",
        "LOG_LEVEL": "ERROR",
        **dict.fromkeys(_DURATIONS, "10ms"),
    }
    process = subprocess.Popen(
        [node, "--require", str(Path(__file__).with_name("loopback.cjs")), str(_PROGRAM / "main.js")],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # it ignores a SIGTERM while a client is connected
        process.wait(10)


def _install() -> None:
    """Installs the package once. Parallel test processes wait for the first one."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (_PROGRAM / "main.js").exists():
            return
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("kinesis-mock is installed with npm, which is missing")
        command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(_FOLDER), _PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install {_PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
