"""Plans the next increment: consecutive batches of one streaming query, and the tables that lack them. Pure functions.

A table's progress in a query is the number of the last batch that it contains, from its Delta log (docs/adr/0008).
The tables differ only after a crash between two of them, or after one was deleted. Then an increment stops at the next
table's progress, so that every table contains all of an increment or nothing of it.

Example: if `corridors` has batches up to 4 and `zones` up to 2, the next increment is batches 3 and 4 for `zones`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class CommittedBatch(NamedTuple):
    """A batch that is in the ledger: it wrote `rows` processed rows into `partitions`."""

    query: str
    number: int
    rows: int
    partitions: tuple[str, ...]

    @property
    def name(self) -> str:
        """`<query>-<number>`, the value of the rows' column `batch`."""
        return f"{self.query}-{self.number}"


@dataclass(frozen=True)
class Increment:
    """Batches of one query, in order, and the tables that lack them."""

    query: str
    batches: tuple[CommittedBatch, ...]
    tables: tuple[str, ...]

    @property
    def last(self) -> int:
        """The last batch's number: the tables' progress after the increment."""
        return self.batches[-1].number

    @property
    def rows(self) -> int:
        return sum(batch.rows for batch in self.batches)


def next_increment(
    query: str, progress: Mapping[str, int], following: Iterable[CommittedBatch], max_batches: int, max_rows: int
) -> Increment | None:
    """The next increment, or None if there is no new batch with rows.

    progress     each table's progress
    following    the query's committed batches after the lowest progress, in order
    max_batches  the most batches with rows in one increment
    max_rows     the most rows in one increment; a single larger batch is one increment

    Batches without rows do not count, and an increment does not start with one.
    """
    taken: list[CommittedBatch] = []
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


def lagging_sources(progress: Mapping[str, int], sources: Mapping[str, str]) -> dict[str, int]:
    """The progress of tables that lack batches which a table computed from them has, and of the latter; else empty.

    sources  the table that a table is computed from, by name

    These must catch up first, in every query. Otherwise a group that has rows of two queries would be computed from one
    query's rows alone.
    Example: {"corridors": -1, "city_summary": 9}, if `corridors` was deleted and `city_summary` is computed from it.
    """
    found: dict[str, int] = {}
    for table, source in sources.items():
        if progress[source] < progress[table]:
            found |= {source: progress[source], table: progress[table]}
    return found
