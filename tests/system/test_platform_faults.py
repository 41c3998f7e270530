"""Faults of the machine or the network, met by the whole command: one sentence and the log's path, or it just works."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.server import RunningServer
from tests.helpers.commands import movement, stream_options
from tests.helpers.lakes import make_lake, put, record
from tests.helpers.private_ca import TlsProxy, make_certificate

pytestmark = [pytest.mark.spark, pytest.mark.aws, pytest.mark.nightly]


def stream(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`movement stream` until drained, of a new stream with 200 records."""
    settings = make_lake(folder)
    put(settings, [record(n=n) for n in range(200)])
    options = stream_options(settings, folder, "spark.master=local[1]", *overrides)
    return movement("stream", "--until-drained", *options, cwd=folder, timeout=400)


def check_failure(done: subprocess.CompletedProcess[str], folder: Path) -> str:
    """The error's text, once it is a line of its own with the log's path after it."""
    assert done.returncode == 1, done.stdout + done.stderr
    for noise in ("Traceback", "\x1b", "\tat ", "Exception"):
        assert noise not in done.stderr
    error, log = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert log == f"log: {folder / 'stream.log'}"
    return error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("setting", ["lake", "stream_job.checkpoint"])
def test_a_full_disk(embedded_aws: object, tmp_path: Path, small_disk: Path, setting: str) -> None:
    (small_disk / "other").write_bytes(bytes(252 * 1024))
    error = check_failure(stream(tmp_path, f"{setting}={small_disk / 'x'}"), tmp_path)
    assert "No space left on device" in error
    assert "ree space" in error


def test_a_checkpoint_that_cannot_be_written(embedded_aws: object, tmp_path: Path) -> None:
    error = check_failure(stream(tmp_path, "stream_job.checkpoint=/sys/movement-checkpoint"), tmp_path)
    assert "/sys/movement-checkpoint" in error
    assert "right to write" in error


def test_a_checkpoint_in_a_missing_bucket(embedded_aws: object, tmp_path: Path) -> None:
    error = check_failure(stream(tmp_path, "stream_job.checkpoint=s3://no-such-bucket-here/ck"), tmp_path)
    assert "no-such-bucket-here" in error
    assert "does not exist" in error


def test_a_private_ca_is_known_to_boto3_s3a_and_delta_rs(
    embedded_aws: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    with TlsProxy(embedded_aws.endpoint, certificate) as proxy:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.certificate))
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        done = stream(tmp_path, "sink.format=delta")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Drained: 200 records" in done.stdout
