"""Quarantine files: the line format, which files count, and reading one.

A file counts if a ledger entry names it. Other files are leftovers of a run that died; the next run writes those
records again.
"""

from __future__ import annotations

import base64
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

import msgspec

from jobs.common.errors import TerminalError
from jobs.lake.ledger import BATCH_PATH
from jobs.lake.store import Lake, parallel_map
from jobs.schema.partitions import parse_partition_path


class QuarantinedRecord(msgspec.Struct):
    """One line of a quarantine file. `payload` holds the record's bytes in the given `encoding`: utf-8 or base64."""

    reason: str
    stage: str
    field: str | None
    value: str | None
    shard_id: str | None
    sequence_number: str | None
    partition_key: str | None
    arrival_time: datetime
    batch: str
    encoding: str
    payload: str

    @property
    def data(self) -> bytes:
        """The record's exact bytes."""
        return self.payload.encode() if self.encoding == "utf-8" else base64.b64decode(self.payload, validate=True)


@dataclass(frozen=True, order=True)
class QuarantineFile:
    """A file of a final batch. Files sort in record order: by the batch's start, then by task and file number.

    `redacted_with`: the fingerprint of the salt of hashes in it.
    """

    started_at: datetime
    path: str
    rows: int
    batch_path: bool
    redacted_with: str | None = None


@dataclass(frozen=True)
class CommittedFiles:
    """The files that count, in record order, and the number of files that no ledger entry names."""

    files: list[QuarantineFile]
    uncommitted: int


class _File(msgspec.Struct):
    path: str
    rows: int


class _Report(msgspec.Struct):
    files: list[_File]
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    redacted_with: str | None = None


class _Entry(msgspec.Struct):
    """The fields that a streaming batch's entry and a batch-path entry have in common."""

    started_at: datetime
    report: _Report


_decode = msgspec.json.Decoder(QuarantinedRecord).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


def committed_files(lake: Lake, since: date | None = None, reason: str | None = None) -> CommittedFiles:
    """The quarantine files that the ledger names now.

    `since`: only of that day and later. `reason`: only of batches that have rejected a record for this reason.

    Reads only the entries of batches that have quarantine files: most batches reject nothing.
    """
    paths: dict[tuple[str, str], list[str]] = {}
    for path, _ in lake.list("quarantine/"):
        folder, _, name = path.removeprefix("quarantine/").rpartition("/")
        if since is not None and (parse_partition_path(folder)["ingest_date"] or "") < since.isoformat():
            continue
        query, batch = [*name.split("-"), ""][:2]
        paths.setdefault((query, batch), []).append(path)
    contents = parallel_map(lambda key: lake.get(f"_ledger/{key[0]}/{key[1]}.json"), paths)
    files: list[QuarantineFile] = []
    others = 0
    for (query, batch), content in zip(paths, contents, strict=True):
        if content is None:
            continue
        entry = _decode_entry(content)
        if reason is not None and reason not in entry.report.reasons:
            others += len(paths[query, batch])
            continue
        rows = {file.path: file.rows for file in entry.report.files}
        files += [
            QuarantineFile(entry.started_at, path, rows[path], query == BATCH_PATH, entry.report.redacted_with)
            for path in paths[query, batch]
            if path in rows
        ]
    return CommittedFiles(sorted(files), sum(map(len, paths.values())) - len(files) - others)


def read_lines(lake: Lake, path: str) -> Iterator[QuarantinedRecord]:
    """The lines of a quarantine file, in order. Raises TerminalError if the file is missing or damaged."""
    content = lake.get(path)
    number = 0
    try:
        if content is None:
            raise EOFError("it is gone since it was listed")
        with gzip.open(io.BytesIO(content)) as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 - for the error message
                yield _decode(line)
    except (msgspec.MsgspecError, EOFError, OSError, zlib.error) as error:
        raise TerminalError(
            f"{lake.uri}/{path}: not readable after line {number - 1 if number else 0}: {error}"
        ) from error
