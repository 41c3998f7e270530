"""Rows that were not sent, one JSON object a line: the place, the reason and the content.

`run` writes it, a person reads it and corrects the rows. It holds the content, because standard input cannot be read
twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from jobs.schema.rejections import Rejection


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not sent: file, line (from 1; None: the file has no lines), row (from 0), reason and content.

    The content is the `cells` of a CSV row, if they could be parsed, or the `record` of a JSON lines or Parquet row as
    JSON text.
    """

    file: str
    line: int | None
    row: int
    rejection: Rejection
    cells: tuple[str, ...] | None = None
    record: str | None = None


class RejectsFile:
    """Appends rejected rows; drops them if there is no path. Several processes may append to one file.

    The first row creates the file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def add(self, row: RejectedRow) -> None:
        """Appends the row in one write, so that lines of several processes do not mix."""
        if self.path is None:
            return
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        line = {
            "file": row.file,
            "line": row.line,
            "row": row.row,
            "reason": row.rejection.reason,
            "field": row.rejection.field,
            "value": row.rejection.value,
            **({"cells": row.cells} if row.record is None else {"record": row.record}),
        }
        # ASCII, because text that is not UTF-8 is held as surrogates.
        os.write(self._descriptor, (json.dumps(line) + "\n").encode("ascii"))


def keep_before(path: Path, done: Mapping[str, int]) -> Counter[str]:
    """Removes the rejects of rows that a resumed run reads again. Counts the rejects that stay, by reason."""
    reasons: Counter[str] = Counter()
    if not path.exists():
        return reasons
    draft = path.with_name(path.name + ".part")
    with path.open(encoding="ascii") as lines, draft.open("w", encoding="ascii") as kept:
        for line in lines:
            entry = json.loads(line)
            if entry["row"] < done.get(entry["file"], 0):
                kept.write(line)
                reasons[entry["reason"]] += 1
    draft.replace(path)
    return reasons
