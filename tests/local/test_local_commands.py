"""`movement local up | down | env` on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.settings.settings import Settings
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.aws

MOVEMENT = [sys.executable, "-c", "from movement.cli.main import main; main()", "local"]


class Terminal:
    """Runs `movement local …` as a process in one folder, with the settings' port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environ["PYTHONPATH"] = str(ROOT)

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MOVEMENT, *arguments],
            cwd=self.folder,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def movement_local(tmp_path: Path, settings: Settings) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, settings.local.port)
    yield terminal
    terminal("down")


def test_up_env_and_down_work_together_from_one_folder(movement_local: Terminal) -> None:
    started = movement_local("up", "--port", str(movement_local.port), "--json", "up.json")
    assert started.returncode == 0, started.stderr
    assert f"http://127.0.0.1:{movement_local.port}" in started.stdout
    assert str(movement_local.folder / ".movement" / "embedded-aws.log") in started.stdout
    assert started.stdout.splitlines()[-2:] == ['  eval "$(movement local env)"', "  movement produce PATH"]
    result = json.loads((movement_local.folder / "up.json").read_text())
    assert result["endpoint"] == f"http://127.0.0.1:{movement_local.port}"
    assert result["created"] == ["stream", "bucket", "database"]
    assert (result["stream"], result["lake"], result["database"]) == (
        "uber-movement-stream",
        "s3://movement-lake/lake",
        "uber_movement",
    )

    printed = movement_local("env")
    assert printed.returncode == 0
    assert all(line.startswith("export AWS_") for line in printed.stdout.splitlines())
    program = 'eval "$MOVEMENT_ENV"; exec "$PYTHON" -c "import boto3; print(boto3.client(\'kinesis\').list_streams())"'
    listed = subprocess.run(
        ["bash", "-c", program],
        env=movement_local.environ | {"MOVEMENT_ENV": printed.stdout, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "uber-movement-stream" in listed.stdout

    assert movement_local("down").returncode == 0
    assert not (movement_local.folder / ".movement").exists()
    assert "not running" in movement_local("down").stdout


def test_up_uses_its_own_server_and_ignores_the_environment(movement_local: Terminal) -> None:
    hostile = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_KINESIS": "http://127.0.0.1:9",
        "AWS_PROFILE": "no-such-profile",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    started = movement_local("up", "--port", str(movement_local.port), **hostile)
    assert started.returncode == 0, started.stderr
    assert "(new)" in started.stdout


def test_env_keeps_a_services_own_endpoint_and_says_so_beside_the_exports(movement_local: Terminal) -> None:
    movement_local("up", "--port", str(movement_local.port))
    printed = movement_local("env", AWS_ENDPOINT_URL_KINESIS="http://127.0.0.1:4577", AWS_PROFILE="mine")
    assert all(line.startswith("export ") for line in printed.stdout.splitlines())
    assert "AWS_ENDPOINT_URL_KINESIS stays set" in printed.stderr
    assert "AWS_PROFILE stays set" in printed.stderr


def test_env_without_a_server_prints_no_exports_and_fails(movement_local: Terminal) -> None:
    printed = movement_local("env")
    assert printed.returncode == 1
    assert printed.stdout == ""
    assert "movement local up" in printed.stderr


def test_up_on_another_port_while_a_server_runs_prints_one_line(movement_local: Terminal) -> None:
    movement_local("up", "--port", str(movement_local.port))
    other = movement_local("up", "--port", "1")
    assert other.returncode == 1
    assert f"already runs, on port {movement_local.port}" in " ".join(other.stderr.split())
    assert movement_local("up").returncode == 0
