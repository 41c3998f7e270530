"""The current files of a table, wherever its partitions are, for readers that do not go through the catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from jobs.lake.delta import active_files, is_delta, open_delta
from jobs.lake.ledger import LedgerEntry
from jobs.lake.partition_locations import LayoutFile, batch_of, default_folder
from jobs.lake.store import Lake


class LiveFile(NamedTuple):
    """A file of a table: its partition `city=…/start_date=…`, its path in the lake, its size in bytes."""

    partition: str
    path: str
    bytes: int


def live_files(lake: Lake, table: str, partitions: Iterable[str] | None = None) -> Iterator[LiveFile]:
    """Every file of the table, or of some of its partitions. Each row is in exactly one of them.

    Includes files of batches that are not final yet, as a reader through the catalog sees them. A file that compaction
    replaces meanwhile stays for the grace time (`compact.grace_seconds`): read it within that time. For a Delta table
    these are the files of its latest version.
    """
    delta = open_delta(f"{lake.uri}/{table}") if is_delta(lake, table) else None
    if delta is not None:
        wanted = None if partitions is None else set(partitions)
        files = (LiveFile(*file) for file in active_files(delta, table))
        yield from (file for file in files if wanted is None or file.partition in wanted)
        return
    layout = LayoutFile(lake, table).read()
    if partitions is not None:
        for partition in dict.fromkeys(partitions):
            yield from _in_location(lake, partition, layout.location(partition).current)
        return
    for path, size in lake.list(f"{table}/"):
        partition = path.removeprefix(f"{table}/").rpartition("/")[0]
        if layout.location(partition).current == default_folder(table, partition):
            yield LiveFile(partition, path, size)
    for partition, location in layout.relocated.items():
        yield from _in_location(lake, partition, location)


def files_holding(
    lake: Lake, batches: Collection[str], partitions: Iterable[str], table: str = "processed"
) -> Iterator[LiveFile]:
    """The live files of some partitions that may have rows of the batches (`<query>-<batch>`), each file once.

    They may have rows of other batches too: filter by the column `batch`.
    """
    for file in live_files(lake, table, partitions):
        batch = batch_of(file.path)
        if batch is None or batch in batches:
            yield file


def files_of_entries(lake: Lake, *entries: LedgerEntry) -> Iterator[LiveFile]:
    """`files_holding` for the processed rows of ledger entries.

    An entry's own file list is what the batch wrote; compaction may have moved its rows to other files since.
    """
    batches = {entry.name for entry in entries}
    partitions = sorted({name for entry in entries for name in entry.partitions.get("processed", ())})
    return files_holding(lake, batches, partitions)


def _in_location(lake: Lake, partition: str, location: str) -> Iterator[LiveFile]:
    return (LiveFile(partition, path, size) for path, size in lake.list(location))
