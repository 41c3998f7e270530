"""A task's processed files → Arrow batches of gold's columns. `frames` and the tables come next.

A file is read by its path and takes its partition from whoever named it, not from its folder: compaction moves
partitions to other folders. A file may hold rows of other batches too; a row's column `batch` decides.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.common.errors import TransientError
from jobs.gold.centroid import centroid_of
from jobs.gold.increments import SourceFile
from jobs.gold.tables import CORRIDORS, ZONES, GoldTable
from jobs.schema.partitions import parse_partition_path
from jobs.schema.record_parser import ARROW_TYPES

# Rows of Arrow at once: with geometry a row may have 100 KB.
_ROWS, _ROWS_WITH_GEOMETRY = 65_536, 4_096
# A task reads about so much; a file costs a request even if it is small.
_TASK_BYTES, _FILE_BYTES = 64 * 1024 * 1024, 256 * 1024


class Store(Protocol):
    """What is needed of a lake."""

    def get(self, path: str) -> bytes | None: ...


def tasks_of(files: Sequence[SourceFile], parallel: int) -> list[list[SourceFile]]:
    """Files over tasks of about the same bytes: no more tasks than needed, and no fewer than `parallel` use."""
    total = sum(file.bytes + _FILE_BYTES for file in files)
    target = min(_TASK_BYTES, max(total // max(parallel, 1), 16 * _FILE_BYTES))
    tasks: list[list[SourceFile]] = []
    load = target
    for file in sorted(files):
        if load >= target:
            tasks.append([])
            load = 0
        tasks[-1].append(file)
        load += file.bytes + _FILE_BYTES
    return tasks


@dataclass(frozen=True)
class ReadRows:
    """For `mapInArrow` over task numbers; pickles, and opens the lake where it runs.

    `batches`: the names of the batches whose rows are wanted. Yields the columns of `corridors`.
    """

    tasks: Sequence[Sequence[SourceFile]]
    batches: frozenset[str]
    lake: str
    open_lake: Callable[[str], Store]

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        names = [name for name, _, _ in CORRIDORS.columns]
        for rows in self.rows(numbers, names, _ROWS):
            yield from typed(rows, CORRIDORS).to_batches()

    def rows(self, numbers: Iterable[pa.RecordBatch], names: Sequence[str], size: int) -> Iterator[pa.Table]:
        """The wanted rows of the numbered tasks' files, with the columns `names`."""
        store = self.open_lake(self.lake)
        wanted = pa.array(sorted(self.batches), pa.string())
        for batch in numbers:
            for number in batch["id"].to_pylist():
                for file in self.tasks[number]:
                    for rows in _read(store, self.lake, file, names, size):
                        rows = rows.filter(pc.is_in(rows["batch"], value_set=wanted))
                        if rows.num_rows:
                            yield rows


@dataclass(frozen=True)
class ReadZones:
    """Yields the columns of `zones`: of each zone that a task meets, the row that counts among the task's own."""

    read: ReadRows
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
        for rows in self.read.rows(numbers, self.names, _ROWS_WITH_GEOMETRY):
            met = latest_zones(pa.concat_tables(zone_rows(rows, end) for end in ("origin", "destination")))
            found = met if found is None else latest_zones(pa.concat_tables([found, met]))
        if found is not None:
            points = [centroid_of(geometry) or (None, None) for geometry in found["geometry"].to_pylist()]
            for position, name in enumerate(("centroid_longitude", "centroid_latitude")):
                values = pa.array([point[position] for point in points], pa.float64())
                found = found.append_column(name, values)
            yield from typed(found, ZONES).to_batches()


def zone_rows(rows: pa.Table, end: str) -> pa.Table:
    """The zones at one end (`origin`, `destination`) of rows; an empty name or geometry is null."""
    columns = {"city": rows["city"], "movement_id": rows[f"{end}_movement_id"]}
    for name in ("display_name", "geometry"):
        values = rows[f"{end}_{name}"]
        columns[name] = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    return pa.table(columns | {name: rows[name] for name, _, _ in ZONES.columns[-4:]})


def latest_zones(zones: pa.Table) -> pa.Table:
    """One row a zone: one with a geometry before one without, then one with a name, then the latest.

    `frames.zone_order` says the same to Spark.
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
    """Rows with exactly the table's columns and types."""
    schema = pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind, _ in table.columns])
    return rows.select(schema.names).cast(schema)


def _read(store: Store, lake: str, file: SourceFile, names: Sequence[str], size: int) -> Iterator[pa.Table]:
    content = store.get(file.path)
    if content is None:
        raise TransientError(
            f"{lake}/{file.path} is gone since the run was planned: run it again. If it stays so, the file was deleted "
            "by something other than this project, and its rows must be replayed from raw"
        )
    parquet = pq.ParquetFile(io.BytesIO(content))
    within = set(parquet.schema_arrow.names)
    partition = parse_partition_path(file.partition)
    for batch in parquet.iter_batches(size, columns=[name for name in names if name in within]):
        # A column that the file was written without is null; the partition's stand in no file.
        columns = {
            name: batch[name]
            if name in within
            else pa.repeat(pa.scalar(partition.get(name), pa.string()), batch.num_rows)
            for name in names
        }
        yield pa.table(columns)
