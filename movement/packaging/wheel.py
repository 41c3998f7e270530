"""Builds the wheel of this source tree, with setuptools, from a clean copy.

The copy has fixed modes and leaves out caches, `build/` and `egg-info`, so the wheel does not depend on the checkout.
bootstrap/wheel-build.txt pins setuptools with its hash; only the newest versions of pip's build isolation accept
hashes. SOURCE_DATE_EPOCH sets every file's time.
"""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from jobs.common.errors import ConfigurationError, TransientError
from movement.packaging.archives import FILE, epoch

ROOT = Path(__file__).parents[2]
# The top-level packages of setup.py.
PACKAGES = ("spark_kinesis", "jobs", "producer", "lambdas", "local", "movement", "conf")
# The PEP 517 hook, without this environment's packages.
_BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
_BESIDE = ("setup.py", "pyproject.toml", "README.md", "requirements.lock")


def source_tree() -> Path:
    """The checkout that this code runs from. Raises ConfigurationError if it is an installed wheel instead."""
    missing = [name for name in (*_BESIDE, "bootstrap/wheel-build.txt") if not (ROOT / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"`movement package` needs a clone of the project: {ROOT} has no {', '.join(missing)}; run it there"
        )
    return ROOT


def build_wheel(folder: Path) -> Path:
    """Builds the wheel in `folder`. Raises TransientError with the error of pip or setuptools if that fails."""
    root = source_tree()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "source"
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*")
            shutil.copytree(root / package, copy / package, ignore=ignored)
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copyfile(root / name, copy / name)
        for found in copy.rglob("*"):
            found.chmod(0o755 if found.is_dir() else FILE)
        tools, built = Path(scratch) / "tools", Path(scratch) / "built"
        pins = str(root / "bootstrap" / "wheel-build.txt")
        run_pip(
            ["install", "--no-deps", "--require-hashes", "--target", str(tools), "--requirement", pins],
            "download setuptools for the wheel",
        )
        built.mkdir()
        _run(["-S", "-c", _BUILD, str(built)], "build the wheel", cwd=copy, PYTHONPATH=str(tools))
        (wheel,) = built.glob("*.whl")
        target = folder / wheel.name
        shutil.move(wheel, target)
    target.chmod(FILE)
    return target


def run_pip(arguments: list[str], what: str) -> None:
    """Runs this interpreter's pip. Raises TransientError with its last error if it fails."""
    _run(["-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments], what)


def _run(arguments: list[str], what: str, cwd: Path | None = None, **variables: str) -> None:
    """Runs this interpreter. Raises TransientError with its last error if it fails."""
    done = subprocess.run(  # noqa: S603 (our own interpreter and arguments)
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch()), "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        raise TransientError(f"could not {what}: {(errors or said or ['no message'])[-1].strip()}")


def version_of(wheel: Path) -> str:
    """The wheel's version, from its name."""
    return wheel.name.split("-")[1]


def dependencies(wheel: Path, extras: tuple[str, ...]) -> list[str]:
    """Names of the distributions that the wheel directly depends on, with its `extras`."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = [name for name in packed.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(packed.read(name))
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    return [
        found.name
        for found in wanted
        if found.marker is None or any(found.marker.evaluate({"extra": extra}) for extra in extras)
    ]
