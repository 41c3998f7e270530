"""Compares two tables row for row, as multisets: DataFrames in, differences out.

The first pass compares a fingerprint of each partition. The second compares rows, only in partitions whose fingerprints
differ: +1 for a row of one side, -1 for a row of the other, summed over equal rows. Both are aggregations that Spark
can spill to disk, so memory does not grow with the tables.

In a time window the two sides do not start and end with the same rows, because the batch side only knows the arrival of
a file's oldest record. Then the stream's rows of the window must be among the batch side's rows of a wider window, and
the other way round.
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

# Up to this many differing partitions are named in Spark's filter, so that Spark skips the others.
NAMED_PARTITIONS = 200

STREAM, BATCH = "stream", "batch"
ARRIVAL = "arrival_time"


@dataclass(frozen=True)
class Window:
    """The rows that arrived in [since, until); None is no bound. Times have a zone.

    `delivery`: the longest time between the arrival of a file's oldest record, its name's time, and of its newest.
    """

    since: datetime | None
    until: datetime | None
    delivery: timedelta = timedelta(hours=1)

    def of_both(self) -> Column:
        """The rows of the window."""
        return _between(self.since, self.until)

    def wide(self, side: str) -> Column:
        """The rows of one side that must include the other side's rows of the window."""
        if side == BATCH:
            return _between(self.since and self.since - self.delivery, self.until)
        return _between(self.since, self.until and self.until + self.delivery)


@dataclass(frozen=True)
class PartitionParity:
    """A partition's rows on each side, and how many one side lacks (a row twice here and once there counts 1)."""

    partition: tuple[Any, ...]
    stream: int
    batch: int
    only_stream: int = 0
    only_batch: int = 0


@dataclass(frozen=True)
class Difference:
    """A row that `side` has `count` times more often than the other side."""

    side: str
    count: int
    row: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: every partition, and sample rows that one side lacks."""

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
    """Compares `columns`, which include `partition_by`, of two tables. A `window` also needs the column ARRIVAL.

    At most `samples` sample rows of each side are returned.
    """
    sides = {STREAM: stream, BATCH: batch}
    inside = {side: rows.where(window.of_both()) if window else rows for side, rows in sides.items()}
    prints = _fingerprints_by_partition(inside, columns, partition_by)
    differing = [key for key, of in prints.items() if of.get(STREAM) != of.get(BATCH)]
    counts = {key: (_count(of.get(STREAM)), _count(of.get(BATCH))) for key, of in prints.items()}
    if not differing:
        return Comparison([PartitionParity(key, *counts[key]) for key in sorted(counts, key=_order)])

    differences = _differences(sides, columns, partition_by, differing, window).cache()
    try:
        per_partition = {
            tuple(row[name] for name in partition_by): (row.only_stream or 0, row.only_batch or 0)
            for row in differences.groupBy(*partition_by)
            .agg(F.sum("only_stream").alias("only_stream"), F.sum("only_batch").alias("only_batch"))
            .collect()
        }
        samples_by_side = [
            differences.where(F.col(f"only_{side}") > 0)
            .orderBy(*columns)
            .limit(samples)
            .withColumn("side", F.lit(side))
            for side in (STREAM, BATCH)
        ]
        found = [
            Difference(row.side, row[f"only_{row.side}"], {name: row[name] for name in columns})
            for row in samples_by_side[0].unionByName(samples_by_side[1]).collect()
        ]
    finally:
        differences.unpersist()
    partitions = [
        PartitionParity(key, *counts[key], *per_partition.get(key, (0, 0))) for key in sorted(counts, key=_order)
    ]
    return Comparison(partitions, found)


def _fingerprints_by_partition(
    sides: dict[str, DataFrame], columns: Sequence[str], partition_by: Sequence[str]
) -> dict[tuple[Any, ...], dict[str, tuple[int, ...]]]:
    """The fingerprints of each partition, by side."""
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
    """The rows that one side has more often, with their excess: `columns`, only_stream, only_batch."""
    weighted = []
    for side, rows in sides.items():
        chosen = in_partitions(rows, partition_by, partitions)
        if window is None:
            must, may = F.lit(1), F.lit(1)
        else:
            chosen = chosen.where(window.of_both() | window.wide(side))
            must, may = window.of_both().cast("int"), window.wide(side).cast("int")
        nothing = F.lit(0)
        weights = {STREAM: (nothing, nothing), BATCH: (nothing, nothing)} | {side: (must, may)}
        weighted.append(
            chosen.select(
                *columns,
                *[weights[of][0].alias(f"must_{of}") for of in (STREAM, BATCH)],
                *[weights[of][1].alias(f"may_{of}") for of in (STREAM, BATCH)],
            )
        )
    more = {STREAM: F.sum("must_stream") - F.sum("may_batch"), BATCH: F.sum("must_batch") - F.sum("may_stream")}
    return (
        weighted[0]
        .unionByName(weighted[1])
        .groupBy(*columns)
        .agg(*[F.greatest(extra, F.lit(0)).alias(f"only_{side}") for side, extra in more.items()])
        .where((F.col("only_stream") > 0) | (F.col("only_batch") > 0))
    )


def in_partitions(rows: DataFrame, partition_by: Sequence[str], partitions: Sequence[tuple[Any, ...]]) -> DataFrame:
    """The rows of the given partitions; all rows if no columns partition."""
    if not partition_by:
        return rows
    if len(partitions) > NAMED_PARTITIONS:
        # Too many for a filter: join with the partitions' values.
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
    """Rows whose ARRIVAL is in [since, until); a row without an arrival time is in no window."""
    arrival = F.col(ARRIVAL)
    bounds = [arrival.isNotNull()]
    if since is not None:
        bounds.append(arrival >= F.lit(since))
    if until is not None:
        bounds.append(arrival < F.lit(until))
    return reduce(lambda one, other: one & other, bounds)


def _count(fingerprint: tuple[int, ...] | None) -> int:
    return fingerprint[0] if fingerprint else 0


def _order(key: tuple[Any, ...]) -> tuple[tuple[bool, str], ...]:
    return tuple((value is not None, str(value)) for value in key)
