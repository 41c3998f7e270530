"""What a run takes next: consecutive batches of one streaming query, the same for every table that lacks them. Pure.

A table's progress in a query is the number of the last batch that is in it, and stands in the table's own Delta log
(`txnAppId` = query, `txnVersion` = batch), in the very commit that put the rows there. Tables agree on it but after a
crash between two of them, or where one was deleted to be made anew; then the increments stop where the next table's
progress is, so that a table has either all of an increment or nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class SourceFile(NamedTuple):
    """A Parquet file of the processed layer: its partition `city=…/start_date=…`, its path in the lake, its bytes."""

    partition: str
    path: str
    bytes: int


class Batch(NamedTuple):
    """A final batch of the ledger: `rows` went into the partitions."""

    query: str
    number: int
    rows: int
    partitions: tuple[str, ...]

    @property
    def name(self) -> str:
        """As in the rows' column `batch`."""
        return f"{self.query}-{self.number}"


@dataclass(frozen=True)
class Increment:
    """Batches of one query, in order, and the tables that lack them."""

    query: str
    batches: tuple[Batch, ...]
    tables: tuple[str, ...]

    @property
    def last(self) -> int:
        """The number that the tables' progress becomes."""
        return self.batches[-1].number

    @property
    def rows(self) -> int:
        return sum(batch.rows for batch in self.batches)


def next_increment(
    query: str, progress: Mapping[str, int], following: Iterable[Batch], max_batches: int, max_rows: int
) -> Increment | None:
    """The increment to do now; None where no batch with rows waits.

    `progress`: by table; `following`: the query's final batches after the least of it, in order. A batch is never
    taken apart; those without rows ride along and count for nothing, and none stands first.
    """
    taken: list[Batch] = []
    stop: int | None = None
    rows = with_rows = 0
    for batch in following:
        if not taken:
            if not batch.rows:
                continue
            stop = min((number for number in progress.values() if number >= batch.number), default=None)
        beyond = stop is not None and batch.number > stop
        full = with_rows and batch.rows and (with_rows >= max_batches or rows + batch.rows > max_rows)
        if beyond or full:
            break
        taken.append(batch)
        rows += batch.rows
        with_rows += batch.rows > 0
    if not taken:
        return None
    behind = tuple(sorted(table for table, number in progress.items() if number < taken[0].number))
    return Increment(query, tuple(taken), behind)
