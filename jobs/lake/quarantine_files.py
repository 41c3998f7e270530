"""Quarantine read back: which of its files count, and the lines of one.

A file counts where a ledger entry names it: what a dead run left behind is written anew by the next one.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime

import msgspec

from jobs.common.errors import TerminalError
from jobs.delivery.ledger import QUERY as BATCH_PATH
from jobs.lake.store import Lake
from jobs.schema.partitions import parse_partition_path
from jobs.write.quarantine import QuarantinedRecord

_READERS = 16


@dataclass(frozen=True, order=True)
class QuarantineFile:
    """A file of a final batch; files sort as their records came: by the batch's start, then task and number."""

    started_at: datetime
    path: str
    rows: int
    batch_path: bool


@dataclass(frozen=True)
class Found:
    """The files that count, in order, and how many were passed over because no ledger entry names them."""

    files: list[QuarantineFile]
    uncommitted: int


class _Written(msgspec.Struct):
    path: str
    rows: int


class _Report(msgspec.Struct):
    files: list[_Written]


class _Entry(msgspec.Struct):
    """What the two kinds of ledger entry have in common, as far as it is needed here."""

    started_at: datetime
    report: _Report


_decode = msgspec.json.Decoder(QuarantinedRecord).decode


def committed_files(lake: Lake, since: date | None = None) -> Found:
    """The files of quarantine that stand in the ledger now. With `since`, only of days from then on.

    Only entries of batches that have files in quarantine are read: most batches reject nothing.
    """
    paths: dict[tuple[str, str], list[str]] = {}
    for path, _ in lake.list("quarantine/"):
        folder, _, name = path.removeprefix("quarantine/").rpartition("/")
        if since is not None and (parse_partition_path(folder)["ingest_date"] or "") < since.isoformat():
            continue
        query, batch = [*name.split("-"), ""][:2]
        paths.setdefault((query, batch), []).append(path)
    with ThreadPoolExecutor(_READERS) as readers:
        contents = list(readers.map(lambda key: lake.get(f"_ledger/{key[0]}/{key[1]}.json"), paths))
    found: list[QuarantineFile] = []
    for (query, _), content in zip(paths, contents, strict=True):
        if content is None:
            continue
        entry = msgspec.json.decode(content, type=_Entry)
        rows = {file.path: file.rows for file in entry.report.files}
        found += [
            QuarantineFile(entry.started_at, path, rows[path], query == BATCH_PATH)
            for path in paths[query, _]
            if path in rows
        ]
    return Found(sorted(found), sum(map(len, paths.values())) - len(found))


def read_lines(lake: Lake, path: str) -> Iterator[QuarantinedRecord]:
    """The lines of a file of quarantine, in order. Raises TerminalError where it is gone, or not as it was written."""
    content = lake.get(path)
    number = 0
    try:
        if content is None:
            raise EOFError("it is gone since it was listed")
        with gzip.open(io.BytesIO(content)) as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 - the error names it
                yield _decode(line)
    except (msgspec.MsgspecError, EOFError, OSError, zlib.error) as error:
        raise TerminalError(
            f"{lake.uri}/{path}: not readable after line {number - 1 if number else 0}: {error}"
        ) from error
