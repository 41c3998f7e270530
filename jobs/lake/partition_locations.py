"""Where the files of each partition are. Compaction and replay move partitions; this module records the locations.

`<lake>/_layout/<table>.json` names every partition that is not in its default folder (`processed/city=…/start_date=…/`)
or is about to move. It changes only by compare-and-swap. A batch copies its files to every live location of their
partition before it becomes final (`copy_to_live_locations`). docs/adr/0007 shows why no row is lost or doubled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from jobs.common.errors import TerminalError, TransientError
from jobs.common.fault_points import fault_point
from jobs.lake.store import Lake, file_name, parallel_map
from jobs.lake.task_report import TableName, TaskReport

# The folder for moved partitions. It is beside the tables, not in them: Athena reads all files below a location, and
# readers that list a table's folder must not find a row twice.
RELOCATED = "relocated"
# The only table whose partitions move.
MOVING_TABLE: TableName = "processed"

# Name prefixes of files written by compaction and by replay. A batch's file starts with the batch's name instead.
COMPACTED, REBUILT = "compacted-", "rebuilt-"
OUTPUT_PREFIXES = (COMPACTED, REBUILT)
_BATCH_FILE = re.compile(r"(?P<batch>.+-\d+)-\d{5,}-\d{3,}\.[a-z.]+")


class NextLocation(msgspec.Struct, frozen=True):
    """The location that a partition moves to. `switching`: its files are complete and the catalog is being updated."""

    location: str
    switching: bool = False


class OldLocation(msgspec.Struct, frozen=True):
    """A location that the catalog named until `since`. Its files are deleted after the grace time."""

    location: str
    since: datetime


class PartitionLocation(msgspec.Struct, frozen=True):
    """The locations of one partition: paths relative to the lake that end with `/`."""

    current: str
    next: NextLocation | None = None
    retired: tuple[OldLocation, ...] = ()

    @property
    def live(self) -> tuple[str, ...]:
        """The locations that must hold a batch's files before the batch is final; the current one first."""
        return (self.current,) if self.next is None else (self.current, self.next.location)

    @property
    def for_readers(self) -> str:
        """The location that the catalog must name: the next one as soon as its files are complete."""
        return self.next.location if self.next is not None and self.next.switching else self.current

    @property
    def newest(self) -> str:
        """The next location if the partition is moving, else the current one."""
        return self.live[-1]


class Layout(msgspec.Struct, frozen=True):
    """The partitions of one table that are not simply in their default folder. `revision` counts the changes."""

    table: str
    partitions: dict[str, PartitionLocation] = {}
    revision: int = 0
    version: int = 1

    def location(self, partition: str) -> PartitionLocation:
        """The locations of the partition `city=…/start_date=…`."""
        return self.partitions.get(partition) or PartitionLocation(default_folder(self.table, partition))

    def knows(self, partition: str, folder: str) -> bool:
        """Whether the partition's files are, were or will be in the folder."""
        place = self.location(partition)
        retired = (old.location for old in place.retired)
        return folder in (default_folder(self.table, partition), *place.live, *retired)

    @property
    def relocated(self) -> dict[str, str]:
        """The current location of each partition that is not in its default folder."""
        return {
            partition: location.current
            for partition, location in self.partitions.items()
            if location.current != default_folder(self.table, partition)
        }

    def with_locations(self, changes: Mapping[str, PartitionLocation]) -> Layout:
        """The next revision. A partition in its default folder with no move pending is no longer named."""
        named = {
            partition: location
            for partition, location in sorted({**self.partitions, **changes}.items())
            if location != PartitionLocation(default_folder(self.table, partition))
        }
        return msgspec.structs.replace(self, partitions=named, revision=self.revision + 1)


_decode = msgspec.json.Decoder(Layout).decode


class LayoutFile:
    """The stored layout of one table."""

    def __init__(self, lake: Lake, table: str) -> None:
        self._lake = lake
        self._table = table
        self._path = f"_layout/{table}.json"

    def read(self) -> Layout:
        """The current layout; one request."""
        content = self._lake.get(self._path)
        if content is None:
            return Layout(self._table)
        try:
            return _decode(content)
        except msgspec.MsgspecError as error:
            raise TerminalError(
                f"{self._lake.uri}/{self._path} is not readable: {error}. It names the partitions' locations; only "
                "movement compact and replay write it. Restore its last version, or use the release that wrote it"
            ) from error

    def change(self, expected: Layout, changes: Mapping[str, PartitionLocation]) -> Layout | None:
        """Writes `changes` if the layout is still `expected`. Returns the new layout; None if nothing was written."""
        changed = expected.with_locations(changes)
        if expected.revision == 0:
            done = self._lake.put_if_absent(self._path, _encode(changed))
        else:
            done = self._lake.replace(self._path, _encode(expected), _encode(changed))
        return changed if done else None


