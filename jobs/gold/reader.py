"""Reads a task's processed files into Arrow batches of the gold tables' columns; `transforms` takes them next.

The partition's values come with the file's name, not from its folder, because compaction moves partitions to other
folders. A file may also contain rows of other batches; the column `batch` selects the rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.common.errors import TransientError
from jobs.gold.centroid import centroid_of
from jobs.gold.tables import CORRIDORS, ZONES, GoldTable
from jobs.lake.store import Lake, lake_at
from jobs.lake.table_files import LiveFile
from jobs.schema.partitions import parse_partition_path
from jobs.schema.record_parser import ARROW_TYPES

# Rows of one Arrow batch: with geometry a row may have 100 KB.
_ROWS, _ROWS_WITH_GEOMETRY = 65_536, 4_096
# The bytes that one task reads; the cost of one request, in bytes that could be read in the same time.
_TASK_BYTES, _FILE_BYTES = 64 * 1024 * 1024, 256 * 1024


def split_into_tasks(files: Sequence[LiveFile], parallel: int) -> list[list[LiveFile]]:
    """Divides the files into tasks of about equal bytes: at least `parallel` if the files are large enough."""
    total = sum(file.bytes + _FILE_BYTES for file in files)
    target = min(_TASK_BYTES, max(total // max(parallel, 1), 16 * _FILE_BYTES))
    tasks: list[list[LiveFile]] = []
    load = target
    for file in sorted(files):
        if load >= target:
            tasks.append([])
            load = 0
        tasks[-1].append(file)
        load += file.bytes + _FILE_BYTES
    return tasks


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of `batches`, for `mapInArrow` over task numbers. Yields the columns of `corridors`.

    It can be pickled, because it opens the lake where it runs.
    """

    tasks: Sequence[Sequence[LiveFile]]
    batches: frozenset[str]
    lake: str

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        names = [name for name, _, _ in CORRIDORS.columns]
        for rows in self.read(numbers, names, _ROWS):
            yield from typed(rows, CORRIDORS).to_batches()

    def read(self, numbers: Iterable[pa.RecordBatch], names: Sequence[str], size: int) -> Iterator[pa.Table]:
        """The rows of the numbered tasks, with the columns `names`, in batches of at most `size`."""
        lake = lake_at(self.lake)
        wanted = pa.array(sorted(self.batches), pa.string())
        for batch in numbers:
            for number in batch["id"].to_pylist():
                for file in self.tasks[number]:
                    for rows in _read(lake, file, names, size):
                        rows = rows.filter(pc.is_in(rows["batch"], value_set=wanted))
                        if rows.num_rows:
                            yield rows


@dataclass(frozen=True)
class ZoneReader:
    """Like RowReader, but yields the columns of `zones`: for each zone, the task's latest row by `latest_zones`."""

    rows: RowReader
    names: Sequence[str] = field(
        default=(
            "city",
            *(f"{end}_{part}" for end in ("origin", "destination") for part in ("movement_id", "display_name")),
            "origin_geometry",
            "destination_geometry",
            *(name for name, _, _ in ZONES.columns[-4:]),
        )
    )

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found: pa.Table | None = None
        for rows in self.rows.read(numbers, self.names, _ROWS_WITH_GEOMETRY):
            met = latest_zones(pa.concat_tables(zone_rows(rows, end) for end in ("origin", "destination")))
            found = met if found is None else latest_zones(pa.concat_tables([found, met]))
        if found is not None:
            points = [centroid_of(geometry) or (None, None) for geometry in found["geometry"].to_pylist()]
            for position, name in enumerate(("centroid_longitude", "centroid_latitude")):
                values = pa.array([point[position] for point in points], pa.float64())
                found = found.append_column(name, values)
            yield from typed(found, ZONES).to_batches()


def zone_rows(rows: pa.Table, end: str) -> pa.Table:
    """The zones at one end (`origin` or `destination`) of the rows. An empty name or geometry becomes null."""
    columns = {"city": rows["city"], "movement_id": rows[f"{end}_movement_id"]}
    for name in ("display_name", "geometry"):
        values = rows[f"{end}_{name}"]
        columns[name] = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    return pa.table(columns | {name: rows[name] for name, _, _ in ZONES.columns[-4:]})


def latest_zones(zones: pa.Table) -> pa.Table:
    """One row a zone: first choice a row with a geometry, then one with a name, then the latest.

    `transforms.zone_order` is the same order for Spark.
    """
    keys = ["city", "movement_id"]
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
    by = {name: zones[name] for name in keys} | {f"o{number}": values for number, values in enumerate(order)}
    table = pa.table(by)
    best = pc.sort_indices(table, [(name, "ascending" if name in keys else "descending") for name in by])
    sorted_keys = table.select(keys).take(best)
    first = [True] * min(1, len(best))
    if len(best) > 1:
        changed = [
            pc.fill_null(pc.not_equal(values[1:], values[:-1]), True)
            for values in (sorted_keys[name].combine_chunks() for name in keys)
        ]
        first += pc.or_(*changed).to_pylist()
    return zones.take(best.filter(pa.array(first, pa.bool_())))


def typed(rows: pa.Table, table: GoldTable) -> pa.Table:
    """The rows with exactly the table's columns and types."""
    schema = pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind, _ in table.columns])
    return rows.select(schema.names).cast(schema)


def _read(lake: Lake, file: LiveFile, names: Sequence[str], size: int) -> Iterator[pa.Table]:
    content = lake.get(file.path)
    if content is None:
        raise TransientError(
            f"{lake.uri}/{file.path} is gone since the run was planned: run it again. If it is still gone, another "
            "program deleted the file, and its rows must be replayed from raw"
        )
    parquet = pq.ParquetFile(io.BytesIO(content))
    within = set(parquet.schema_arrow.names)
    partition = parse_partition_path(file.partition)
    for batch in parquet.iter_batches(size, columns=[name for name in names if name in within]):
        # Partition columns are not in the file; a column that the file does not have is null.
        columns = {
            name: batch[name]
            if name in within
            else pa.repeat(pa.scalar(partition.get(name), pa.string()), batch.num_rows)
            for name in names
        }
        yield pa.table(columns)
