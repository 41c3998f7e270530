"""Processed: the contract's rows as Parquet under `processed/city=…/start_date=…/`, sorted within a row group."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import reduce
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.schema.partitions import partition_path
from jobs.schema.record_parser import ARROW_TYPES
from jobs.schema.table import TableContract

# A row group is sorted in memory: this many bytes of Arrow at most, and so many times the file's target, for
# Parquet is smaller than Arrow and a file is looked at between row groups only.
ROW_GROUP_BYTES = 16 * 1024 * 1024
ROW_GROUP_SHARE = 4
# It stays on this machine's disk or goes through Spark's shuffle: fast beats small.
_STREAM = pa.ipc.IpcWriteOptions(compression="lz4")


def file_schema(contract: TableContract) -> pa.Schema:
    """The columns of a processed file: the table's, but for those that stand in the folders' names."""
    return pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind, _ in contract.table_columns])


class SortedParquet:
    """Encodes tables of `file_schema` as Parquet; each row group is sorted by the contract's `sort_by`."""

    suffix = ".parquet"

    def __init__(
        self, file: BinaryIO, contract: TableContract, compression: str, row_group_bytes: int = ROW_GROUP_BYTES
    ) -> None:
        self._writer = pq.ParquetWriter(file, file_schema(contract), compression=compression, write_statistics=True)
        self._order = [(name, "ascending") for name in contract.sort_by if name not in contract.partition_by]
        self._waiting: list[pa.Table] = []
        self.waiting = 0
        self._row_group_bytes = row_group_bytes

    def write(self, rows: pa.Table) -> int:
        self._waiting.append(rows)
        self.waiting += rows.nbytes
        if self.waiting >= self._row_group_bytes:
            self.flush()
        return int(rows.num_rows)

    def close(self) -> None:
        self.flush()
        self._writer.close()

    def part(self) -> bool:
        return False

    def flush(self) -> None:
        """Writes what waits as one sorted row group."""
        if self._waiting:
            rows = pa.concat_tables(self._waiting)
            self._waiting, self.waiting = [], 0  # before they are encoded: the sorted copy is all that is needed
            rows = rows.sort_by(self._order) if self._order else rows
            self._writer.write_table(rows, row_group_size=rows.num_rows)


class GrowingParquet:
    """Encodes tables of `file_schema`: up to `small_file_bytes` as an Arrow stream, a part; beyond that as what
    `parquet` makes, a file."""

    suffix = SortedParquet.suffix

    def __init__(self, file: BinaryIO, parquet: Callable[[BinaryIO], SortedParquet], small_file_bytes: int) -> None:
        self._file = file
        self._parquet = parquet
        self._small_file_bytes = small_file_bytes
        self._grown: SortedParquet | None = None
        self._stream: pa.RecordBatchStreamWriter | None = None

    @property
    def waiting(self) -> int:
        return self._grown.waiting if self._grown else 0

    def write(self, rows: pa.Table) -> int:
        if self._grown:
            return self._grown.write(rows)
        if self._stream is None:
            self._stream = pa.ipc.new_stream(self._file, rows.schema, options=_STREAM)
        self._stream.write_table(rows)
        if self._file.tell() >= self._small_file_bytes:
            self._grow()
        return int(rows.num_rows)

    def flush(self) -> None:
        if self._grown:
            self._grown.flush()

    def close(self) -> None:
        (self._grown or self._grow()).close()

    def part(self) -> bool:
        if self._grown or self._stream is None:
            return False
        self._stream.close()
        return True

    def _grow(self) -> SortedParquet:
        with tempfile.TemporaryFile() as rows:
            if self._stream is not None:
                self._stream.close()
                self._file.seek(0)
                shutil.copyfileobj(self._file, rows)
                self._file.seek(0)
                self._file.truncate()
            self._grown = self._parquet(self._file)
            if rows.tell():
                rows.seek(0)
                for batch in rows_of_part(rows):
                    self._grown.write(batch)
        return self._grown


def rows_of_part(part: BinaryIO | pa.Buffer) -> Iterator[pa.Table]:
    """The rows of a part of `GrowingParquet`."""
    with pa.ipc.open_stream(part) as stream:
        for batch in stream:
            yield pa.Table.from_batches([batch])


def by_partition(rows: pa.Table, contract: TableContract) -> Iterator[tuple[str, pa.Table]]:
    """(folder, its rows without the partition columns) of each partition in `rows`."""
    keys = [rows[name].combine_chunks().dictionary_encode() for name in contract.partition_by]
    code = reduce(_combined, keys[1:], _codes(keys[0]))
    data = rows.drop_columns(list(contract.partition_by))
    order = pc.sort_indices(code)
    runs = pc.run_end_encode(code.take(order))
    single = len(runs.run_ends) == 1
    start = 0
    for end in runs.run_ends.to_pylist():
        first = order[start].as_py()
        folder = partition_path(
            contract.partition_by, {name: rows[name][first].as_py() for name in contract.partition_by}
        )
        yield folder, data if single else data.take(order.slice(start, end - start))
        start = end


def _combined(code: pa.Array, key: pa.DictionaryArray) -> pa.Array:
    """One number for each combination of both: numbered anew each time, or many columns would overflow."""
    both = pc.add(pc.multiply(code, pa.scalar(len(key.dictionary) + 1, pa.int64())), _codes(key))
    return both.dictionary_encode().indices.cast(pa.int64())


def _codes(key: pa.DictionaryArray) -> pa.Array:
    """The number of each value in the dictionary; null is the number after the last."""
    return pc.fill_null(key.indices.cast(pa.int64()), len(key.dictionary))
