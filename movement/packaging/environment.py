"""Packs the dependencies and our wheel as a relocatable virtual environment, a .tar.gz for EMR or for Glue.

The layout is that of `venv-pack`: `bin/python` links to the platform's interpreter, and `pyvenv.cfg` makes Python
import from `lib/python3.x/site-packages`. It holds no path of the machine that built it, and no Spark: the platform
adds its own to PYTHONPATH. The wheels come from requirements.lock, checked against its hashes, for the target's
Python, processor and glibc. Formats:
https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/using-python-libraries.html
https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-python-virtual-environments.html
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs.common.errors import ConfigurationError
from movement.packaging.archives import Entry, write_tar_gz
from movement.packaging.lock import needed, read_lock
from movement.packaging.target import Target
from movement.packaging.wheel import dependencies, run_pip, source_tree

# KPL aggregation is a setting of the job, so every environment needs the library for it.
EXTRAS = ("kpl",)
# Tests of other projects and Arrow's headers: 60 MB that no job opens.
_LEFT_OUT = ("pandas/tests/", "numpy/_core/tests/", "pyarrow/tests/", "pyarrow/include/")


def build_environment(archive: Path, wheel: Path, target: Target, level: int = 6) -> dict[str, str]:
    """Builds the archive from requirements.lock with pip; the target can be another machine.

    Returns the version of each distribution in it. Raises TransientError if pip fails, ConfigurationError if the lock
    lacks a distribution.
    """
    pins = needed(read_lock(source_tree() / "requirements.lock"), dependencies(wheel, EXTRAS), target)
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text("".join(f"{pin.requirement}\n" for pin in pins), encoding="utf-8")
        packages = Path(scratch) / "packages"
        run_pip(
            ["install", "--require-hashes", "--no-deps", "--no-compile", "--only-binary", ":all:"]
            + [
                "--ignore-requires-python"
            ]  # older pips check this Python instead of the target; the lock is for the target
            + ["--python-version", target.python, "--implementation", "cp", "--target", str(packages)]
            + [part for tag in target.platforms for part in ("--platform", tag)]
            + ["--requirement", str(wanted)],
            f"install the dependencies for Python {target.python} on {target.processor}",
        )
        write_tar_gz(archive, _entries(_files(packages), wheel, target), level)
    return {pin.name: pin.version for pin in pins}


def copy_environment(archive: Path, wheel: Path, level: int = 6) -> dict[str, str]:
    """Builds the archive from the installed distributions: quick, but only for this machine.

    Returns the version of each distribution in it.
    """
    target = Target(
        f"{sys.version_info.major}.{sys.version_info.minor}", os.uname().machine, os.path.realpath(sys.executable)
    )
    found = _installed(dependencies(wheel, EXTRAS))
    files = {
        path.as_posix(): Path(str(path.locate()))
        for distribution in found.values()
        for path in distribution.files or ()
        if not path.as_posix().startswith("..") and path.suffix != ".pyc"
    }
    write_tar_gz(archive, _entries(files, wheel, target), level)
    return {name: distribution.version for name, distribution in found.items()}


def _files(packages: Path) -> dict[str, Path]:
    """The files that pip installed, by their path under site-packages."""
    found = (path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {name: path for path in found if not (name := path.relative_to(packages).as_posix()).startswith("bin/")}


def _entries(files: dict[str, Path], wheel: Path, target: Target) -> Iterator[Entry]:
    """The archive's content, without pip's notes about the installation, which differ from run to run."""
    home = os.path.dirname(target.interpreter)
    settings = f"home = {home}\ninclude-system-site-packages = false\nversion = {target.python}\n"
    yield Entry("pyvenv.cfg", settings.encode())
    yield Entry("bin/python", link=target.interpreter)
    yield Entry("bin/python3", link="python")
    yield Entry(f"bin/python{target.python}", link="python")
    site = f"lib/python{target.python}/site-packages"
    for name, path in files.items():
        if name.startswith(_LEFT_OUT) or name.endswith((".dist-info/RECORD", ".dist-info/INSTALLER", "/REQUESTED")):
            continue
        if not name.endswith("/direct_url.json"):
            yield Entry(f"{site}/{name}", path, executable=os.access(path, os.X_OK))
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            yield Entry(f"{site}/{name}", packed.read(name))


def _installed(roots: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions of `roots` and of everything they depend on."""
    found: dict[str, importlib.metadata.Distribution] = {}
    asked = list(roots)
    while asked:
        name = str(canonicalize_name(asked.pop()))
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise ConfigurationError(f"{name} is not installed here: `make setup` installs it") from error
        wanted = [Requirement(line) for line in found[name].requires or ()]
        asked += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found
