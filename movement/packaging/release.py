"""All that a deployment takes, in one folder with a manifest: `movement deploy …` uploads exactly this.

A release's name is the version and the start of a hash over every file: the same content has the same name, and
under a name nothing ever changes, so going back is naming the older one.
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
SCRIPTS = ("jobs/stream_job.py", "jobs/batch_job.py")
BOOTSTRAP = "emr-bootstrap.sh"

Step = Callable[[str], None]


@dataclass(frozen=True)
class Artifact:
    """A file of the release: SHA-256 in hex, size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Environment:
    """What an environment archive holds, and what it needs of the platform."""

    python: str
    processor: str
    interpreter: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """What a release holds. `spark`: the version of the platforms that it is made for and tested with."""

    release: str
    version: str
    spark: str
    epoch: int
    environments: dict[str, Environment]
    artifacts: dict[str, Artifact]

    @property
    def wheel(self) -> str:
        """The wheel's name."""
        return next(name for name in self.artifacts if name.endswith(".whl"))


def package(out: Path, environments: dict[str, Target | None], *, level: int, step: Step) -> Manifest:
    """Builds a release into the folder `out`, over one that stands there.

    `environments`: archive → its target; None copies what is installed here, for this machine. `step` is told what
    is being done. Raises ConfigurationError, or TransientError where pip fails.
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
        step(f"{name}: {_words(target)}")
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
    """The manifest of a packaged release, whose files are as it says. Raises ConfigurationError where they are not."""
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        environments = {name: Environment(**each) for name, each in content.pop("environments").items()}
        artifacts = {name: Artifact(**each) for name, each in content.pop("artifacts").items()}
        manifest = Manifest(environments=environments, artifacts=artifacts, **content)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{folder}: no {MANIFEST}; `movement package --out {folder}` builds one") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"{folder / MANIFEST}: not readable ({error!r}); `movement package --out {folder}` builds it anew"
        ) from error
    for name, wanted in manifest.artifacts.items():
        path = folder / name
        if not path.is_file() or _artifact(path) != wanted:
            raise ConfigurationError(
                f"{path}: not the file that {MANIFEST} names; `movement package --out {folder}` builds it anew"
            )
    return manifest


def _clear(out: Path) -> None:
    """Empties a folder that an earlier `movement package` filled; refuses any other that holds something."""
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ConfigurationError(f"--out {out}: holds other files; choose an empty folder")
    if out.is_dir():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    # Taken for ours until the true one is written, so that a build that was stopped can be done again.
    (out / MANIFEST).write_text("{}\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(FILE)


def _artifact(path: Path) -> Artifact:
    with path.open("rb") as file:
        return Artifact(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _spark(root: Path) -> str:
    """The pinned Spark, from the lock: the version of the platforms that this is made for."""
    return next(pin.version for pin in read_lock(root / "requirements.lock") if pin.name == "pyspark")


def _words(target: Target | None) -> str:
    if target is None:
        return "what is installed here, for this machine"
    return f"Python {target.python} on {target.processor}"
