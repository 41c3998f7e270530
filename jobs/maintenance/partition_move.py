"""Moves partitions to another location, so that readers through the catalog see the old files or the new ones.

For each partition: announce the next location in the layout (`announced`), write there what the current one holds
(`filled`), see that what batches under way have written is there too (`complete`), point the catalog there
(`relocated`), make it the current one (`switched`). The old files stay for the grace time. A run that dies in
between leaves a layout from which the next one knows what to finish and what to drop. Proof: docs/adr/0007.
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
    default_folder,
    relocated_folder,
)
from jobs.lake.store import Lake

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # between two looks at a batch that is under way


class Catalog(Protocol):
    """What the mover asks of the catalog: `jobs.catalog.glue.GlueCatalog`."""

    @property
    def root(self) -> str: ...

    def relocate(self, table: str, partition: str, location: str) -> None: ...

    def locations(self, table: str) -> dict[str, str]: ...


class StoredFile(NamedTuple):
    """A file of the lake: its path and its size in bytes."""

    path: str
    bytes: int


# Writes into the location (third) what the partition (first) is to hold, given the files of its final batches and
# of earlier moves (second): some copied under their own names, the others' rows in new files.
Fill = Callable[[str, list[StoredFile], str], None]


@dataclass
class MoveResult:
    """What a call of `move` did: partition → files and bytes before and after; and why others stay as they are."""

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
        self._lake, self._catalog, self._table, self._check_lease = lake, catalog, table, check_lease
        self._wait_seconds, self._now, self._sleep = wait_seconds, now, sleep
        self._layouts = LayoutFile(lake, table)
        self.layout = self._layouts.read()

    def recover(self) -> list[str]:
        """Ends the moves that a dead run began, and sets right what the catalog says; partitions that it touched."""
        begun = {partition: place for partition, place in self.layout.partitions.items() if place.next}
        complete = [partition for partition, place in begun.items() if place.next and place.next.switching]
        self._drop([partition for partition in begun if partition not in complete])
        self._switch(complete)
        return sorted({*begun, *self.repair()})

    def move(self, partitions: Iterable[str], fill: Fill) -> MoveResult:
        """Moves partitions, all at once; those that hold what cannot be judged stay where they are."""
        moved = MoveResult()
        chosen: dict[str, PartitionLocation] = {}
        queries: set[str] = set()
        for partition in partitions:
            place = self.layout.location(partition)
            target = self._next_location(partition, place)
            files = [*self._files(place.current), *self._files(target)]
            stranger = next((file for file in files if _is_unknown(file)), None)
            if stranger:
                moved.left[partition] = f"{stranger.path} is no batch's file"
                continue
            queries.update(batch.rpartition("-")[0] for file in files if (batch := batch_of(file.path)))
            chosen[partition] = msgspec.structs.replace(place, next=NextLocation(target))
        # Which batches are final is asked before the announcement: their writers look at the layout no more.
        final = final_batches(self._lake, queries)
        self._change(chosen)
        fault_point("move.announced")
        under_way: dict[str, list[StoredFile]] = {}
        for partition, place in chosen.items():
            assert place.next is not None  # noqa: S101 - announced above
            self._clear(place.next.location, final)
            files = self._files(place.current)
            settled = [file for file in files if batch_of(file.path) is None or batch_of(file.path) in final]
            under_way[partition] = [file for file in files if file not in settled]
            moved.before[partition] = _size(files)
            fill(partition, settled, place.next.location)
            fault_point("move.filled")
        self._await(under_way, moved)
        self._drop([partition for partition in chosen if partition in moved.left])
        complete = [partition for partition in chosen if partition not in moved.left]
        for partition in moved.left:
            moved.before.pop(partition, None)
        for partition in complete:
            moved.after[partition] = _size(self._files(self.layout.location(partition).live[-1]))
        self._change({partition: _switching(self.layout.location(partition)) for partition in complete})
        fault_point("move.complete")
        self._switch(complete)
        return moved

    def sweep(self, grace: timedelta) -> tuple[int, int]:
        """Deletes the files of locations that were left at least `grace` ago; how many, and their bytes.

        Files of a batch that is not final stay: its writer copies from them, or its next run deletes them.
        """
        places: dict[str, PartitionLocation] = {}
        left: list[StoredFile] = []
        named: set[str] = set()
        for partition, place in self.layout.partitions.items():
            kept = tuple(retired for retired in place.retired if self._now() - retired.since < grace)
            named.update((*place.live, *(retired.location for retired in kept)))
            for retired in place.retired:
                if retired not in kept and not retired.location.startswith(f"{RELOCATED}/"):
                    left += self._files(retired.location)
            if kept != place.retired:
                places[partition] = msgspec.structs.replace(place, retired=kept)
        # A batch that takes longer than the grace time may write to a location that is not even named any more.
        left += [file for file in self._files(f"{RELOCATED}/{self._table}/") if _folder(file.path) not in named]
        queries = {batch.rpartition("-")[0] for file in left if (batch := batch_of(file.path))}
        final = final_batches(self._lake, queries)
        deleted = [file for file in left if _is_output(file) or batch_of(file.path) in final]
        if deleted or places:
            self._check_lease()
            self._lake.delete(file.path for file in deleted)
            fault_point("sweep.deleted")
            self._change(places)
        return _size(deleted)

    def can_restore_default(self, partition: str) -> bool:
        """Whether the partition lies elsewhere and its plain folder is free for it."""
        place, home = self.layout.location(partition), default_folder(self._table, partition)
        return place.current != home and self._next_location(partition, place) == home

    def _next_location(self, partition: str, place: PartitionLocation) -> str:
        home = default_folder(self._table, partition)
        taken = {place.current, *(retired.location for retired in place.retired)}
        if home not in taken and not any(_is_unknown(file) for file in self._files(home)):
            return home
        return relocated_folder(self._table, partition, uuid.uuid4().hex[:12])

    def _clear(self, location: str, final: set[str]) -> None:
        """Deletes what lies in a location from an earlier time: files of batches that were final before it was
        announced. What a batch under way has written stays, for that batch will count on it."""
        stale = [f.path for f in self._files(location) if _is_output(f) or batch_of(f.path) in final]
        if stale:
            self._check_lease()
            self._lake.delete(stale)

    def _await(self, under_way: Mapping[str, list[StoredFile]], moved: MoveResult) -> None:
        """Waits until each file of a batch under way is final, and then in the next location too, or gone."""
        deadline = time.monotonic() + self._wait_seconds
        for partition, files in under_way.items():
            place, waiting = self.layout.location(partition), files
            while waiting:
                there = {file.path for file in self._files(place.current)}
                still = []
                for file in waiting:
                    if is_final(self._lake, batch_of(file.path) or ""):
                        # Of a final batch's file nothing changes any more; a leftover was deleted before that.
                        self._lake.copy(file.path, place.live[-1] + file.path.rpartition("/")[2])
                    elif file.path in there:
                        still.append(file)
                waiting = still
                if waiting and time.monotonic() > deadline:
                    batch = batch_of(waiting[0].path)
                    moved.left[partition] = f"batch {batch} has written files and is not final: does its job run?"
                    break
                if waiting:
                    self._sleep(_LOOK_SECONDS)
        fault_point("move.awaited")

    def _switch(self, partitions: Iterable[str]) -> None:
        places = {}
        for partition in partitions:
            place = self.layout.location(partition)
            self._check_lease()
            self._catalog.relocate(self._table, partition, place.live[-1])
            fault_point("move.relocated")
            left = OldLocation(place.current, self._now())
            places[partition] = PartitionLocation(place.live[-1], None, (*place.retired, left))
        self._change(places)
        fault_point("move.switched")

    def _drop(self, partitions: Iterable[str]) -> None:
        """Gives up moves that are not complete: what was written for them is deleted as old files are."""
        places = {}
        for partition in partitions:
            place = self.layout.location(partition)
            left = OldLocation(place.live[-1], self._now())
            places[partition] = PartitionLocation(place.current, None, (*place.retired, left))
        self._change(places)

    def repair(self) -> list[str]:
        """Points the catalog to the current locations where it says otherwise: after a run that slept through its
        lease, or a writer of the catalog that put back what it had read before. Partitions set right."""
        wrong = []
        for partition, location in self._catalog.locations(self._table).items():
            current = f"{self._catalog.root}/{self.layout.location(partition).current}"
            ours = location.startswith(f"{self._catalog.root}/")
            if ours and location.rstrip("/") != current.rstrip("/"):
                log.warning("partition %s: the catalog says %s, its files lie in %s", partition, location, current)
                self._check_lease()
                self._catalog.relocate(self._table, partition, self.layout.location(partition).current)
                wrong.append(partition)
        return wrong

    def _change(self, places: Mapping[str, PartitionLocation]) -> None:
        if not places:
            return
        self._check_lease()
        changed: Layout | None = self._layouts.change(self.layout, places)
        if changed is None:
            raise AlreadyRunningError(
                f"the layout of {self._lake.uri}/{self._table} was changed by another run meanwhile; nothing is lost: "
                "run this one again once the other has ended"
            )
        self.layout = changed

    def _files(self, location: str) -> list[StoredFile]:
        return [StoredFile(path, size) for path, size in self._lake.list(location)]


def _switching(place: PartitionLocation) -> PartitionLocation:
    assert place.next is not None  # noqa: S101 - it was announced
    return msgspec.structs.replace(place, next=NextLocation(place.next.location, switching=True))


def _folder(path: str) -> str:
    return path.rpartition("/")[0] + "/"


def _is_output(file: StoredFile) -> bool:
    return file.path.rpartition("/")[2].startswith(OUTPUT_PREFIXES)


def _is_unknown(file: StoredFile) -> bool:
    return not _is_output(file) and batch_of(file.path) is None


def _size(files: list[StoredFile]) -> tuple[int, int]:
    return len(files), sum(file.bytes for file in files)
