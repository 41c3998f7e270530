"""Merges the rows of many processed files into few: reads some files at a time, sorts them, writes large files."""

from __future__ import annotations

import io
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.common.errors import TransientError
from jobs.lake.store import AT_ONCE, Lake
from jobs.lake.task_report import TableName
from jobs.maintenance.partition_move import StoredFile
from jobs.schema.table import TableContract
from jobs.write.processed import SortedParquet, file_schema
from jobs.write.rolling_files import RollingFiles

# Arrow bytes that are sorted together.
SORT_BYTES = 256 * 1024 * 1024
# Arrow bytes of a row group. Larger than the stream's, which has several partitions in memory at once.
_ROW_GROUP_BYTES = 32 * 1024 * 1024
# Parquet bytes that are prefetched.
_PREFETCH_BYTES = 64 * 1024 * 1024
_WIDENINGS = {
    (pa.int32(), pa.int64()),
    (pa.int32(), pa.float64()),
    (pa.timestamp("us"), pa.timestamp("us", tz="UTC")),
}


@dataclass(frozen=True)
class Rewriter:
    """Writes new files of a table. `prefix`: the start of their names, one of OUTPUT_PREFIXES."""

    lake: Lake
    contract: TableContract
    table: TableName
    prefix: str
    compression: str
    target_bytes: int

    def write(self, partition: str, rows: Iterable[pa.Table], location: str) -> None:
        """Writes rows of `file_schema` into files of about `target_bytes` in the location. No rows make no file.

        Each call uses new file names, because files of an earlier call may be copied to the same location.
        """
        name = f"{self.prefix}{uuid.uuid4().hex[:12]}"
        parquet = partial(
            SortedParquet, contract=self.contract, compression=self.compression, row_group_bytes=_ROW_GROUP_BYTES
        )
        files = RollingFiles(self.lake, self.table, name, parquet, self.target_bytes, {partition: location})
        order = [(name, "ascending") for name in self.contract.sort_by if name not in self.contract.partition_by]
        for chunk in _chunks(rows):
            chosen = chunk.sort_by(order) if order else chunk
            # One row group per slice, so that its statistics cover neighbouring rows.
            step = max(1, chosen.num_rows * _ROW_GROUP_BYTES // max(chosen.nbytes, 1))
            for start in range(0, chosen.num_rows, step):
                files.write(partition, chosen.slice(start, step))
        files.close()

    def read(
        self, files: Iterable[StoredFile], incompatible: list[StoredFile], without: frozenset[str] = frozenset()
    ) -> Iterator[pa.Table]:
        """The files' rows as `file_schema`, except those of the batches `without`.

        A missing column becomes null; a narrower type is widened. A file with an unknown column, or with a type that
        does not fit into the contract's, is not read but appended to `incompatible`.
        """
        schema = file_schema(self.contract)
        dropped = pa.array(sorted(without), pa.string())
        for file, content in _prefetch(self.lake, files):
            parquet = pq.ParquetFile(io.BytesIO(content))
            if not _fits(parquet.schema_arrow, schema):
                incompatible.append(file)
                continue
            for group in range(parquet.num_row_groups):
                # Without threads: they cost more than they save on small row groups.
                rows = _convert(parquet.read_row_group(group, use_threads=False), schema)
                if without:
                    rows = rows.filter(pc.invert(pc.is_in(rows["batch"], value_set=dropped)))
                yield rows

    def holds(self, file: StoredFile, batches: frozenset[str]) -> bool:
        """Whether the file has a row of one of the batches."""
        found = pq.read_table(io.BytesIO(self.lake.get(file.path) or b""), columns=["batch"])["batch"]
        return bool(pc.any(pc.is_in(found, value_set=pa.array(sorted(batches), pa.string()))).as_py())


def _chunks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in tables of about SORT_BYTES."""
    pending: list[pa.Table] = []
    size = 0
    for table in tables:
        if not table.num_rows:
            continue
        pending.append(table)
        size += table.nbytes
        if size >= SORT_BYTES:
            yield pa.concat_tables(pending)
            pending, size = [], 0
    if pending:
        yield pa.concat_tables(pending)


def _fits(found: pa.Schema, schema: pa.Schema) -> bool:
    """Whether rows of `found` fit into `schema` without loss."""
    return all(
        field.name in schema.names
        and (field.type, schema.field(field.name).type) in _WIDENINGS | {(field.type, field.type)}
        for field in found
    )


def _prefetch(lake: Lake, files: Iterable[StoredFile]) -> Iterator[tuple[StoredFile, bytes]]:
    """The files with their contents, in order. Reads some of the next files in parallel."""
    pending: deque[tuple[StoredFile, Future[bytes | None]]] = deque()
    pending_bytes = 0
    with ThreadPoolExecutor(AT_ONCE) as readers:
        for file in files:
            pending.append((file, readers.submit(lake.get, file.path)))
            pending_bytes += file.bytes
            while pending and (pending_bytes > _PREFETCH_BYTES or len(pending) > AT_ONCE):
                pending_bytes -= pending[0][0].bytes
                yield _content(lake, *pending.popleft())
        while pending:
            yield _content(lake, *pending.popleft())


def _content(lake: Lake, file: StoredFile, fetched: Future[bytes | None]) -> tuple[StoredFile, bytes]:
    content = fetched.result()
    if content is None:
        raise TransientError(f"{lake.uri}/{file.path} is gone: another process has deleted it. Run this again")
    return file, content


def _convert(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
