"""Processed files: typed, split by partition, sorted within a row group."""

from __future__ import annotations

import io
import random
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.catalog.tables import lake_tables
from jobs.schema.partitions import parse_partition_path
from jobs.schema.table import TableContract
from jobs.schema.types import ARROW_TYPES
from jobs.write.processed import SortedParquet, file_schema, split_by_partition
from tests.helpers.samples import READINGS_YAML, TRAVEL_TIMES

READINGS = TableContract.model_validate(yaml.safe_load(READINGS_YAML))
# The Parquet type that Athena and Spark read for a Glue type.
GLUE_TYPES = {
    "string": pa.string(), "int": pa.int32(), "bigint": pa.int64(), "double": pa.float64(), "boolean": pa.bool_(),
    "date": pa.date32(), "timestamp": pa.timestamp("us", tz="UTC"),
}  # fmt: skip


def table_of(contract: TableContract, count: int, **columns: list[Any]) -> pa.Table:
    """`count` rows with the partition columns; columns that are not given are null."""
    kinds = {name: ARROW_TYPES[kind] for name, kind, _ in contract.partition_columns + contract.table_columns}
    return pa.table({name: pa.array(columns.get(name, [None] * count), kind) for name, kind in kinds.items()})


def rows_of(contract: TableContract, count: int, **columns: list[Any]) -> pa.Table:
    """As `table_of`, without the partition columns: the content of a file."""
    return table_of(contract, count, **columns).drop_columns(list(contract.partition_by))


def read(file: io.BytesIO) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("contract", [TRAVEL_TIMES, READINGS], ids=lambda contract: contract.name)
def test_a_file_has_the_columns_and_types_of_the_glue_table(contract: TableContract) -> None:
    file = io.BytesIO()
    SortedParquet(file, contract, "zstd").close()
    processed = lake_tables(contract)[1]
    kinds = {"long": "bigint"}
    expected = [(name, GLUE_TYPES[kinds.get(kind, kind)]) for name, kind, _ in processed.columns]
    assert [(field.name, field.type) for field in read(file).schema_arrow] == expected
    assert file_schema(contract).names == [name for name, _ in expected]


def test_rows_are_sorted_within_a_row_group_so_that_statistics_help() -> None:
    origins = [str(number) for number in range(100)]
    random.Random(1).shuffle(origins)
    file = io.BytesIO()
    encoder = SortedParquet(file, TRAVEL_TIMES, "zstd")
    for start in range(0, 100, 10):
        encoder.write(
            rows_of(
                TRAVEL_TIMES, 10, origin_movement_id=origins[start : start + 10], destination_movement_id=["1"] * 10
            )
        )
    encoder.close()
    found = read(file)
    assert found.num_row_groups == 1
    assert found.read()["origin_movement_id"].to_pylist() == sorted(origins)
    statistics = found.metadata.row_group(0).column(0).statistics
    assert (statistics.min, statistics.max) == ("0", "99")


def test_rows_with_equal_keys_keep_their_order() -> None:
    file = io.BytesIO()
    encoder = SortedParquet(file, TRAVEL_TIMES, "zstd")
    encoder.write(
        rows_of(
            TRAVEL_TIMES, 6, origin_movement_id=["b", "a"] * 3, sequence_number=[str(number) for number in range(6)]
        )
    )
    encoder.close()
    assert read(file).read()["sequence_number"].to_pylist() == ["1", "3", "5", "0", "2", "4"]


