"""Zones: the places that the ends of a row name, with outline and centroid. `kind: zones` of the contract turns it on.

Each task chooses its best row of each zone in Arrow, because outlines have up to 58 KB and repeat; Spark then chooses
among the tasks' rows by the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column
from pyspark.sql import functions as F

from jobs.gold.centroid import centroid_of
from jobs.gold.reader import RowReader
from jobs.gold.tables import GoldTable
from jobs.gold.transforms import arrival_order, ordering
from jobs.schema.gold_section import ZoneEnd, ZonesTable
from jobs.schema.table import PROVENANCE
from jobs.schema.types import data_type

# Rows of one Arrow batch: with geometry a row may have 100 KB.
_ROWS = 4_096


def zone_order(prefix: str = "") -> Column:
    """The order of a zone's rows: rows with a geometry are greatest, then rows with a name, then the latest."""
    name, geometry = F.col(f"{prefix}display_name"), F.col(f"{prefix}geometry")
    return ordering([geometry.isNotNull(), name.isNotNull(), *arrival_order(prefix), name, geometry])


@dataclass(frozen=True)
class ZoneReader:
    """Reads the zones of the rows that `rows` reads, for `mapInArrow` over task numbers.

    `rows` reads the columns that `table.needs`. Yields the table's columns: for each zone the task's greatest row.
    """

    rows: RowReader
    table: GoldTable

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        spec = self.table.spec
        if not isinstance(spec, ZonesTable):
            raise TypeError(f"{self.table.name} has no zones")
        found: pa.Table | None = None
        for rows in self.rows.read(numbers, _ROWS):
            met = greatest_zones(pa.concat_tables(zone_rows(rows, spec, end) for end in spec.ends), self.table.key)
            found = met if found is None else greatest_zones(pa.concat_tables([found, met]), self.table.key)
        if found is not None:
            points = [centroid_of(geometry) or (None, None) for geometry in found["geometry"].to_pylist()]
            for position, name in enumerate(("centroid_longitude", "centroid_latitude")):
                values = pa.array([point[position] for point in points], pa.float64())
                found = found.append_column(name, values)
            schema = pa.schema([pa.field(name, data_type(kind).arrow()) for name, kind, _ in self.table.columns])
            yield from found.select(schema.names).cast(schema).to_batches()


def zone_rows(rows: pa.Table, spec: ZonesTable, end: ZoneEnd) -> pa.Table:
    """The zones at one end of the rows. An empty name or geometry becomes null."""
    columns = {name: rows[name] for name in spec.within} | {"movement_id": rows[end.id]}
    for name, values in (("display_name", rows[end.name]), ("geometry", rows[end.geometry])):
        columns[name] = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    return pa.table(columns | {name: rows[name] for name in PROVENANCE})


def greatest_zones(zones: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """One row a zone, the greatest by the order of `zone_order`."""
    sequence = pc.list_flatten(pc.list_slice(pc.split_pattern(zones["sequence_number"], ":"), 0, 1))
    order = [
        pc.is_valid(zones["geometry"]),
        pc.is_valid(zones["display_name"]),
        zones["arrival_time"],
        pc.utf8_length(sequence),
        sequence,
        pc.utf8_length(zones["sequence_number"]),
        *(zones[name] for name in ("sequence_number", "shard_id", "batch", "display_name", "geometry")),
    ]
    by = {name: zones[name] for name in key} | {f"o{number}": values for number, values in enumerate(order)}
    table = pa.table(by)
    best = pc.sort_indices(table, [(name, "ascending" if name in key else "descending") for name in by])
    sorted_keys = table.select(list(key)).take(best)
    first = [True] * min(1, len(best))
    if len(best) > 1:
        changed = [
            pc.fill_null(pc.not_equal(values[1:], values[:-1]), True)
            for values in (sorted_keys[name].combine_chunks() for name in key)
        ]
        different = changed[0]
        for each in changed[1:]:
            different = pc.or_(different, each)
        first += different.to_pylist()
    return zones.take(best.filter(pa.array(first, pa.bool_())))
