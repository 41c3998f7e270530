"""Reads the golden lakes that `make_golden.py` has written: stream, catalog and objects, as they were."""

from __future__ import annotations

import json
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any


class Dump:
    """The golden lakes of one release, in a folder beside this module."""

    def __init__(self, folder: Path) -> None:
        self.stream: dict[str, Any] = json.loads((folder / "stream.json").read_text(encoding="utf-8"))
        self.catalog: dict[str, Any] = json.loads((folder / "catalog.json").read_text(encoding="utf-8"))
        with zipfile.ZipFile(folder / "objects.zip") as archive:
            self._objects = {name: archive.read(name) for name in archive.namelist()}

    @property
    def name(self) -> str:
        """The name of the stream and of the bucket."""
        return str(self.stream["name"])

    @property
    def last_arrival(self) -> datetime:
        """When the last record of the stream arrived."""
        arrivals = (record["arrived_at"] for shard in self.stream["shards"] for record in shard["records"])
        return max(map(datetime.fromisoformat, arrivals))

    def objects(self, lake: str) -> dict[str, bytes]:
        """The lake's objects by their path in it; `lake` is its folder in the bucket, such as `delta-lake`."""
        return {
            name.removeprefix(f"{lake}/"): content
            for name, content in self._objects.items()
            if name.startswith(f"{lake}/")
        }


def releases() -> list[Path]:
    """The folder of each release, named for its commit."""
    return [path for path in sorted(Path(__file__).parent.iterdir()) if (path / "objects.zip").exists()]
