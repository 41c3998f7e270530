"""Reads a task's processed files into Arrow batches of columns that the gold tables need; `transforms` takes them next.

The partition's values come with the file's name, not from its folder, because compaction moves partitions to other
folders. A file may also contain rows of other batches; the column `batch` selects the rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.common.errors import TransientError
from jobs.lake.store import Lake, lake_at
from jobs.lake.table_files import LiveFile
from jobs.schema.partitions import parse_partition_path
from jobs.schema.types import data_type

# Rows of one Arrow batch. A contract may have long texts: 10 KB a row make 160 MB.
_ROWS = 16_384
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
    """Reads the rows of `batches`, for `mapInArrow` over task numbers. Yields `columns`, (name, type) pairs.

    It can be pickled, because it opens the lake where it runs.
    """

    tasks: Sequence[Sequence[LiveFile]]
    batches: frozenset[str]
    lake: str
    columns: tuple[tuple[str, str], ...]

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in self.read(numbers, _ROWS):
            yield from rows.to_batches()

    def read(self, numbers: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
        """The rows of the numbered tasks, in batches of at most `size`."""
        lake = lake_at(self.lake)
        schema = pa.schema([pa.field(name, data_type(kind).arrow()) for name, kind in self.columns])
        within = schema if "batch" in schema.names else schema.append(pa.field("batch", pa.string()))
        wanted = pa.array(sorted(self.batches), pa.string())
        for batch in numbers:
            for number in batch["id"].to_pylist():
                for file in self.tasks[number]:
                    for rows in _read(lake, file, within, size):
                        rows = rows.filter(pc.is_in(rows["batch"], value_set=wanted)).select(schema.names)
                        if rows.num_rows:
                            yield rows


def _read(lake: Lake, file: LiveFile, schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    content = lake.get(file.path)
    if content is None:
        raise TransientError(
            f"{lake.uri}/{file.path} is gone since the run was planned: run it again. If it is still gone, another "
            "program deleted the file, and its rows must be replayed from raw"
        )
    parquet = pq.ParquetFile(io.BytesIO(content))
    stored = set(parquet.schema_arrow.names)
    partition = parse_partition_path(file.partition) if file.partition else {}
    for batch in parquet.iter_batches(size, columns=[name for name in schema.names if name in stored]):

        def values(field: pa.Field, batch: pa.RecordBatch = batch) -> pa.Array:
            if field.name in stored:
                return batch[field.name]
            # Partition columns are not in the file; a column that the file does not have is null.
            text = partition.get(field.name)
            if text is None:
                return pa.nulls(batch.num_rows, field.type)
            return pa.repeat(pa.scalar(text, pa.string()), batch.num_rows)

        yield pa.table({field.name: values(field) for field in schema}).cast(schema)
