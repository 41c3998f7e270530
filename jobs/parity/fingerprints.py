"""A fingerprint of each partition of a table: the number of rows, and sums of their hashes, in any order.

`comparison` compares rows only in partitions whose fingerprints differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

# Two hashes of each row, with different salts. A 64-bit hash is summed in two halves, because its sum would overflow.
_SALTS = ("one", "other")
_LOW = 0xFFFFFFFF

COUNT = "rows"
SUMS = tuple(f"sum_{salt}_{half}" for salt in _SALTS for half in ("high", "low"))


def row_hash(columns: Sequence[str], salt: str) -> Column:
    """A 64-bit hash of a row. xxhash64 skips nulls, so the hash also includes which columns are null."""
    nulls = [F.col(name).isNull() for name in columns]
    return F.xxhash64(F.lit(salt), *[F.col(name) for name in columns], *nulls)


def fingerprints(rows: DataFrame, columns: Sequence[str], partition_by: Sequence[str]) -> DataFrame:
    """One row a partition: `partition_by`, COUNT and SUMS. The same rows in any order give the same fingerprint."""
    hashes = {salt: row_hash(columns, salt) for salt in _SALTS}
    hashed = rows.select(*partition_by, *[column.alias(salt) for salt, column in hashes.items()])
    sums: list[Column] = []
    for salt in _SALTS:
        halves = (F.shiftrightunsigned(F.col(salt), 32), F.col(salt).bitwiseAND(F.lit(_LOW)))
        sums += [F.sum(half) for half in halves]
    named = [column.alias(name) for name, column in zip(SUMS, sums, strict=True)]
    return hashed.groupBy(*partition_by).agg(F.count(F.lit(1)).alias(COUNT), *named)
