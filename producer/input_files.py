"""Finds the files that `movement produce` sends, and the fields that their names have.

In: paths, folders or `-` for standard input. Out: an `InputFile` each. No content is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from jobs.common.errors import ConfigurationError
from jobs.schema.file_name import FileName
from producer.byte_source import STDIN

Format = Literal["csv", "jsonl", "parquet"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
COMPRESSED = ("", ".gz", ".zst")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input: the file's path (`-` for standard input), its size in bytes (None: unknown), fields and format.

    `fields` are source fields and their values, for records that lack them. `format`: None if the content and the name
    tell it (`readers`).
    """

    path: str
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    size: int | None = None
    format: Format | None = None

    @property
    def identity(self) -> str:
        """The absolute path: equal for all spellings of one file's path."""
        return self.path if self.path == STDIN else str(Path(self.path).resolve())


def find_input_files(
    paths: Sequence[str | Path],
    file_name: FileName | None = None,
    fields: Mapping[str, str] | None = None,
    format: str | None = None,
) -> list[InputFile]:
    """The files at `paths`, each once, in the order of `paths`.

    A folder means its files with one of SUFFIXES, also compressed, sorted by name, without hidden files (macOS' `._*`
    among them); `-` means standard input. `file_name` reads fields from each file's name, and `fields` replaces them.
    Example: for ["exports", "exports/b.csv"] the result has b.csv once.

    Raises ConfigurationError if a path does not exist, a folder has no such file, a file's name is not UTF-8 or
    `format` is unknown.
    """
    known: Format | None = next((one for one in get_args(Format) if one == format), None)
    if format is not None and known is None:
        raise ConfigurationError(f"--format {format}: allowed are {', '.join(get_args(Format))}")
    found: dict[str, InputFile] = {}
    for given in map(str, paths):
        if given == STDIN:
            found[STDIN] = InputFile(STDIN, dict(fields or {}), format=known)
            continue
        path = Path(given)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if _is_input(file.name))
            if not files:
                raise ConfigurationError(
                    f"{given}: the folder has no {', '.join(f'*{suffix}' for suffix in SUFFIXES)} file "
                    f"(or compressed: {', '.join(filter(None, COMPRESSED))}); name the files themselves"
                )
        elif path.exists():
            files = [path]
        else:
            raise ConfigurationError(f"{given}: no such file or folder; check the path")
        for file in files:
            size = file.stat().st_size if file.is_file() else None
            one = InputFile(str(file), _fields(file.name, file_name) | dict(fields or {}), size, known)
            found.setdefault(one.identity, one)
    return list(found.values())


def _is_input(name: str) -> bool:
    endings = tuple(suffix + compressed for suffix in SUFFIXES for compressed in COMPRESSED)
    return name.lower().endswith(endings) and not name.startswith(".")


def _fields(name: str, file_name: FileName | None) -> dict[str, str]:
    try:
        return file_name.read(name) if file_name else {}
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{name!r}: the file's name is not UTF-8; rename the file") from error
