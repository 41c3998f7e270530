"""Computes the gold tables' rows: DataFrames in, DataFrames out, no I/O.

"Latest" is one total order: by the table's `order_by`, then by arrival, sequence number (up to 56 digits, stored as
text), shard, batch and the row's other columns. So the tables do not depend on the order of the increments.

An aggregate's value is either merged (count, sum, avg, min and max of processed rows: `increment`, `merged_values`) or
computed again from another gold table for the groups of the new rows (`recomputed`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.gold.tables import GoldTable
from jobs.schema.expressions import evaluate, is_column
from jobs.schema.gold_section import ANY, AggregateTable, LatestTable, Measure, measure_columns
from jobs.schema.table import PROVENANCE

_OPERATORS: Mapping[str, Callable[[Column, Column], Column]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": F.try_divide,  # null for a division by 0
}


def arrival_order(prefix: str = "") -> list[Column]:
    """The columns that order rows by arrival. `prefix`, such as `t.`, is the table's alias."""
    sequence = F.col(f"{prefix}sequence_number")
    main = F.substring_index(sequence, ":", 1)
    return [
        F.col(f"{prefix}arrival_time"),
        F.length(main),
        main,
        F.length(sequence),  # a user record of a KPL aggregate is <sequence>:<number>
        sequence,
        F.col(f"{prefix}shard_id"),
        F.col(f"{prefix}batch"),
    ]


def latest_order(table: GoldTable, prefix: str = "") -> Column:
    """The order of a key's rows; the greatest row is the one that the table keeps."""
    first = [table.spec.order_by] if isinstance(table.spec, LatestTable) and table.spec.order_by else []
    rest = [name for name in _payload(table) if name not in PROVENANCE and "map<" not in table.types[name]]
    return ordering(
        [
            *(F.col(f"{prefix}{name}") for name in first),
            *arrival_order(prefix),
            *(F.col(f"{prefix}{name}") for name in rest),
        ]
    )


def latest_rows(rows: DataFrame, table: GoldTable, order: Column | None = None) -> DataFrame:
    """The greatest row of each key by `order`, or by `latest_order`."""
    payload = F.struct(*_payload(table))
    chosen = rows.groupBy(*table.key).agg(F.max_by(payload, latest_order(table) if order is None else order).alias("_"))
    return chosen.select(*(F.col(name) if name in table.key else F.col(f"_.{name}") for name, _, _ in table.columns))


def increment(rows: DataFrame, table: GoldTable) -> DataFrame:
    """The groups of new rows, each with the values of the measures that are merged: over these rows alone."""
    spec = _aggregate(table)
    values = _values(table, merged=True)
    groups = [F.col(name) for name in spec.group_by]
    return rows.groupBy(*groups).agg(*values) if values else rows.select(*groups).distinct()


def recomputed(source: DataFrame, table: GoldTable, groups: DataFrame | None) -> DataFrame:
    """The rows of `groups` (see `increment`), or of every group if None, computed from the table's source.

    The measures that are merged have the values that `groups` has.
    """
    spec = _aggregate(table)
    merged = [
        part for name, each in spec.measures.items() if spec.is_merged(each) for part in measure_columns(spec, name)
    ]
    values = _values(table, merged=False)
    if groups is not None:
        renamed = {name: f"_g_{name}" for name in (*spec.group_by, *merged)}
        matches = F.lit(True)
        for name in spec.group_by:
            matches &= F.col(name).eqNullSafe(F.col(f"_g_{name}"))
        source = source.join(F.broadcast(groups.withColumnsRenamed(renamed)), matches)
        values += [F.max(f"_g_{name}").alias(name) for name in merged]  # one value a group
    return source.groupBy(*spec.group_by).agg(*values).select(*(F.col(name) for name, _, _ in table.columns))


def merged_values(table: GoldTable) -> dict[str, Column]:
    """The values of a group that is in the table (`t.`) and among the new rows (`s.`), by column."""
    spec = _aggregate(table)
    found = {name: F.col(f"s.{name}") for name in table.types}
    for name, measure in spec.measures.items():
        if not spec.is_merged(measure):
            continue
        if measure.function == "avg":
            _, total, count = measure_columns(spec, name)
            found[total], found[count] = _sum(total), _sum(count)
            found[name] = _mean(found[total], found[count])
        elif measure.function in ("min", "max"):
            smaller_or_greater = F.least if measure.function == "min" else F.greatest  # both skip nulls
            found[name] = smaller_or_greater(F.col(f"t.{name}"), F.col(f"s.{name}"))
        else:
            found[name] = _sum(name)
    return {name: value.cast(table.types[name]) for name, value in found.items()}


def ordering(columns: Sequence[Column]) -> Column:
    """Columns as one value that compares by the first, then by the second, …; null is least."""
    return F.struct(*(column.alias(f"o{number}") for number, column in enumerate(columns)))


def _values(table: GoldTable, *, merged: bool) -> list[Column]:
    """The columns of the measures that are merged, or of those that are computed again."""
    spec = _aggregate(table)
    found: list[Column] = []
    for name, measure in spec.measures.items():
        if spec.is_merged(measure) == merged:
            found += _aggregated(table, name, measure)
    return found


def _aggregated(table: GoldTable, name: str, measure: Measure) -> list[Column]:
    of = _value_of(measure)
    parts = measure_columns(_aggregate(table), name)
    if len(parts) == 3:
        total, count = F.sum(of.cast(table.types[parts[1]])), F.count(of)
        found = [_mean(total, count), total, count]
    elif measure.function == "percentile":
        found = [F.percentile(of, measure.at or 0.0)]
    else:
        found = [getattr(F, measure.function)(of)]
    return [value.cast(table.types[part]).alias(part) for part, value in zip(parts, found, strict=True)]


def _value_of(measure: Measure) -> Column:
    if measure.of == ANY:
        return F.lit(1)
    if is_column(measure.of):
        return F.col(measure.of)
    found: Column = evaluate(measure.of, lambda name: F.col(name).cast("double"), F.lit, _OPERATORS)
    return found


def _sum(name: str) -> Column:
    old, new = F.col(f"t.{name}"), F.col(f"s.{name}")
    return F.coalesce(old + new, old, new)


def _mean(total: Column, count: Column) -> Column:
    return F.try_divide(total.cast("double"), count.cast("double"))


def _aggregate(table: GoldTable) -> AggregateTable:
    if not isinstance(table.spec, AggregateTable):
        raise TypeError(f"{table.name} is no aggregate")
    return table.spec


def _payload(table: GoldTable) -> list[str]:
    return [name for name, _, _ in table.columns if name not in table.key]
