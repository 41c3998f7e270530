"""Processed files: the contract's rows as Parquet in `processed/city=…/start_date=…/`, sorted within a row group."""

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
from jobs.schema.table import TableContract
from jobs.schema.types import arrow_type

# A row group is sorted in memory. It has at most this many bytes of Arrow, and at most this many times the file's
# target size, because the file's size is checked between row groups only.
ROW_GROUP_BYTES = 16 * 1024 * 1024
ROW_GROUPS_PER_TARGET = 4
# A small file stays on this machine's disk or goes through Spark's shuffle: speed matters more than size.
_ARROW_STREAM = pa.ipc.IpcWriteOptions(compression="lz4")


def file_schema(contract: TableContract) -> pa.Schema:
    """The columns of a processed file: the table's, without the partition columns, which are in the folder names."""
    return pa.schema([pa.field(name, arrow_type(kind)) for name, kind, _ in contract.table_columns])


class SortedParquet:
    """Encodes tables of `file_schema` as Parquet. Each row group is sorted by the contract's `sort_by`."""

    suffix = ".parquet"

    def __init__(
        self, file: BinaryIO, contract: TableContract, compression: str, row_group_bytes: int = ROW_GROUP_BYTES
    ) -> None:
        self._writer = pq.ParquetWriter(file, file_schema(contract), compression=compression, write_statistics=True)
        self._order = [(name, "ascending") for name in contract.sort_by if name not in contract.partition_by]
        self._buffered: list[pa.Table] = []
        self.buffered_bytes = 0
        self._row_group_bytes = row_group_bytes

    def write(self, rows: pa.Table) -> int:
        self._buffered.append(rows)
        self.buffered_bytes += rows.nbytes
        if self.buffered_bytes >= self._row_group_bytes:
            self.flush()
        return int(rows.num_rows)

    def flush(self) -> None:
        """Writes the buffered rows as one sorted row group."""
        if self._buffered:
            rows = pa.concat_tables(self._buffered)
            self._buffered, self.buffered_bytes = [], 0  # free them before sorting makes a copy
            rows = rows.sort_by(self._order) if self._order else rows
            self._writer.write_table(rows, row_group_size=rows.num_rows)

    def close(self) -> None:
        self.flush()
        self._writer.close()

    def close_if_small(self) -> bool:
        return False


class GrowingParquet:
    """Encodes tables of `file_schema`: as an Arrow stream up to `small_file_bytes`, then as Parquet (`parquet`).

    A small file is the Arrow stream; `read_small_file` reads it.
    """

    suffix = SortedParquet.suffix

    def __init__(self, file: BinaryIO, parquet: Callable[[BinaryIO], SortedParquet], small_file_bytes: int) -> None:
        self._file = file
        self._open_parquet = parquet
        self._small_file_bytes = small_file_bytes
        self._parquet: SortedParquet | None = None
        self._stream: pa.RecordBatchStreamWriter | None = None

    @property
    def buffered_bytes(self) -> int:
        return self._parquet.buffered_bytes if self._parquet else 0

    def write(self, rows: pa.Table) -> int:
        if self._parquet:
            return self._parquet.write(rows)
        if self._stream is None:
            self._stream = pa.ipc.new_stream(self._file, rows.schema, options=_ARROW_STREAM)
        self._stream.write_table(rows)
        if self._file.tell() >= self._small_file_bytes:
            self._convert_to_parquet()
        return int(rows.num_rows)

    def flush(self) -> None:
        if self._parquet:
            self._parquet.flush()

    def close(self) -> None:
        (self._parquet or self._convert_to_parquet()).close()

    def close_if_small(self) -> bool:
        if self._parquet or self._stream is None:
            return False
        self._stream.close()
        return True

    def _convert_to_parquet(self) -> SortedParquet:
        with tempfile.TemporaryFile() as copy:
            if self._stream is not None:
                self._stream.close()
                self._file.seek(0)
                shutil.copyfileobj(self._file, copy)
                self._file.seek(0)
                self._file.truncate()
            self._parquet = self._open_parquet(self._file)
            if copy.tell():
                copy.seek(0)
                for rows in read_small_file(copy):
                    self._parquet.write(rows)
        return self._parquet


def read_small_file(content: BinaryIO | pa.Buffer) -> Iterator[pa.Table]:
    """The rows of a small file of `GrowingParquet`."""
    with pa.ipc.open_stream(content) as stream:
        for batch in stream:
            yield pa.Table.from_batches([batch])


def split_by_partition(rows: pa.Table, contract: TableContract) -> Iterator[tuple[str, pa.Table, pa.Array]]:
    """(partition, its rows without the partition columns, their positions in `rows`) of each partition in `rows`.

    A partition is named as its folder: `city=a/start_date=2026-11-23`.
    """
    keys = [rows[name].combine_chunks().dictionary_encode() for name in contract.partition_by]
    codes = reduce(_combine_codes, keys[1:], _codes(keys[0]))
    data = rows.drop_columns(list(contract.partition_by))
    order = pc.sort_indices(codes)
    runs = pc.run_end_encode(codes.take(order))
    single = len(runs.run_ends) == 1
    start = 0
    for end in runs.run_ends.to_pylist():
        first = order[start].as_py()
        partition = partition_path(
            contract.partition_by, {name: rows[name][first].as_py() for name in contract.partition_by}
        )
        positions = order.slice(start, end - start)
        yield partition, data if single else data.take(positions), positions
        start = end


def _combine_codes(codes: pa.Array, key: pa.DictionaryArray) -> pa.Array:
    """One number for each combination of both, from 0 without gaps, so that many columns do not overflow."""
    both = pc.add(pc.multiply(codes, pa.scalar(len(key.dictionary) + 1, pa.int64())), _codes(key))
    return both.dictionary_encode().indices.cast(pa.int64())


def _codes(key: pa.DictionaryArray) -> pa.Array:
    """The position of each value in the dictionary. Null has the position after the last one."""
    return pc.fill_null(key.indices.cast(pa.int64()), len(key.dictionary))
