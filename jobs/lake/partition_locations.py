"""Where a partition's files lie. `<lake>/_layout/<table>.json` names the partitions that lie elsewhere than in their
plain folder (`processed/city=…/start_date=…/`), or are about to move; it changes by compare-and-swap alone.

Who writes puts a batch's files into every live location of their partition (`settle`); who moves a partition
(`moving`) announces the next location here before it looks at the current one. Who reads takes the catalog's
location, or the current one (`live_files`). Why that loses and doubles nothing: docs/adr/0007.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec

from jobs.common.errors import TerminalError, TransientError
from jobs.common.fault_points import fault_point
from jobs.lake.store import Lake
from jobs.lake.task_report import TableName, TaskReport

# Locations that are not a partition's plain folder: beside the tables, for Athena reads all that lies below a
# location, and who reads a table by its folder must find nothing twice.
ASIDE = "relocated"

# What compaction and rebuilding write; a batch's file has the batch's name in front instead.
COMPACTED, REBUILT = "compacted-", "rebuilt-"
OUTPUTS = (COMPACTED, REBUILT)
_BATCH_FILE = re.compile(r"(?P<batch>.+-\d+)-\d{5,}-\d{3,}\.[a-z.]+")


class Announced(msgspec.Struct, frozen=True):
    """The location that a partition is moving to. `switching`: it is complete, and the catalog is being told."""

    location: str
    switching: bool = False


class Retired(msgspec.Struct, frozen=True):
    """A location that the catalog named until `since`; its files are deleted after the grace time."""

    location: str
    since: datetime


class Place(msgspec.Struct, frozen=True):
    """One partition's locations, relative to the lake, each with a `/` at its end."""

    current: str
    next: Announced | None = None
    retired: tuple[Retired, ...] = ()

    @property
    def live(self) -> tuple[str, ...]:
        """The locations that a batch's files must be in before the batch is final; the current one first."""
        return (self.current,) if self.next is None else (self.current, self.next.location)


class Layout(msgspec.Struct, frozen=True):
    """A table's partitions that are not simply in their plain folder. `revision` counts the changes."""

    table: str
    partitions: dict[str, Place] = {}
    revision: int = 0
    version: int = 1

    def place(self, partition: str) -> Place:
        """Where the partition `city=…/start_date=…` lies."""
        return self.partitions.get(partition) or Place(plain(self.table, partition))

    @property
    def elsewhere(self) -> dict[str, str]:
        """Partition → current location, of those that do not lie in their plain folder."""
        return {
            partition: place.current
            for partition, place in self.partitions.items()
            if place.current != plain(self.table, partition)
        }

    def with_places(self, places: Mapping[str, Place]) -> Layout:
        """The next revision; a partition that is at home with nothing pending is not named any more."""
        merged = {**self.partitions, **places}
        named = {
            partition: place
            for partition, place in sorted(merged.items())
            if place != Place(plain(self.table, partition))
        }
        return msgspec.structs.replace(self, partitions=named, revision=self.revision + 1)


class LayoutFile:
    """The layout of one table in a lake."""

    def __init__(self, lake: Lake, table: str) -> None:
        self._lake = lake
        self._table = table
        self._path = f"_layout/{table}.json"

    def read(self) -> Layout:
        """The layout as it stands; one request."""
        return self._decoded(self._lake.get(self._path))

    def change(self, expected: Layout, places: Mapping[str, Place]) -> Layout | None:
        """Puts `places` in, if the layout is still `expected`; None, and nothing written, if it is not."""
        changed = expected.with_places(places)
        content = _encoded(changed)
        if expected.revision == 0:
            done = self._lake.put_if_absent(self._path, content)
        else:
            done = self._lake.replace(self._path, _encoded(expected), content)
        return changed if done else None

    def _decoded(self, content: bytes | None) -> Layout:
        if content is None:
            return Layout(self._table)
        try:
            return msgspec.json.decode(content, type=Layout)
        except msgspec.MsgspecError as error:
            raise TerminalError(
                f"{self._lake.uri}/{self._path} is not readable: {error}. It says where partitions lie; only movement "
                "compact and replay write it. Put its last version back, or use the release that wrote it"
            ) from error


def plain(table: str, partition: str) -> str:
    """The folder where a partition lies unless the layout says otherwise."""
    return f"{table}/{partition}/"


def aside(table: str, partition: str, run: str) -> str:
    """A location of a partition that nothing has ever been written to: `run` is used once."""
    return f"{ASIDE}/{table}/{partition}/{run}/"


def batch_of(path: str) -> str | None:
    """`<query>-<batch>` of a file that a batch wrote; None for one of compaction's, a rebuild's or nobody's."""
    name = path.rpartition("/")[2]
    found = None if name.startswith(OUTPUTS) else _BATCH_FILE.fullmatch(name)
    return found["batch"] if found else None


def _encoded(layout: Layout) -> bytes:
    return msgspec.json.format(msgspec.json.encode(layout))


# A batch's last look at the layout: before it becomes final, its files are in every live location of their partition.

_COPIES = 16  # at once


def settle(lake: Lake, layouts: LayoutFile, report: TaskReport, table: TableName, hold: Callable[[], None]) -> Layout:
    """Copies the batch's files of `table` to the live locations that lack them; the layout that was found.

    `report` then names the files where their partitions lie. One request while nothing moves. `hold` raises where
    another job has taken over; call the ledger's commit next.
    """
    files = [file for file in report.files if file.kind == table]
    there = {file.path for file in files}
    while True:
        # Read anew after each copying: only a reading with nothing lacking says that nothing is.
        layout = layouts.read()
        lacking = [
            (file.path, location + _name(file.path))
            for file in files
            for location in layout.place(file.partition).live
            if location + _name(file.path) not in there
        ]
        if not lacking:
            break
        hold()
        copy_all(lake, lacking)
        there.update(target for _, target in lacking)
        fault_point("settle.copied")
    report.files = sorted(
        (
            msgspec.structs.replace(file, path=layout.place(file.partition).current + _name(file.path))
            if file.kind == table
            else file
            for file in report.files
        ),
        key=lambda file: file.path,
    )
    return layout


def copy_all(lake: Lake, pairs: list[tuple[str, str]]) -> None:
    """Copies files, source → target. Raises TransientError where a source is gone."""
    with ThreadPoolExecutor(_COPIES) as copying:
        for (source, target), found in zip(pairs, copying.map(lambda pair: lake.copy(*pair), pairs), strict=True):
            if not found:
                raise TransientError(
                    f"copy {lake.uri}/{source} to {target}: the file is gone; another job has deleted it. Start again"
                )


def _name(path: str) -> str:
    return path.rpartition("/")[2]
