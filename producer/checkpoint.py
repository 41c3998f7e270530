"""Where a run of `movement produce` is, on disk, so that one that was killed can go on: `--resume`.

For each file it holds how many of its rows, from the first on, were accepted or rejected, without a gap. What
was accepted after that and before a kill is sent again on resume: nothing is missing, a little may be doubled
(what half a second carries). A run that ends well leaves no journal behind.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.common.errors import ConfigurationError
from producer.csv_reader import Export

VERSION = 1
SAVE_EVERY_SECONDS = 0.5


def journal_folder(state: Path, stream: str, exports: Sequence[Export]) -> Path:
    """The folder for runs of these files to this stream; each process of a run has a file of its own in it."""
    names = sorted(export.identity for export in exports)
    digest = hashlib.sha256("\n".join([stream, *names]).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return state / "produce" / f"{stream}-{digest}"


def read_journal(folder: Path, exports: Sequence[Export]) -> dict[str, int]:
    """Path → rows that need not be sent again. Raises ConfigurationError where nothing was left, or a file changed."""
    found: dict[str, int] = {}
    parts = sorted(folder.glob("*.json"))
    if not parts:
        raise ConfigurationError(
            "--resume: there is nothing to go on with: no run of these files to this stream was cut short "
            f"(looked in {folder}); run it without --resume"
        )
    by_identity = {export.identity: export for export in exports}
    for part in parts:
        content = json.loads(part.read_text(encoding="utf-8"))
        if content.get("version") != VERSION:
            raise ConfigurationError(f"{part}: of version {content.get('version')}; this program reads {VERSION}")
        for identity, entry in content["files"].items():
            export = by_identity[identity]
            if entry["rows"] and entry["stamp"] != _stamp(export):
                raise ConfigurationError(
                    f"--resume: {export.path} was changed since the run was cut short; send it anew without --resume"
                )
            found[export.path] = max(found.get(export.path, 0), int(entry["rows"]))
    return found


def has_journal(folder: Path) -> bool:
    """Whether a run has left something to go on from."""
    return any(folder.glob("*.json"))


def discard(folder: Path) -> None:
    """Removes what earlier runs left in the folder."""
    for part in (*folder.glob("*.json"), *folder.glob("*.json.part")):
        part.unlink()
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _stamp(export: Export) -> list[int] | None:
    if export.size is None:
        return None
    return [export.size, Path(export.path).stat().st_mtime_ns]


@dataclass
class RunCheckpoint:
    """Writes one process's part. `advance` is cheap; the file is replaced, whole, twice a second at most."""

    folder: Path
    exports: Sequence[Export]
    part: int = 0
    done: dict[str, int] = field(default_factory=dict)
    _saved: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stamps = {export: _stamp(export) for export in self.exports}
        self.save()

    def advance(self, path: str, rows: int) -> None:
        """The first `rows` rows of the file need not be sent again."""
        self.done[path] = rows
        if time.monotonic() - self._saved >= SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Replaces the file."""
        files: Mapping[str, Any] = {
            export.identity: {"rows": self.done.get(export.path, 0), "stamp": stamp}
            for export, stamp in self._stamps.items()
        }
        target = self.folder / f"{self.part}.json"
        draft = target.with_suffix(".json.part")
        draft.write_text(json.dumps({"version": VERSION, "files": files}), encoding="utf-8")
        draft.replace(target)
        self._saved = time.monotonic()