def read_layout(lake: Lake, table: str) -> Layout:
    """The layout of any table. Sends no request for a table whose partitions never move."""
    return LayoutFile(lake, table).read() if table == MOVING_TABLE else Layout(table)


def check_layout(lake: Lake, table: str) -> None:
    """Raises TerminalError if the layout's file is gone although moved partitions have files.

    Writers would take the default folders for the current ones, and the next compaction would delete the moved files.
    """
    folder = f"{RELOCATED}/{table}/"
    if LayoutFile(lake, table).read().revision == 0 and next(lake.list(folder), None) is not None:
        raise TerminalError(
            f"{lake.uri}/_layout/{table}.json is gone, and {folder} has files of moved partitions: restore the file "
            f"from the bucket's older object versions. Only if the lake was emptied on purpose, delete {folder}"
        )


def point_to_files(
    layout: Callable[[], Layout], partitions: Iterable[str], point: Callable[[Mapping[str, str]], None]
) -> None:
    """Has `point` name each partition's location in the catalog, until a later reading of the layout is the same.

    Needs no lease. A run that moves a partition marks its next location as complete before it points the catalog there.
    If this function overtakes it, either the second reading sees the mark and points again, or the run has still to
    point the catalog itself.
    """
    names, pointed = list(partitions), dict[str, str]()
    while names:
        current = layout()
        wanted = {name: current.location(name).for_readers for name in names}
        changed = {name: location for name, location in wanted.items() if pointed.get(name) != location}
        if not changed:
            return
        point(changed)
        pointed |= changed


def default_folder(table: str, partition: str) -> str:
    """A partition's folder unless the layout names another."""
    return f"{table}/{partition}/"


def relocated_folder(table: str, partition: str, run: str) -> str:
    """A new location for a partition. `run` must be unused, so that the folder has never held a file."""
    return f"{RELOCATED}/{table}/{partition}/{run}/"


def batch_of(path: str) -> str | None:
    """`<query>-<batch>` of a file that a batch wrote; None for files of compaction, of replay or of unknown origin."""
    name = file_name(path)
    found = None if name.startswith(OUTPUT_PREFIXES) else _BATCH_FILE.fullmatch(name)
    return found["batch"] if found else None


def partitions_in_lake(lake: Lake, table: str, columns: Sequence[str]) -> list[str]:
    """The partitions of a table that have a file in their default folder, such as `city=Paris/start_date=2016-09-03`.

    Lists folders only: one request for each folder of a partition column but the last, and 1,000 names.
    """
    level = [""]
    for column in columns:
        below = parallel_map(lambda parent: list(lake.folders(f"{table}/{parent}")), level)
        level = [
            f"{parent}{name}/"
            for parent, names in zip(level, below, strict=True)
            for name in names
            if name.startswith(f"{column}=")
        ]
    return [path.removesuffix("/") for path in level]


def _encode(layout: Layout) -> bytes:
    return msgspec.json.format(msgspec.json.encode(layout))


def copy_to_live_locations(
    lake: Lake, layouts: LayoutFile, report: TaskReport, table: TableName, check_lease: Callable[[], None]
) -> Layout:
    """Copies the batch's files of `table` to the live locations that lack them. Returns the layout that was read.

    Afterwards `report` names each file in its partition's current location. Takes one request if nothing moves.
    `check_lease` raises if another job has taken over. The caller commits the batch to the ledger next.
    """
    files = [file for file in report.files if file.kind == table]
    existing = {file.path for file in files}
    while True:
        # The layout may change during the copy: repeat until one reading finds nothing missing.
        layout = layouts.read()
        missing = [
            (file.path, location + file_name(file.path))
            for file in files
            for location in layout.location(file.partition).live
            if location + file_name(file.path) not in existing
        ]
        if not missing:
            break
        check_lease()
        copy_all(lake, missing)
        existing.update(target for _, target in missing)
        fault_point("locations.copied")
    report.files = sorted(
        (
            msgspec.structs.replace(file, path=layout.location(file.partition).current + file_name(file.path))
            if file.kind == table
            else file
            for file in report.files
        ),
        key=lambda file: file.path,
    )
    return layout


def copy_all(lake: Lake, pairs: list[tuple[str, str]]) -> None:
    """Copies files, given as (source, target). Raises TransientError if a source is gone."""
    copied = parallel_map(lambda pair: lake.copy(*pair), pairs)
    for (source, target), found in zip(pairs, copied, strict=True):
        if not found:
            raise TransientError(
                f"copy {lake.uri}/{source} to {target}: the file is gone; another job has deleted it. Start again"
            )
