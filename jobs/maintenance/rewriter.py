"""Rows of many processed files → few files: read a few at a time, sorted, written up to the target size."""

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
from jobs.lake.store import Lake
from jobs.lake.task_report import TableName
from jobs.maintenance.partition_move import StoredFile
from jobs.schema.table import TableContract
from jobs.write.processed import SortedParquet, file_schema
from jobs.write.rolling_files import RollingFiles

# Arrow bytes that are sorted as one; Parquet bytes that are fetched ahead.
SORT_BYTES = 256 * 1024 * 1024
# A row group's Arrow bytes: more than the stream's, which has several partitions in memory at a time.
_ROW_GROUP_BYTES = 32 * 1024 * 1024
_AHEAD_BYTES = 64 * 1024 * 1024
_READERS = 16
_WIDENINGS = {
    (pa.int32(), pa.int64()),
    (pa.int32(), pa.float64()),
    (pa.timestamp("us"), pa.timestamp("us", tz="UTC")),
}


@dataclass(frozen=True)
class Rewriter:
    """Writes new files of a table, whose names begin with `prefix`: one of `layout.OUTPUTS`."""

    lake: Lake
    contract: TableContract
    table: TableName
    prefix: str
    compression: str
    target_bytes: int

    def write(self, partition: str, rows: Iterable[pa.Table], location: str) -> None:
        """Writes rows of `file_schema` into files of about `target_bytes` in the location; no rows, no file.

        Their names are used once: files of an earlier call may be copied to the same location.
        """
        name = f"{self.prefix}{uuid.uuid4().hex[:12]}"
        parquet = partial(
            SortedParquet, contract=self.contract, compression=self.compression, row_group_bytes=_ROW_GROUP_BYTES
        )
        files = RollingFiles(self.lake, self.table, name, parquet, self.target_bytes, {partition: location})
        order = [(name, "ascending") for name in self.contract.sort_by if name not in self.contract.partition_by]
        for chunk in _chunks(rows):
            chosen = chunk.sort_by(order) if order else chunk
            # A row group each: neighbours in the order stand together, and statistics say where.
            step = max(1, chosen.num_rows * _ROW_GROUP_BYTES // max(chosen.nbytes, 1))
            for start in range(0, chosen.num_rows, step):
                files.write(partition, chosen.slice(start, step))
        files.close()

    def read(
        self, files: Iterable[StoredFile], odd: list[StoredFile], without: frozenset[str] = frozenset()
    ) -> Iterator[pa.Table]:
        """The files' rows as `file_schema`, but for those of the batches `without`.

        A column that a file lacks is null; a narrower type is widened. A file that has a column which the contract
        does not know, or a type that its own does not hold, is not read but put into `odd`.
        """
        schema = file_schema(self.contract)
        dropped = pa.array(sorted(without), pa.string())
        for file, content in _fetched(self.lake, files):
            parquet = pq.ParquetFile(io.BytesIO(content))
            if not _fits(parquet.schema_arrow, schema):
                odd.append(file)
                continue
            for group in range(parquet.num_row_groups):
                # A small file has one small group: threads would cost more than they save.
                rows = _conformed(parquet.read_row_group(group, use_threads=False), schema)
                if without:
                    rows = rows.filter(pc.invert(pc.is_in(rows["batch"], value_set=dropped)))
                yield rows

    def holds(self, file: StoredFile, batches: frozenset[str]) -> bool:
        """Whether a row of one of the batches is in the file."""
        found = pq.read_table(io.BytesIO(self.lake.get(file.path) or b""), columns=["batch"])["batch"]
        return bool(pc.any(pc.is_in(found, value_set=pa.array(sorted(batches), pa.string()))).as_py())


def _chunks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        if not table.num_rows:
            continue
        waiting.append(table)
        size += table.nbytes
        if size >= SORT_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _fits(found: pa.Schema, schema: pa.Schema) -> bool:
    """Whether rows of `found` can stand in files of `schema` without losing anything."""
    return all(
        field.name in schema.names
        and (field.type, schema.field(field.name).type) in _WIDENINGS | {(field.type, field.type)}
        for field in found
    )


def _fetched(lake: Lake, files: Iterable[StoredFile]) -> Iterator[tuple[StoredFile, bytes]]:
    """The files' contents in order, some fetched ahead."""
    waiting: deque[tuple[StoredFile, Future[bytes | None]]] = deque()
    ahead = 0
    with ThreadPoolExecutor(_READERS) as readers:
        for file in files:
            waiting.append((file, readers.submit(lake.get, file.path)))
            ahead += file.bytes
            while waiting and (ahead > _AHEAD_BYTES or len(waiting) > _READERS):
                ahead -= waiting[0][0].bytes
                yield _content(lake, *waiting.popleft())
        while waiting:
            yield _content(lake, *waiting.popleft())


def _content(lake: Lake, file: StoredFile, fetched: Future[bytes | None]) -> tuple[StoredFile, bytes]:
    content = fetched.result()
    if content is None:
        raise TransientError(f"{lake.uri}/{file.path} is gone: another process has deleted it. Run this again")
    return file, content


def _conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
