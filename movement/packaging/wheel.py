"""This source tree → the wheel, built by setuptools from a clean copy of what belongs in it.

The copy has fixed modes, and neither a checkout's leftovers (caches, `build/`, another `egg-info`) nor its umask get
into the wheel. setuptools is pinned, with its hash, in bootstrap/wheel-build.txt; pip's own build isolation takes
hashes in its newest versions only. SOURCE_DATE_EPOCH gives every file its time.
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
PARTS = ("spark_kinesis", "jobs", "producer", "lambdas", "local", "movement", "conf")
# The PEP 517 hook, without this environment's packages.
_BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
_BESIDE = ("setup.py", "pyproject.toml", "README.md", "requirements.lock")


def source_tree() -> Path:
    """The checkout that this code runs from. Raises ConfigurationError where it is an installed wheel instead."""
    missing = [name for name in (*_BESIDE, "bootstrap/wheel-build.txt") if not (ROOT / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"`movement package` needs a clone of the project: {ROOT} has no {', '.join(missing)}; run it there"
        )
    return ROOT


def build_wheel(folder: Path) -> Path:
    """Builds the wheel into `folder`. Raises TransientError with pip's last words where that fails."""
    root = source_tree()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "source"
        for part in PARTS:
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*")
            shutil.copytree(root / part, copy / part, ignore=ignored)
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copyfile(root / name, copy / name)
        for found in copy.rglob("*"):
            found.chmod(0o755 if found.is_dir() else FILE)
        tools, built = Path(scratch) / "tools", Path(scratch) / "built"
        pins = str(root / "bootstrap" / "wheel-build.txt")
        run_pip(
            ["install", "--no-deps", "--require-hashes", "--target", str(tools), "--requirement", pins],
            "fetch what builds the wheel",
        )
        built.mkdir()
        _run(["-S", "-c", _BUILD, str(built)], "build the wheel", cwd=copy, PYTHONPATH=str(tools))
        (wheel,) = built.glob("*.whl")
        target = folder / wheel.name
        shutil.move(wheel, target)
    target.chmod(FILE)
    return target


def run_pip(arguments: list[str], what: str) -> None:
    """Runs this interpreter's pip. Raises TransientError with its last words where it fails."""
    _run(["-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments], what)


def _run(arguments: list[str], what: str, cwd: Path | None = None, **variables: str) -> None:
    """Runs this interpreter. Raises TransientError with its last words where it fails."""
    done = subprocess.run(  # noqa: S603 (our own interpreter, arguments of our own)
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
        raise TransientError(f"{what}: it failed: {(errors or said or ['it said nothing'])[-1].strip()}")


def version_of(wheel: Path) -> str:
    """The wheel's version, from its name."""
    return wheel.name.split("-")[1]


def dependencies(wheel: Path, extras: tuple[str, ...]) -> list[str]:
    """Names of the distributions that the wheel itself asks for, its `extras` included."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = [name for name in packed.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(packed.read(name))
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    return [
        found.name
        for found in wanted
        if found.marker is None or any(found.marker.evaluate({"extra": extra}) for extra in extras)
    ]
