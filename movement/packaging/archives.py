"""Reproducible tar and zip files: sorted names, one time, fixed modes, no owner.

The bytes of gzip depend on zlib: another version of it may compress the same content differently.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

# zip files cannot hold an earlier time. SOURCE_DATE_EPOCH: https://reproducible-builds.org/specs/source-date-epoch/
EARLIEST = 315532800
FILE, PROGRAM = 0o644, 0o755


@dataclass(frozen=True)
class Entry:
    """A file (`content`: its bytes or its path) or a symbolic link (`link`: its target); `name` is in the archive."""

    name: str
    content: bytes | Path = b""
    link: str | None = None
    executable: bool = False

    def read(self) -> bytes:
        """The file's bytes."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content

    @property
    def mode(self) -> int:
        """The file's permissions."""
        return PROGRAM if self.executable else FILE


def epoch() -> int:
    """The time of every file, in seconds since 1970: SOURCE_DATE_EPOCH, or 1980-01-01."""
    return max(int(os.environ.get("SOURCE_DATE_EPOCH") or EARLIEST), EARLIEST)


def write_tar_gz(target: Path, entries: Iterable[Entry], level: int = 6) -> None:
    """Writes a .tar.gz, by rename. Raises ValueError if two entries have the same name."""
    draft = target.with_name(target.name + ".part")
    with (
        draft.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=level, mtime=epoch()) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in _in_order(entries):
            info = tarfile.TarInfo(entry.name)
            info.mtime, info.mode = epoch(), entry.mode
            if entry.link is not None:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
                tar.addfile(info)
            else:
                content = entry.read()
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    draft.replace(target)


def write_zip(target: Path, entries: Iterable[Entry]) -> None:
    """Writes a .zip of files, by rename. Raises ValueError if two entries have the same name."""
    draft = target.with_name(target.name + ".part")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for entry in _in_order(entries):
            info = zipfile.ZipInfo(entry.name, _zip_time(epoch()))
            info.create_system = 3  # Unix; otherwise the mode is ignored
            info.external_attr = (0o100000 | entry.mode) << 16
            packed.writestr(info, entry.read(), zipfile.ZIP_DEFLATED, compresslevel=9)
    draft.replace(target)


def _in_order(entries: Iterable[Entry]) -> list[Entry]:
    ordered = sorted(entries, key=lambda entry: entry.name)
    for before, after in pairwise(ordered):
        if before.name == after.name:
            raise ValueError(f"{after.name}: two entries have this name")
    return ordered


def _zip_time(seconds: int) -> tuple[int, int, int, int, int, int]:
    moment = time.gmtime(seconds)
    return moment.tm_year, moment.tm_mon, moment.tm_mday, moment.tm_hour, moment.tm_min, moment.tm_sec
