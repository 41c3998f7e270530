"""Distributions and our wheel → a relocatable virtual environment in a .tar.gz, for EMR and for Glue.

It is what `venv-pack` makes of a virtual environment: `bin/python` is a link to the platform's own interpreter,
`pyvenv.cfg` makes `lib/python3.x/site-packages` beside it the place to import from. Neither holds a path of the
machine that built it. Spark is not in it: the platform's own comes by PYTHONPATH. The wheels are those of
requirements.lock, checked against its hashes, for the target's Python, processor and glibc. Formats:
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

# KPL aggregates are a setting, so what takes them apart has to be there.
EXTRAS = ("kpl",)
# Tests of other projects, and what only compiling against Arrow needs: 60 MB that no job opens.
_LEFT_OUT = ("pandas/tests/", "numpy/_core/tests/", "pyarrow/tests/", "pyarrow/include/")


def build_environment(archive: Path, wheel: Path, target: Target, level: int = 6) -> dict[str, str]:
    """Builds the archive from requirements.lock by pip, for a machine other than this one too.

    Returns name → version of what is in it. Raises TransientError where pip fails, ConfigurationError where the
    lock lacks something.
    """
    pins = needed(read_lock(source_tree() / "requirements.lock"), dependencies(wheel, EXTRAS), target)
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text("".join(f"{pin.requirement}\n" for pin in pins), encoding="utf-8")
        packages = Path(scratch) / "packages"
        run_pip(
            ["install", "--require-hashes", "--no-deps", "--no-compile", "--only-binary", ":all:"]
            + ["--ignore-requires-python"]  # older pips ask this Python, not the target; the lock has asked already
            + ["--python-version", target.python, "--implementation", "cp", "--target", str(packages)]
            + [part for tag in target.platforms for part in ("--platform", tag)]
            + ["--requirement", str(wanted)],
            f"install what the jobs need, for Python {target.python} on {target.processor}",
        )
        write_tar_gz(archive, _entries(_files(packages), wheel, target), level)
    return {pin.name: pin.version for pin in pins}


def copy_environment(archive: Path, wheel: Path, level: int = 6) -> dict[str, str]:
    """Builds the archive from the distributions that are installed here: quick, and for this very machine alone.

    Returns name → version of what is in it.
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
    """What pip installed, by its place under site-packages."""
    found = (path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {name: path for path in found if not (name := path.relative_to(packages).as_posix()).startswith("bin/")}


def _entries(files: dict[str, Path], wheel: Path, target: Target) -> Iterator[Entry]:
    """The archive's content. What pip notes of itself (who installed, from where) differs, and is left out."""
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
    """The distributions of `roots` and of all that these ask for, as they are installed here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    asked = list(roots)
    while asked:
        name = str(canonicalize_name(asked.pop()))
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise ConfigurationError(f"{name} is not installed here: `make setup` installs what is locked") from error
        wanted = [Requirement(line) for line in found[name].requires or ()]
        asked += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found
