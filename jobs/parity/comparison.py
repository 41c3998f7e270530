"""Two tables compared row for row, as multisets: DataFrames in, differences out.

First a fingerprint of each partition (one pass over both tables, a few numbers each), then rows, and only in the
partitions whose fingerprints differ: +1 for a row of one side, -1 for one of the other, summed over equal rows.
Both are aggregations that Spark spills to disk: memory is bounded whatever the size.

In a window of time the two sides do not begin and end with the same row: the batch side knows a record's arrival
only as its file's, a little earlier. Then each side must contain the other: the stream's rows of the window must
all be among the batch's of a wider one, and the batch's rows of the window among the stream's of a wider one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from jobs.parity.fingerprints import COUNT, SUMS, fingerprints

# Up to so many partitions that differ are named to Spark, which then reads no others.
NAMED_PARTITIONS = 200

STREAM, BATCH = "stream", "batch"
ARRIVAL = "arrival_time"


@dataclass(frozen=True)
class Window:
    """Rows that arrived at `since` or later and before `until`; None: no bound. Times with a zone.

    `delivery`: a record's file is named after a time at most so long before its arrival.
    """

    since: datetime | None
    until: datetime | None
    delivery: timedelta = timedelta(hours=1)

    def of_both(self) -> Column:
        """The rows of the window."""
        return _between(self.since, self.until)

    def wide(self, side: str) -> Column:
        """The rows of one side among which the other's rows of the window must be."""
        if side == BATCH:
            return _between(self.since and self.since - self.delivery, self.until)
        return _between(self.since, self.until and self.until + self.delivery)


@dataclass(frozen=True)
class PartitionParity:
    """One partition: its rows on either side, and how many are on one alone (a row twice there and once here: 1)."""

    partition: tuple[Any, ...]
    stream: int
    batch: int
    only_stream: int = 0
    only_batch: int = 0