def test_a_row_group_ends_at_its_maximum_size() -> None:
    file = io.BytesIO()
    encoder = SortedParquet(file, TRAVEL_TIMES, "zstd", row_group_bytes=10_000)
    for _ in range(10):
        encoder.write(rows_of(TRAVEL_TIMES, 10, origin_geometry=["x" * 500] * 10))
    assert encoder.buffered_bytes < 10_000
    encoder.close()
    found = read(file)
    assert found.num_row_groups == 5
    assert found.metadata.num_rows == 100


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "none"])
def test_every_compression_reads_back(compression: str) -> None:
    file = io.BytesIO()
    encoder = SortedParquet(file, TRAVEL_TIMES, compression)
    encoder.write(rows_of(TRAVEL_TIMES, 1, origin_movement_id=["São Paulo"]))
    encoder.close()
    found = read(file)
    assert found.read()["origin_movement_id"].to_pylist() == ["São Paulo"]
    expected = {"none": "UNCOMPRESSED"}.get(compression, compression.upper())
    assert found.metadata.row_group(0).column(0).compression == expected


def test_times_are_stored_as_utc_microseconds() -> None:
    file = io.BytesIO()
    moment = datetime(2026, 11, 23, 1, 2, 3, 456789, UTC)
    encoder = SortedParquet(file, TRAVEL_TIMES, "zstd")
    encoder.write(rows_of(TRAVEL_TIMES, 1, arrival_time=[moment]))
    encoder.close()
    assert read(file).read()["arrival_time"].to_pylist() == [moment]


CITIES = st.sampled_from([None, "", "Paris", "a/b", "São Paulo", "50%", "Київ", "x=y"])
DAYS = st.sampled_from([None, date(2016, 9, 3), date(2016, 7, 31), date(1, 1, 1)])


@given(st.lists(st.tuples(CITIES, DAYS), min_size=1, max_size=40))
def test_every_row_is_in_the_folder_of_its_own_values(keys: list[tuple[str | None, date | None]]) -> None:
    rows = table_of(
        TRAVEL_TIMES,
        len(keys),
        city=[city for city, _ in keys],
        start_date=[day for _, day in keys],
        sequence_number=[str(number) for number in range(len(keys))],
    )
    found: dict[int, dict[str, str | None]] = {}
    for folder, part, _ in split_by_partition(rows, TRAVEL_TIMES):
        assert part.column_names == file_schema(TRAVEL_TIMES).names
        numbers = [int(number) for number in part["sequence_number"].to_pylist()]
        assert numbers == sorted(numbers), "the order of the stream is kept"
        found |= dict.fromkeys(numbers, parse_partition_path(folder))
    expected = {
        number: {"city": city or None, "start_date": str(day) if day else None}
        for number, (city, day) in enumerate(keys)
    }
    assert found == expected


def test_a_null_is_not_confused_with_the_next_columns_first_value() -> None:
    rows = table_of(TRAVEL_TIMES, 3, city=["a", "b", "a"], start_date=[None, date(2016, 1, 1), date(2016, 1, 1)])
    assert sorted(folder for folder, *_ in split_by_partition(rows, TRAVEL_TIMES)) == [
        "city=a/start_date=2016-01-01",
        "city=a/start_date=__HIVE_DEFAULT_PARTITION__",
        "city=b/start_date=2016-01-01",
    ]


def test_many_partition_columns_of_many_values_do_not_overflow() -> None:
    names = [f"p{number}" for number in range(8)]
    contract = TableContract.model_validate(
        {
            "version": 1,
            "name": "wide",
            "partition_by": names,
            "stream_partition_key": ["p0"],
            "columns": [{"source": name, "column": name, "type": "long"} for name in names],
        }
    )
    count = 2000
    columns = {name: [(row * 7919 + at) % count for row in range(count)] for at, name in enumerate(names)}
    folders = [folder for folder, part, _ in split_by_partition(table_of(contract, count, **columns), contract)]
    assert len(set(folders)) == count


def test_a_batch_of_one_partition_is_not_copied() -> None:
    rows = table_of(TRAVEL_TIMES, 2, city=["a", "a"], start_date=[None, None], sequence_number=["1", "2"])
    ((folder, part, _),) = split_by_partition(rows, TRAVEL_TIMES)
    assert folder == "city=a/start_date=__HIVE_DEFAULT_PARTITION__"
    assert (
        part["sequence_number"].chunk(0).buffers()[2].address == rows["sequence_number"].chunk(0).buffers()[2].address
    )
