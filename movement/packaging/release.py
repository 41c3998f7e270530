"""Builds a release: everything that a deployment needs, in one folder with a manifest.

A release is named by its version and a hash over every file, such as 0.1.0-5f0c2a91. The files under a name never
change, so to go back is to deploy the older name.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import ConfigurationError
from movement.packaging.archives import FILE, epoch
from movement.packaging.environment import build_environment, copy_environment
from movement.packaging.functions import build_functions
from movement.packaging.lock import read_lock
from movement.packaging.target import Target
from movement.packaging.wheel import build_wheel, source_tree, version_of

MANIFEST = "manifest.json"
EMR_ENVIRONMENT, GLUE_ENVIRONMENT = "environment.tar.gz", "glue-environment.tar.gz"
SCRIPTS = ("jobs/stream_job.py", "jobs/batch_job.py", "jobs/smoke_job.py")
BOOTSTRAP = "emr-bootstrap.sh"

Step = Callable[[str], None]


@dataclass(frozen=True)
class Artifact:
    """A file of the release: SHA-256 in hex, size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Environment:
    """The content of an environment archive, and the platform that it needs."""

    python: str
    processor: str
    interpreter: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """The content of a release. `spark`: the Spark version that it is built for and tested with."""

    release: str
    version: str
    spark: str
    epoch: int
    environments: dict[str, Environment]
    artifacts: dict[str, Artifact]

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        return next(name for name in self.artifacts if name.endswith(".whl"))


def package(out: Path, environments: dict[str, Target | None], *, level: int, step: Step) -> Manifest:
    """Builds a release in the folder `out`, replacing an earlier one.

    `environments`: the target of each archive; None copies the installed packages, for this machine. `step` is called
    with the name of each step. Raises ConfigurationError, or TransientError if pip fails.
    """
    root = source_tree()
    _clear(out)
    step("the wheel")
    wheel = build_wheel(out)
    step("the Lambda functions")
    build_functions(out)
    for script in SCRIPTS:
        _copy(root / script, out / script)
    _copy(root / "bootstrap" / BOOTSTRAP, out / BOOTSTRAP)
    for file in sorted((root / "conf").glob("*.yaml")):
        _copy(file, out / "conf" / file.name)
    held = {}
    for name, target in environments.items():
        step(f"{name}: {_described(target)}")
        if target is None:
            packages = copy_environment(out / name, wheel, level)
            held[name] = Environment(
                ".".join(platform.python_version_tuple()[:2]), platform.machine(), "this machine's", packages
            )
        else:
            packages = build_environment(out / name, wheel, target, level)
            held[name] = Environment(target.python, target.processor, target.interpreter, packages)
    step(MANIFEST)
    (out / MANIFEST).unlink()
    files = sorted(path for path in out.rglob("*") if path.is_file())
    artifacts = {path.relative_to(out).as_posix(): _artifact(path) for path in files}
    version = version_of(wheel)
    digest = hashlib.sha256(json.dumps({name: found.sha256 for name, found in artifacts.items()}).encode()).hexdigest()
    manifest = Manifest(f"{version}-{digest[:8]}", version, _spark(root), epoch(), held, artifacts)
    (out / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Reads a release's manifest and checks every file. Raises ConfigurationError if one differs or is missing."""
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        environments = {name: Environment(**each) for name, each in content.pop("environments").items()}
        artifacts = {name: Artifact(**each) for name, each in content.pop("artifacts").items()}
        manifest = Manifest(environments=environments, artifacts=artifacts, **content)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{folder}: no {MANIFEST}; `movement package --out {folder}` builds one") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"{folder / MANIFEST}: not readable ({error!r}); `movement package --out {folder}` builds it again"
        ) from error
    for name, wanted in manifest.artifacts.items():
        path = folder / name
        if not path.is_file() or _artifact(path) != wanted:
            raise ConfigurationError(
                f"{path}: its content differs from {MANIFEST}; `movement package --out {folder}` builds it again"
            )
    return manifest


def _clear(out: Path) -> None:
    """Empties a folder of an earlier `movement package`; refuses another folder that is not empty."""
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ConfigurationError(f"--out {out}: the folder has other files; choose an empty one")
    if out.is_dir():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    # Marks the folder as ours until the real manifest is written, so that an interrupted build can be repeated.
    (out / MANIFEST).write_text("{}\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(FILE)


def _artifact(path: Path) -> Artifact:
    with path.open("rb") as file:
        return Artifact(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _spark(root: Path) -> str:
    """The Spark version of the lock."""
    return next(pin.version for pin in read_lock(root / "requirements.lock") if pin.name == "pyspark")


def _described(target: Target | None) -> str:
    if target is None:
        return "the installed packages, for this machine"
    return f"Python {target.python} on {target.processor}"
