"""What compaction would do, from a list of files alone: many small files of a partition → few of the target size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jobs.sink.lake import Lake
from jobs.sink.live_files import LiveFile
from jobs.sink.moving import Fill, StoredFile
from jobs.sink.rewriting import Rewriter
from jobs.sink.settle import copy_all


@dataclass(frozen=True)
class PartitionDebt:
    """One partition: its files, how many of them are small, the bytes of all and of the small ones, and about how
    many files there would be after compaction."""

    partition: str
    files: int
    small_files: int
    bytes: int
    small_bytes: int
    files_after: int

    def is_due(self, min_files: int) -> bool:
        """Whether there are `min_files` small files or more, and fewer files afterwards."""
        return self.small_files >= min_files and self.files_after < self.files


def is_small(size: int, target_bytes: int) -> bool:
    """A file of less than half the target: two of them are one."""
    return size < target_bytes / 2


def compaction_debt(files: Iterable[LiveFile], target_bytes: int) -> list[PartitionDebt]:
    """The debt of each partition in a table's live files, by partition."""
    sizes: dict[str, list[int]] = {}
    for file in files:
        sizes.setdefault(file.partition, []).append(file.bytes)
    found = []
    for partition, of in sorted(sizes.items()):
        small = [size for size in of if is_small(size, target_bytes)]
        merged = -(-sum(small) // target_bytes) or len(small)
        found.append(PartitionDebt(partition, len(of), len(small), sum(of), sum(small), len(of) - len(small) + merged))
    return found


def compacting(rewriter: Rewriter) -> Fill:
    """How compaction fills a partition's next location: small files as few, the others as they are."""

    def fill(partition: str, files: list[StoredFile], location: str) -> None:
        small = [file for file in files if is_small(file.bytes, rewriter.target_bytes)]
        as_they_are = [file for file in files if file not in small]
        if len(small) == 1:
            as_they_are, small = files, []
        rewriter.write(partition, rewriter.read(small, as_they_are), location)
        copying(rewriter.lake)(partition, as_they_are, location)

    return fill


def copying(lake: Lake) -> Fill:
    """How a partition moves without a change."""

    def fill(_partition: str, files: list[StoredFile], location: str) -> None:
        copy_all(lake, [(file.path, location + file.path.rpartition("/")[2]) for file in files])

    return fill
