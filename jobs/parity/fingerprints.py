"""A table's fingerprint, partition by partition: how many rows, and sums over their hashes that know no order.

`comparison` looks at rows only where two fingerprints differ. Reads each table once and keeps a few numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

# Two hashes that start from different values; a row's hash is 64 bits, summed in two halves, for a sum of whole
# 64-bit numbers overflows.
_SALTS = ("one", "other")
_LOW = 0xFFFFFFFF

COUNT = "rows"
SUMS = tuple(f"sum_{salt}_{half}" for salt in _SALTS for half in ("high", "low"))


def row_hash(columns: Sequence[str], salt: str) -> Column:
    """64 bits of a row. xxhash64 passes over nulls, so that which columns are null is hashed as well."""
    nulls = [F.col(name).isNull() for name in columns]
    return F.xxhash64(F.lit(salt), *[F.col(name) for name in columns], *nulls)


def fingerprints(rows: DataFrame, columns: Sequence[str], partition_by: Sequence[str]) -> DataFrame:
    """One row a partition: `partition_by`, COUNT and SUMS. Equal rows, in any order, give an equal fingerprint."""
    hashes = {salt: row_hash(columns, salt) for salt in _SALTS}
    hashed = rows.select(*partition_by, *[column.alias(salt) for salt, column in hashes.items()])
    sums: list[Column] = []
    for salt in _SALTS:
        halves = (F.shiftrightunsigned(F.col(salt), 32), F.col(salt).bitwiseAND(F.lit(_LOW)))
        sums += [F.sum(half) for half in halves]
    named = [column.alias(name) for name, column in zip(SUMS, sums, strict=True)]
    return hashed.groupBy(*partition_by).agg(F.count(F.lit(1)).alias(COUNT), *named)
