"""The files that make up a table just now, wherever its partitions lie: for everything of ours that reads a table by
its files instead of through the catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from jobs.lake.delta import active_files, is_delta, open_delta
from jobs.lake.ledger import LedgerEntry
from jobs.lake.partition_locations import Layout, LayoutFile, batch_of, default_folder
from jobs.lake.store import Lake


class LiveFile(NamedTuple):
    """A file of the table: its partition `city=…/start_date=…`, its path in the lake, its size in bytes."""

    partition: str
    path: str
    bytes: int


def live_files(lake: Lake, table: str, partitions: Iterable[str] | None = None) -> Iterator[LiveFile]:
    """Every file of the table, or of some of its partitions, each row in exactly one of them.

    What batches that are not final have written is among them, as it is for a reader through the catalog. A file
    that compaction replaces meanwhile stays for the grace time (`compact.grace_seconds`): read it within that.
    A table that has a Delta log has the files that the log's last version names, and those alone.
    """
    delta = open_delta(f"{lake.uri}/{table}") if is_delta(lake, table) else None
    if delta is not None:
        wanted = None if partitions is None else set(partitions)
        found = (LiveFile(*file) for file in active_files(delta, table))
        yield from (file for file in found if wanted is None or file.partition in wanted)
        return
    layout = LayoutFile(lake, table).read()
    if partitions is not None:
        for partition in dict.fromkeys(partitions):
            yield from _in(lake, partition, layout.location(partition).current)
        return
    yield from _at_home(lake, layout)
    for partition, location in layout.partitions.items():
        if location.current != default_folder(table, partition):
            yield from _in(lake, partition, location.current)


def files_holding(
    lake: Lake, batches: Collection[str], partitions: Iterable[str], table: str = "processed"
) -> Iterator[LiveFile]:
    """The live files of some partitions that hold rows of final batches (`<query>-<batch>`), each file once.

    Other batches' rows are in them too: keep the rows whose column `batch` is one of these.
    """
    for file in live_files(lake, table, partitions):
        batch = batch_of(file.path)
        if batch is None or batch in batches:
            yield file


def files_of_entries(lake: Lake, *entries: LedgerEntry) -> Iterator[LiveFile]:
    """`files_holding` of the processed rows of ledger entries.

    An entry's own list of files says what the batch wrote; compaction may have put those rows elsewhere since.
    """
    batches = {entry.name for entry in entries}
    partitions = sorted({name for entry in entries for name in entry.partitions.get("processed", ())})
    return files_holding(lake, batches, partitions)


def _at_home(lake: Lake, layout: Layout) -> Iterator[LiveFile]:
    for path, size in lake.list(f"{layout.table}/"):
        partition = path.removeprefix(f"{layout.table}/").rpartition("/")[0]
        if layout.location(partition).current == default_folder(layout.table, partition):
            yield LiveFile(partition, path, size)


def _in(lake: Lake, partition: str, location: str) -> Iterator[LiveFile]:
    return (LiveFile(partition, path, size) for path, size in lake.list(location))
