"""Moves partitions to new locations, so that a reader through the catalog sees either the old files or the new ones.

Steps for each partition: name the next location in the layout (fault point `announced`), write the current files'
rows there (`filled`), wait until running batches have written there too (`complete`), point the catalog there
(`relocated`), make it the current location (`switched`). The old files stay for the grace time. If a run dies, the
layout tells the next run which moves to finish and which to drop. docs/adr/0007 has the proof.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

import msgspec

from jobs.common.errors import AlreadyRunningError
from jobs.common.fault_points import fault_point
from jobs.lake.ledger import final_batches, is_final
from jobs.lake.partition_locations import (
    OUTPUT_PREFIXES,
    RELOCATED,
    Layout,
    LayoutFile,
    NextLocation,
    OldLocation,
    PartitionLocation,
    batch_of,
    check_layout,
    default_folder,
    relocated_folder,
)
from jobs.lake.store import Lake, file_name

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5  # between two checks of a running batch


class Catalog(Protocol):
    """The part of `jobs.catalog.glue.GlueCatalog` that the mover uses."""

    @property
    def root(self) -> str: ...

    def relocate(self, table: str, partition: str, location: str) -> None: ...

    def locations(self, table: str) -> dict[str, str]: ...


class StoredFile(NamedTuple):
    """A file of the lake: its path and its size in bytes."""

    path: str
    bytes: int


# Fills a new location: (partition, the current files of final batches and earlier moves, the new location). It copies
# files under their own names or writes their rows into new files.
Fill = Callable[[str, list[StoredFile], str], None]


@dataclass
class MoveResult:
    """What a call of `move` did.

    `before`, `after`: (files, bytes) by partition. `left`: by partition, why it was not moved.
    """

    before: dict[str, tuple[int, int]] = field(default_factory=dict)
    after: dict[str, tuple[int, int]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


class Mover:
    """Moves partitions of one table. The caller holds the table's lease; `check_lease` raises if it is lost."""

    def __init__(
        self,
        lake: Lake,
        catalog: Catalog,
        table: str,
        check_lease: Callable[[], None],
        *,
        wait_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`wait_seconds`: how long to wait for a running batch before its partition is left as it is."""
        self._lake, self._catalog, self._table, self._check_lease = lake, catalog, table, check_lease
        self._wait_seconds, self._now, self._sleep = wait_seconds, now, sleep
        self._layouts = LayoutFile(lake, table)
        self.layout = self._layouts.read()

    def recover(self) -> list[str]:
        """Finishes or drops the moves of a run that died, and repairs the catalog. Returns the partitions changed.

        Raises TerminalError if the layout's file was lost.
        """
        check_layout(self._lake, self._table)
        moving = {partition: found for partition, found in self.layout.partitions.items() if found.next}
        complete = [partition for partition, found in moving.items() if found.next and found.next.switching]
        self._drop([partition for partition in moving if partition not in complete])
        self._switch(complete)
        return sorted({*moving, *self.repair()})

    def move(self, partitions: Iterable[str], fill: Fill) -> MoveResult:
        """Moves partitions together. A partition with files of unknown origin is left as it is."""
        result = MoveResult()
        chosen: dict[str, PartitionLocation] = {}
        queries: set[str] = set()
        for partition in partitions:
            location = self.layout.location(partition)
            target = self._choose_next(partition, location)
            files = [*self._files(location.current), *self._files(target)]
            unknown = next((file for file in files if _is_unknown(file)), None)
            if unknown:
                result.left[partition] = f"{unknown.path} is not a batch's file"
                continue
            queries.update(batch.rpartition("-")[0] for file in files if (batch := batch_of(file.path)))
            chosen[partition] = msgspec.structs.replace(location, next=NextLocation(target))
        # Read the final batches before the next location is named: their writers will not read the layout again.
        final = final_batches(self._lake, queries)
        self._change(chosen)
        fault_point("move.announced")
        running: dict[str, list[StoredFile]] = {}
        for partition, location in chosen.items():
            self._delete_stale(location.newest, final)
            files = self._files(location.current)
            finished = [file for file in files if batch_of(file.path) is None or batch_of(file.path) in final]
            running[partition] = [file for file in files if file not in finished]
            result.before[partition] = _size(files)
            fill(partition, finished, location.newest)
            fault_point("move.filled")
        self._wait_for_batches(running, result)
        self._drop([partition for partition in chosen if partition in result.left])
        complete = [partition for partition in chosen if partition not in result.left]
        for partition in result.left:
            result.before.pop(partition, None)
        for partition in complete:
            result.after[partition] = _size(self._files(self.layout.location(partition).newest))
        self._change({partition: _switching(self.layout.location(partition)) for partition in complete})
        fault_point("move.complete")
        self._switch(complete)
        return result

    def sweep(self, grace: timedelta) -> tuple[int, int]:
        """Deletes the files of locations that were replaced at least `grace` ago. Returns their number and bytes.

        Keeps files of batches that are not final: their writer copies from them, or its next run deletes them.
        """
        changes: dict[str, PartitionLocation] = {}
        candidates: list[StoredFile] = []
        named: set[str] = set()
        for partition, location in self.layout.partitions.items():
            kept = tuple(old for old in location.retired if self._now() - old.since < grace)
            named.update((*location.live, *(old.location for old in kept)))
            for old in location.retired:
                if old not in kept and not old.location.startswith(f"{RELOCATED}/"):
                    candidates += self._files(old.location)
            if kept != location.retired:
                changes[partition] = msgspec.structs.replace(location, retired=kept)
        # Also locations that the layout no longer names: a batch slower than the grace time may still write to one.
        candidates += [file for file in self._files(f"{RELOCATED}/{self._table}/") if _folder(file.path) not in named]
        queries = {batch.rpartition("-")[0] for file in candidates if (batch := batch_of(file.path))}
        final = final_batches(self._lake, queries)
        deleted = [file for file in candidates if _is_output(file) or batch_of(file.path) in final]
        if deleted or changes:
            self._check_lease()
            self._lake.delete(file.path for file in deleted)
            fault_point("sweep.deleted")
            self._change(changes)
        return _size(deleted)

    def can_restore_default(self, partition: str) -> bool:
        """Whether the partition is not in its default folder and can move back there."""
        location, default = self.layout.location(partition), default_folder(self._table, partition)
        return location.current != default and self._choose_next(partition, location) == default

    def repair(self) -> list[str]:
        """Points the catalog to the current locations where it differs. Returns the partitions repaired.

        It differs after a run that lost its lease while it was suspended, or if another writer of the catalog put back
        an older location.
        """
        repaired = []
        for partition, location in self._catalog.locations(self._table).items():
            current = self.layout.location(partition).current
            expected = f"{self._catalog.root}/{current}"
            is_ours = location.startswith(f"{self._catalog.root}/")
            if is_ours and location.rstrip("/") != expected.rstrip("/"):
                log.warning("partition %s: the catalog names %s, its files are in %s", partition, location, expected)
                self._check_lease()
                self._catalog.relocate(self._table, partition, current)
                repaired.append(partition)
        return repaired

    def _choose_next(self, partition: str, location: PartitionLocation) -> str:
        """The default folder if it is free, else a new one."""
        default = default_folder(self._table, partition)
        used = {location.current, *(old.location for old in location.retired)}
        if default not in used and not any(_is_unknown(file) for file in self._files(default)):
            return default
        return relocated_folder(self._table, partition, uuid.uuid4().hex[:12])

    def _delete_stale(self, location: str, final: set[str]) -> None:
        """Deletes stale files left in the target location by an earlier attempt.

        They are outputs, and files of batches that were final before the location was named. Files of a running batch
        stay: that batch counts on them.
        """
        stale = [file.path for file in self._files(location) if _is_output(file) or batch_of(file.path) in final]
        if stale:
            self._check_lease()
            self._lake.delete(stale)

    def _wait_for_batches(self, running: Mapping[str, list[StoredFile]], result: MoveResult) -> None:
        """Waits until every file of a running batch is either final, and then in the next location too, or deleted."""
        deadline = time.monotonic() + self._wait_seconds
        for partition, files in running.items():
            location, waiting = self.layout.location(partition), files
            while waiting:
                existing = {file.path for file in self._files(location.current)}
                unfinished = []
                for file in waiting:
                    if is_final(self._lake, batch_of(file.path) or ""):
                        # Safe: a final batch's files no longer change, and its leftovers were deleted before.
                        self._lake.copy(file.path, location.newest + file_name(file.path))
                    elif file.path in existing:
                        unfinished.append(file)
                waiting = unfinished
                if waiting and time.monotonic() > deadline:
                    batch = batch_of(waiting[0].path)
                    result.left[partition] = f"batch {batch} has written files and is not final: does its job run?"
                    break
                if waiting:
                    self._sleep(_POLL_SECONDS)
        fault_point("move.awaited")

    def _switch(self, partitions: Iterable[str]) -> None:
        changes = {}
        for partition in partitions:
            location = self.layout.location(partition)
            self._check_lease()
            self._catalog.relocate(self._table, partition, location.newest)
            fault_point("move.relocated")
            old = OldLocation(location.current, self._now())
            changes[partition] = PartitionLocation(location.newest, None, (*location.retired, old))
        self._change(changes)
        fault_point("move.switched")

    def _drop(self, partitions: Iterable[str]) -> None:
        """Abandons incomplete moves. `sweep` deletes their files like those of retired locations."""
        changes = {}
        for partition in partitions:
            location = self.layout.location(partition)
            abandoned = OldLocation(location.newest, self._now())
            changes[partition] = PartitionLocation(location.current, None, (*location.retired, abandoned))
        self._change(changes)

    def _change(self, changes: Mapping[str, PartitionLocation]) -> None:
        if not changes:
            return
        self._check_lease()
        changed: Layout | None = self._layouts.change(self.layout, changes)
        if changed is None:
            raise AlreadyRunningError(
                f"the layout of {self._lake.uri}/{self._table} was changed by another run meanwhile; nothing is lost: "
                "run this one again once the other has ended"
            )
        self.layout = changed

    def _files(self, location: str) -> list[StoredFile]:
        return [StoredFile(path, size) for path, size in self._lake.list(location)]


def _switching(location: PartitionLocation) -> PartitionLocation:
    return msgspec.structs.replace(location, next=NextLocation(location.newest, switching=True))


def _folder(path: str) -> str:
    return path.rpartition("/")[0] + "/"


def _is_output(file: StoredFile) -> bool:
    return file_name(file.path).startswith(OUTPUT_PREFIXES)


def _is_unknown(file: StoredFile) -> bool:
    return not _is_output(file) and batch_of(file.path) is None


def _size(files: list[StoredFile]) -> tuple[int, int]:
    return len(files), sum(file.bytes for file in files)
