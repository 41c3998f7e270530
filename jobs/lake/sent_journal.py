"""The journal of `movement replay --quarantine`: which quarantine lines are back on the stream.

`<lake>/_replay/quarantine/<run>/<chunk>.json` is written before a chunk of lines is sent, with the lines as `open`, and
again afterwards with the result. So a run that is killed leaves at most one chunk open: its lines may be on the stream
or not. They are sent again, because duplicates can be recognised and lost records cannot (docs/adr/0010).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby

import msgspec

from jobs.common.errors import AlreadyRunningError
from jobs.lake.lease import Lease
from jobs.lake.store import Lake, parallel_map

JOURNAL = "_replay/quarantine/"

# A line: its file's path in the lake, and its number in the file. The first line is number 0.
Line = tuple[str, int]
# Ranges of lines by file. [(0, 2), (5, 5)] are the lines 0, 1, 2 and 5.
Ranges = dict[str, list[tuple[int, int]]]


class ChunkEntry(msgspec.Struct):
    """Lines that are sent together: `sent` are on the stream, `open` may be."""

    run: str
    stream: str
    at: datetime
    sent: Ranges = {}
    open: Ranges = {}
    version: int = 1


_decode = msgspec.json.Decoder(ChunkEntry).decode


class SentLines:
    """The lines that the runs so far have sent. Reads the journal once.

    `since`: leaves out runs that started earlier. `closed`: the entries that earlier instances have read and that no
    longer change, by path; they are not read again, and new ones are added.
    """

    def __init__(self, lake: Lake, since: datetime | None = None, closed: dict[str, ChunkEntry] | None = None) -> None:
        self._sent: Ranges = {}
        self._open: Ranges = {}
        known = {} if closed is None else closed
        first = JOURNAL + (_run_name(since) if since else "")
        paths = [path for path, _ in lake.list(JOURNAL) if path >= first]
        unread = [path for path in paths if path not in known]
        read = {
            path: _decode(content or b"") for path, content in zip(unread, parallel_map(lake.get, unread), strict=True)
        }
        known |= {path: entry for path, entry in read.items() if not entry.open}
        for entry in (read[path] if path in read else known[path] for path in paths):
            for ranges, found in ((self._sent, entry.sent), (self._open, entry.open)):
                for path, lines in found.items():
                    ranges.setdefault(path, []).extend(lines)

    @property
    def files(self) -> frozenset[str]:
        """The quarantine files with a line that is, or may be, on the stream."""
        return frozenset((*self._sent, *self._open))

    def of(self, path: str) -> tuple[set[int], set[int]]:
        """The lines of a file that are on the stream, and the lines that may be: a run died while it sent them."""
        sent = set(_numbers(self._sent.get(path, ())))
        return sent, set(_numbers(self._open.get(path, ()))) - sent


class JournalChunk:
    """One chunk of a run in the journal."""

    def __init__(self, lake: Lake, path: str, entry: ChunkEntry) -> None:
        self._lake, self._path, self._entry = lake, path, entry
        self._stored = msgspec.json.encode(entry)

    def open(self) -> None:
        """Notes that the lines are about to be sent."""
        if not self._lake.put_if_absent(self._path, self._stored):
            raise AlreadyRunningError(
                f"{self._lake.uri}/{self._path} exists already: another run has the same name. Run this again"
            )

    def close(self, sent: Iterable[Line], in_doubt: Iterable[Line] = ()) -> None:
        """Notes the result. Lines in neither argument were not sent."""
        self._entry.sent, self._entry.open = as_ranges(sent), as_ranges(in_doubt)
        content = msgspec.json.encode(self._entry)
        if not self._lake.replace(self._path, self._stored, content):
            raise AlreadyRunningError(
                f"{self._lake.uri}/{self._path} was changed by another run meanwhile. Run one replay at a time"
            )


class JournalRun:
    """A run's part of the journal. Run names sort by time."""

    def __init__(self, lake: Lake, stream: str) -> None:
        self._lake, self._stream, self._chunks = lake, stream, 0
        self.name = f"{_run_name(datetime.now(UTC))}-{uuid.uuid4().hex[:8]}"

    def chunk(self, lines: Iterable[Line]) -> JournalChunk:
        """The next chunk, with these lines. Writes nothing yet."""
        self._chunks += 1
        entry = ChunkEntry(self.name, self._stream, datetime.now(UTC), open=as_ranges(lines))
        return JournalChunk(self._lake, f"{JOURNAL}{self.name}/{self._chunks:06d}.json", entry)


def replay_lease(lake: Lake) -> Lease:
    """Only one replay of a lake runs at a time, whether of quarantine or of raw."""
    return Lease(
        lake,
        f"quarantine of {lake.uri}",
        holder="replay of the",
        remedy="wait for its end, then run this one again",
    )


def as_ranges(lines: Iterable[Line]) -> Ranges:
    """Lines as ranges by file."""
    ranges: Ranges = {}
    # Within consecutive numbers, number minus position is constant.
    for (path, _), group in groupby(enumerate(sorted(lines)), key=lambda item: (item[1][0], item[1][1] - item[0])):
        numbers = [number for _, (_, number) in group]
        ranges.setdefault(path, []).append((numbers[0], numbers[-1]))
    return ranges


def _run_name(started: datetime) -> str:
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _numbers(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    return (number for first, last in ranges for number in range(first, last + 1))
