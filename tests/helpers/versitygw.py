"""versitygw: an S3 server with real conditional writes, which keeps objects in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port, wait_for_port


def versitygw_program() -> Path:
    """The installed program. CI and `make nightly` build it, which takes minutes; elsewhere the test is skipped."""
    program = ROOT / ".emulators" / "bin" / "versitygw"
    if not program.exists():
        if not os.environ.get("CI") and not os.environ.get("NIGHTLY"):
            pytest.skip("versitygw is not installed: bootstrap/versitygw.sh builds it, which takes minutes")
        if shutil.which("go") is None:
            pytest.skip("versitygw is built with Go, which is not installed")
        built = subprocess.run(
            [str(ROOT / "bootstrap" / "versitygw.sh")], capture_output=True, text=True, timeout=900, check=False
        )
        if built.returncode != 0:
            pytest.skip(f"bootstrap/versitygw.sh cannot build versitygw: {built.stderr.strip()[-300:]}")
    return program


@contextmanager
def versitygw(folder: Path) -> Iterator[str]:
    """Serves S3 while the block runs; yields its address. The credentials are those of the environment."""
    port = free_port()
    places = [folder / name for name in ("objects", "sidecar")]
    for place in places:
        place.mkdir(parents=True)
    objects, sidecar = map(str, places)
    process = subprocess.Popen(
        [str(versitygw_program()), "--port", f"127.0.0.1:{port}", "posix", "--sidecar", sidecar, objects],
        env=os.environ
        | {
            "ROOT_ACCESS_KEY": os.environ["AWS_ACCESS_KEY_ID"],
            "ROOT_SECRET_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
