"""Batches written anew from raw: what `movement replay --raw` does in the lake, and takes up again after a kill.

A rebuild is staged under `_rebuild/<run>/` first; `plan.json`, written last there, is the point of no return: from
then on every run carries it out to its end, from the beginning, before it does anything else. Each step is safe to
repeat: partitions move (`moving`), quarantine files and ledger entries are put under names that the plan says, what
they replace is deleted, then the plan, then the staged files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from jobs.contract.errors import TerminalError, TransientError
from jobs.contract.faults import point
from jobs.sink.lake import Lake
from jobs.sink.layout import batch_of
from jobs.sink.ledger import LedgerEntry, amend
from jobs.sink.moving import Fill, Mover, StoredFile
from jobs.sink.rewriting import Rewriter
from jobs.sink.settle import copy_all

FOLDER = "_rebuild/"
_GROUP = 32


class RebuildPlan(msgspec.Struct):
    """What a rebuild is to do; paths are relative to the lake.

    `entries`: the ledger's new entries of the batches. `rows`: partition → staged files (path, bytes) with those
    batches' rows; partitions that lose all of them are among the keys. `add`: staged quarantine files → their names;
    `remove`: what those replace.
    """

    run: str
    entries: list[LedgerEntry]
    rows: dict[str, list[StoredFile]]
    add: list[tuple[str, str]]
    remove: list[str]
    version: int = 1

    @property
    def batches(self) -> frozenset[str]:
        return frozenset(f"{entry.query}-{entry.batch}" for entry in self.entries)


def stage_of(run: str) -> str:
    """Where a run stages its files."""
    return f"{FOLDER}{run}/"


def unfinished(lake: Lake) -> list[RebuildPlan]:
    """Plans that a dead run left; what one left that had not come as far as a plan is deleted."""
    paths = [path for path, _ in lake.list(FOLDER)]
    plans = [path for path in paths if path.endswith("/plan.json")]
    planned = {path.split("/")[1] for path in plans}
    lake.delete(path for path in paths if path.split("/")[1] not in planned)
    return [msgspec.json.decode(lake.get(path) or b"", type=RebuildPlan) for path in plans]


def decide(lake: Lake, plan: RebuildPlan) -> None:
    """Makes a plan final: from here on it is carried out, by this run or by the next."""
    point("rebuild.staged")
    lake.put(f"{stage_of(plan.run)}plan.json", io.BytesIO(msgspec.json.encode(plan)))
    point("rebuild.planned")


def carry_out(lake: Lake, plan: RebuildPlan, mover: Mover, rewriter: Rewriter) -> Iterator[int]:
    """Does what a plan says; yields how many of its partitions are done, as they are.

    Raises TransientError where a partition could not be moved now: what is done stays, and the next run goes on.
    """
    partitions = sorted(plan.rows)
    for start in range(0, len(partitions), _GROUP):
        moved = mover.move(partitions[start : start + _GROUP], _filling(rewriter, plan))
        if moved.left:
            partition, why = next(iter(moved.left.items()))
            raise TransientError(
                f"{len(moved.left)} partitions could not be rebuilt now, the first {partition}: {why}. The others "
                "are; run this again, and it goes on from here"
            )
        yield min(start + _GROUP, len(partitions))
    point("rebuild.moved")
    copy_all(lake, plan.add)
    for entry in plan.entries:
        amend(lake, entry)
    point("rebuild.amended")
    lake.delete(plan.remove)
    # The plan goes first: what is staged without one is swept up by the next run.
    lake.delete([f"{stage_of(plan.run)}plan.json"])
    point("rebuild.cleared")
    lake.delete([path for path, _ in lake.list(stage_of(plan.run))])


def _filling(rewriter: Rewriter, plan: RebuildPlan) -> Fill:
    """A partition's new content: its files without the rebuilt batches' rows, and those rows as they are now."""

    def fill(partition: str, files: list[StoredFile], location: str) -> None:
        as_they_are: list[StoredFile] = []
        mixed: list[StoredFile] = []
        odd: list[StoredFile] = []
        for file in files:
            batch = batch_of(file.path)
            if batch in plan.batches:
                continue
            (mixed if batch is None and rewriter.holds(file, plan.batches) else as_they_are).append(file)
        rows = chain(rewriter.read(mixed, odd, plan.batches), rewriter.read(plan.rows[partition], odd))
        rewriter.write(partition, rows, location)
        if odd:
            raise TerminalError(
                f"{odd[0].path} has columns, or types, that the contract does not: its rows cannot be written anew "
                "without losing them. Give the contract those columns and run this again"
            )
        copy_all(rewriter.lake, [(file.path, location + file.path.rpartition("/")[2]) for file in as_they_are])

    return fill


def affected(before: Sequence[LedgerEntry], after: Sequence[LedgerEntry]) -> set[str]:
    """The partitions that hold rows of the batches now, or will."""
    return {name for entry in (*before, *after) for name in entry.partitions.get("processed", [])}