@dataclass(frozen=True)
class Difference:
    """A row that is on `side` `count` times more often than on the other."""

    side: str
    count: int
    row: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: every partition, and some rows of each side that the other lacks."""

    partitions: list[PartitionParity]
    samples: list[Difference] = field(default_factory=list)

    @property
    def only_stream(self) -> int:
        return sum(found.only_stream for found in self.partitions)

    @property
    def only_batch(self) -> int:
        return sum(found.only_batch for found in self.partitions)


def compare(
    stream: DataFrame,
    batch: DataFrame,
    columns: Sequence[str],
    partition_by: Sequence[str],
    window: Window | None = None,
    samples: int = 5,
) -> Comparison:
    """Compares `columns` of two tables that have them all, `partition_by` among them; with `window`, ARRIVAL too.

    At most `samples` rows of each side are brought along.
    """
    sides = {STREAM: stream, BATCH: batch}
    inside = {side: rows.where(window.of_both()) if window else rows for side, rows in sides.items()}
    marks = _marks(inside, columns, partition_by)
    differing = [key for key, of in marks.items() if of.get(STREAM) != of.get(BATCH)]
    counts = {key: (_count(of.get(STREAM)), _count(of.get(BATCH))) for key, of in marks.items()}
    if not differing:
        return Comparison([PartitionParity(key, *counts[key]) for key in sorted(counts, key=_order)])

    differences = _differences(sides, columns, partition_by, differing, window).cache()
    try:
        per_partition = {
            tuple(row[name] for name in partition_by): (row.only_stream, row.only_batch)
            for row in differences.groupBy(*partition_by)
            .agg(F.sum("only_stream").alias("only_stream"), F.sum("only_batch").alias("only_batch"))
            .collect()
        }
        lacking = [
            differences.where(F.col(f"only_{side}") > 0)
            .orderBy(*columns)
            .limit(samples)
            .withColumn("side", F.lit(side))
            for side in (STREAM, BATCH)
        ]
        found = [
            Difference(row.side, row[f"only_{row.side}"], {name: row[name] for name in columns})
            for row in lacking[0].unionByName(lacking[1]).collect()
        ]
    finally:
        differences.unpersist()
    partitions = [
        PartitionParity(key, *counts[key], *per_partition.get(key, (0, 0))) for key in sorted(counts, key=_order)
    ]
    return Comparison(partitions, found)


def _marks(
    sides: dict[str, DataFrame], columns: Sequence[str], partition_by: Sequence[str]
) -> dict[tuple[Any, ...], dict[str, tuple[int, ...]]]:
    """Partition → side → its fingerprint."""
    both = [fingerprints(rows, columns, partition_by).withColumn("side", F.lit(side)) for side, rows in sides.items()]
    found: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}
    for row in both[0].unionByName(both[1]).collect():
        key = tuple(row[name] for name in partition_by)
        found.setdefault(key, {})[row.side] = tuple(row[name] for name in (COUNT, *SUMS))
    return found


def _differences(
    sides: dict[str, DataFrame],
    columns: Sequence[str],
    partition_by: Sequence[str],
    partitions: Sequence[tuple[Any, ...]],
    window: Window | None,
) -> DataFrame:
    """`columns`, only_stream, only_batch: the rows that one side has more often than the other."""
    weighed = []
    for side, rows in sides.items():
        chosen = _in_partitions(rows, partition_by, partitions)
        if window is None:
            must, may = F.lit(1), F.lit(1)
        else:
            chosen = chosen.where(window.of_both() | window.wide(side))
            must, may = window.of_both().cast("int"), window.wide(side).cast("int")
        nothing = F.lit(0)
        weights = {STREAM: (nothing, nothing), BATCH: (nothing, nothing)} | {side: (must, may)}
        weighed.append(
            chosen.select(
                *columns,
                *[weights[of][0].alias(f"must_{of}") for of in (STREAM, BATCH)],
                *[weights[of][1].alias(f"may_{of}") for of in (STREAM, BATCH)],
            )
        )
    more = {STREAM: F.sum("must_stream") - F.sum("may_batch"), BATCH: F.sum("must_batch") - F.sum("may_stream")}
    return (
        weighed[0]
        .unionByName(weighed[1])
        .groupBy(*columns)
        .agg(*[F.greatest(extra, F.lit(0)).alias(f"only_{side}") for side, extra in more.items()])
        .where((F.col("only_stream") > 0) | (F.col("only_batch") > 0))
    )


def _in_partitions(rows: DataFrame, partition_by: Sequence[str], partitions: Sequence[tuple[Any, ...]]) -> DataFrame:
    if len(partitions) > NAMED_PARTITIONS:
        # Too many to name: the partitions' values are sent to where the rows are.
        schema = rows.select(*[F.col(name).alias(f"_{name}") for name in partition_by]).schema
        wanted = F.broadcast(rows.sparkSession.createDataFrame([Row(*key) for key in partitions], schema))
        same = reduce(
            lambda one, other: one & other, [F.col(name).eqNullSafe(F.col(f"_{name}")) for name in partition_by]
        )
        return rows.join(wanted, same, "left_semi")
    named = [
        reduce(lambda one, other: one & other, [F.col(name).eqNullSafe(F.lit(value)) for name, value in pairs])
        for pairs in (list(zip(partition_by, key, strict=True)) for key in partitions)
    ]
    return rows.where(reduce(lambda one, other: one | other, named))


def _between(since: datetime | None, until: datetime | None) -> Column:
    """Rows whose ARRIVAL lies in [since, until); one without an arrival time lies in no window."""
    arrival = F.col(ARRIVAL)
    bounds = [arrival.isNotNull()]
    if since is not None:
        bounds.append(arrival >= F.lit(since))
    if until is not None:
        bounds.append(arrival < F.lit(until))
    return reduce(lambda one, other: one & other, bounds)


def _count(mark: tuple[int, ...] | None) -> int:
    return mark[0] if mark else 0


def _order(key: tuple[Any, ...]) -> tuple[tuple[bool, str], ...]:
    return tuple((value is not None, str(value)) for value in key)
