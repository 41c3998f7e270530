"""Saves the progress of a `movement produce` run, so that `--resume` continues an interrupted run.

`run` reports the rows that are done; `produce` reads them back. For each file the checkpoint has the number of rows
from its start that are all accepted or rejected. Rows accepted after the last save are sent again after a kill: no row
is missing, and at most half a second's rows are duplicated. A run that ends normally deletes its checkpoint.
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
from producer.input_files import InputFile

_VERSION = 1
_SAVE_EVERY_SECONDS = 0.5


def checkpoint_folder(state: Path, stream: str, exports: Sequence[InputFile]) -> Path:
    """The folder for runs of these files to this stream. Each process of a run has its own file in it."""
    names = sorted(export.identity for export in exports)
    digest = hashlib.sha256("\n".join([stream, *names]).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return state / "produce" / f"{stream}-{digest}"


def read_checkpoint(folder: Path, exports: Sequence[InputFile]) -> dict[str, int]:
    """The number of rows that are done, by the path of the file: with 5, a resumed run starts at row 5, counted from 0.

    Raises ConfigurationError if there is no checkpoint, if its version is unknown, or if a file has changed since.
    """
    found: dict[str, int] = {}
    parts = sorted(folder.glob("*.json"))
    if not parts:
        raise ConfigurationError(
            "--resume: there is nothing to go on with: no run of these files to this stream was interrupted "
            f"(looked in {folder}); run it without --resume"
        )
    by_identity = {export.identity: export for export in exports}
    for part in parts:
        content = json.loads(part.read_text(encoding="utf-8"))
        if content.get("version") != _VERSION:
            raise ConfigurationError(
                f"{part}: its version is {content.get('version')}; this program reads version {_VERSION}"
            )
        for identity, entry in content["files"].items():
            export = by_identity[identity]
            if entry["rows"] and entry["stamp"] != _stamp(export):
                raise ConfigurationError(
                    f"--resume: {export.path} was changed since the run was interrupted; run it without --resume"
                )
            found[export.path] = max(found.get(export.path, 0), int(entry["rows"]))
    return found


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder has the checkpoint of an interrupted run."""
    return any(folder.glob("*.json"))


def discard_checkpoint(folder: Path) -> None:
    """Removes the checkpoint files of all processes."""
    for part in (*folder.glob("*.json"), *folder.glob("*.json.part")):
        part.unlink()
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _stamp(export: InputFile) -> list[int] | None:
    if export.size is None:
        return None
    return [export.size, Path(export.path).stat().st_mtime_ns]


@dataclass
class RunCheckpoint:
    """The checkpoint file of one process, number `part`. `done`: the number of rows that are done, by path."""

    folder: Path
    exports: Sequence[InputFile]
    part: int = 0
    done: dict[str, int] = field(default_factory=dict)
    _saved: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stamps = {export: _stamp(export) for export in self.exports}
        self.save()

    def advance(self, path: str, rows: int) -> None:
        """Marks the first `rows` rows of the file as done. Saves at most twice a second."""
        self.done[path] = rows
        if time.monotonic() - self._saved >= _SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Replaces the checkpoint file."""
        files: Mapping[str, Any] = {
            export.identity: {"rows": self.done.get(export.path, 0), "stamp": stamp}
            for export, stamp in self._stamps.items()
        }
        target = self.folder / f"{self.part}.json"
        draft = target.with_suffix(".json.part")
        draft.write_text(json.dumps({"version": _VERSION, "files": files}), encoding="utf-8")
        draft.replace(target)
        self._saved = time.monotonic()
