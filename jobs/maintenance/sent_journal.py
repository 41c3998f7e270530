"""Which lines of quarantine are back on the stream: the journal of `movement replay --quarantine`, in the lake.

`_replay/quarantine/<run>/<chunk>.json` is written before a chunk of lines is sent, naming them as `open`, and again
with what became of them. So a run that is killed leaves at most one chunk open: those lines may be on the stream or
not. They are sent again, because a record twice can be told and a record lost cannot (docs/adr/0010).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby

import msgspec

from jobs.common.errors import AlreadyRunningError
from jobs.lake.store import Lake, parallel_map

FOLDER = "_replay/quarantine/"

# A line: its file's path in the lake, and its number in it from 0.
Line = tuple[str, int]
Ranges = dict[str, list[tuple[int, int]]]


class ChunkEntry(msgspec.Struct):
    """Lines sent together. `sent` and `open`: file → ranges of lines [first, last], both included."""

    run: str
    stream: str
    at: datetime
    sent: Ranges = {}
    open: Ranges = {}
    version: int = 1


class SentLines:
    """What all runs so far have sent: read once, when a run starts."""

    def __init__(self, lake: Lake) -> None:
        self._sent: Ranges = {}
        self._open: Ranges = {}
        paths = [path for path, _ in lake.list(FOLDER)]
        for content in parallel_map(lake.get, paths):
            entry = msgspec.json.decode(content or b"", type=ChunkEntry)
            for ranges, found in ((self._sent, entry.sent), (self._open, entry.open)):
                for path, lines in found.items():
                    ranges.setdefault(path, []).extend(lines)

    def of(self, path: str) -> tuple[set[int], set[int]]:
        """The lines of a file that are on the stream, and those that may be: a run died while it sent them."""
        sent = set(_numbers(self._sent.get(path, ())))
        return sent, set(_numbers(self._open.get(path, ()))) - sent


class Chunk:
    """One chunk of a run in the journal."""

    def __init__(self, lake: Lake, path: str, entry: ChunkEntry) -> None:
        self._lake, self._path, self._entry = lake, path, entry
        self._written = msgspec.json.encode(entry)

    def open(self) -> None:
        """Notes that its lines are about to be sent."""
        if not self._lake.put_if_absent(self._path, self._written):
            raise AlreadyRunningError(
                f"{self._lake.uri}/{self._path} is there already: another run has this one's name"
            )

    def close(self, sent: Iterable[Line], in_doubt: Iterable[Line] = ()) -> None:
        """Notes what became of them; a line in neither was not sent."""
        self._entry.sent, self._entry.open = as_ranges(sent), as_ranges(in_doubt)
        content = msgspec.json.encode(self._entry)
        if not self._lake.replace(self._path, self._written, content):
            raise AlreadyRunningError(f"{self._lake.uri}/{self._path} was changed by another run meanwhile")


class Run:
    """A run's part of the journal; its name sorts by time."""

    def __init__(self, lake: Lake, stream: str) -> None:
        self._lake, self._stream, self._chunks = lake, stream, 0
        self.name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"

    def chunk(self, lines: Iterable[Line]) -> Chunk:
        """The next chunk, of these lines; nothing is written yet."""
        self._chunks += 1
        entry = ChunkEntry(self.name, self._stream, datetime.now(UTC), open=as_ranges(lines))
        return Chunk(self._lake, f"{FOLDER}{self.name}/{self._chunks:06d}.json", entry)


def as_ranges(lines: Iterable[Line]) -> Ranges:
    """Lines by file, as ranges."""
    found: Ranges = {}
    # What stays the same within a run of consecutive numbers: the number less its place.
    for (path, _), group in groupby(enumerate(sorted(lines)), key=lambda item: (item[1][0], item[1][1] - item[0])):
        numbers = [number for _, (_, number) in group]
        found.setdefault(path, []).append((numbers[0], numbers[-1]))
    return found


def _numbers(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    return (number for first, last in ranges for number in range(first, last + 1))
