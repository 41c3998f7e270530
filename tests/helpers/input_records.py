"""The records that `movement produce` makes of travel times' CSV files, by the standard library's reader."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path


def read_records(path: Path) -> Iterator[dict[str, str]]:
    """The records of a file, or of all *.csv of a folder: the cells by column, and the city of the file's name."""
    for file in sorted(path.glob("*.csv")) if path.is_dir() else [path]:
        named = re.fullmatch(r"Travel_Times - (.+)\.csv", file.name)
        with file.open(encoding="utf-8-sig", newline="") as rows:
            for row in csv.DictReader(rows, strict=True):
                yield ({"City": named[1]} if named else {}) | row
