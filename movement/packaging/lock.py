"""Selects from requirements.lock the pinned distributions that a target needs.

The lock is for all platforms and holds every extra. Its `# via` comments name the dependents of each distribution, so
the jobs' part follows without a package index. Markers are evaluated for the target, because pip would evaluate them
for the Python that runs pip (https://github.com/pypa/pip/issues/11664).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from jobs.common.errors import ConfigurationError
from movement.packaging.target import Target

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^ ;\\]+)(?: *; *(?P<marker>[^\\]+?))? *\\?$")


@dataclass(frozen=True)
class Pin:
    """One pinned distribution, its hashes (`sha256:…`), and the names of the distributions that depend on it."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]
    via: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """A line for pip with hashes, without the marker, which is already evaluated."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={digest}" for digest in self.hashes)])


def read_lock(file: Path) -> list[Pin]:
    """Reads a lock of `uv pip compile --generate-hashes`. Raises ConfigurationError if the file is something else."""
    pins: list[Pin] = []
    for block in re.split(r"\n(?=\S)", file.read_text(encoding="utf-8")):
        first, *rest = block.rstrip().splitlines() or [""]
        if not first or first.startswith("#"):
            continue
        found = _PIN.match(first)
        if found is None:
            raise ConfigurationError(
                f"{file}: '{first}' is not a pinned requirement; `make lock` writes the file again"
            )
        hashes = tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block))
        if not hashes:
            raise ConfigurationError(f"{file}: {first.split()[0]} has no hash; `make lock` writes the file again")
        comments = [line.strip().removeprefix("#").strip() for line in rest if line.strip().startswith("#")]
        via = [word for line in comments if (word := line.removeprefix("via").strip().split(" ")[0])]
        pins.append(
            Pin(
                canonicalize_name(found["name"]),
                found["version"],
                found["marker"],
                hashes,
                tuple(canonicalize_name(name) for name in via),
            )
        )
    return pins


def needed(pins: Iterable[Pin], roots: Iterable[str], target: Target) -> list[Pin]:
    """The pins of `roots` and of everything they depend on, on the target, sorted by name.

    Raises ConfigurationError if the lock has no pin of a root for the target.
    """
    fitting = {pin.name: pin for pin in pins if pin.marker is None or Marker(pin.marker).evaluate(dict(target.markers))}
    chosen: set[str] = set()
    asked = [str(canonicalize_name(root)) for root in roots]
    for root in asked:
        if root not in fitting:
            raise ConfigurationError(
                f"requirements.lock has no {root} for Python {target.python}; `make lock` writes the file again"
            )
    while asked:
        name = asked.pop()
        if name not in chosen:
            chosen.add(name)
            asked += [pin.name for pin in fitting.values() if name in pin.via]
    return [fitting[name] for name in sorted(chosen)]
