"""Raw files: each record's bytes as a line, by the hour of its arrival."""

from __future__ import annotations

import gzip
import io
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.write.raw import GzipLines, split_by_hour, to_lines
from tests.helpers.samples import as_data


def written(*batches: list[bytes], level: int = 3) -> bytes:
    file = io.BytesIO()
    encoder = GzipLines(file, level)
    assert [encoder.write(to_lines(as_data(batch))) for batch in batches] == [len(batch) for batch in batches]
    encoder.close()
    return gzip.decompress(file.getvalue())


@given(
    st.lists(st.lists(st.binary(max_size=30).filter(lambda data: b"\n" not in data and b"\r" not in data)), max_size=4)
)
def test_every_record_is_a_line_with_its_exact_bytes(batches: list[list[bytes]]) -> None:
    assert written(*batches) == b"".join(record + b"\n" for batch in batches for record in batch)


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_the_number_of_lines_is_the_number_of_records(records: list[bytes]) -> None:
    assert written(records).count(b"\n") == len(records)
    assert b"\r" not in written(records)


def test_a_line_break_within_a_record_becomes_a_space() -> None:
    assert written([b'{\r\n"a": 1\n}', b"\n", b"", b"x"]) == b'{  "a": 1 }\n \n\nx\n'


def test_bytes_that_are_not_text_are_unchanged() -> None:
    records = [b"\xff\xfe\x00", b"\xed\xa0\x80"]
    assert written(records) == b"\xff\xfe\x00\n\xed\xa0\x80\n"
    assert written([b"\xff\n\xfe"]) == b"\xff \xfe\n"


def test_no_records_give_an_empty_file() -> None:
    assert written([]) == b""


def test_a_slice_of_an_array_writes_only_its_own_records() -> None:
    file = io.BytesIO()
    encoder = GzipLines(file, 1)
    encoder.write(to_lines(as_data([b"before", b"one", b"two", b"after"]).slice(1, 2)))
    encoder.close()
    assert gzip.decompress(file.getvalue()) == b"one\ntwo\n"


def test_the_same_records_give_the_same_bytes_on_every_run() -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        encoder = GzipLines(file, 3)
        encoder.write(as_data([b"one", b"two"]))
        encoder.close()
        files.append(file.getvalue())
    assert files[0] == files[1], "the gzip header must not hold the time"


@pytest.mark.parametrize("level", [1, 9])
def test_every_compression_level_reads_back(level: int) -> None:
    assert written([b"x" * 100_000], level=level) == b"x" * 100_000 + b"\n"


def test_records_are_split_by_the_utc_hour_of_their_arrival() -> None:
    times = [
        datetime(2026, 11, 23, 0, 0, tzinfo=UTC),
        datetime(2026, 11, 22, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 11, 23, 0, 59, tzinfo=UTC),
    ]
    found = {
        partition: mask.to_pylist() if mask is not None else None
        for partition, mask in split_by_hour(pa.array(times, pa.timestamp("us", tz="UTC")))
    }
    assert found == {
        "ingest_date=2026-11-23/hour=00": [True, False, True],
        "ingest_date=2026-11-22/hour=23": [False, True, False],
    }


def test_records_of_one_hour_are_not_split() -> None:
    times = pa.array(
        [datetime(2026, 11, 23, 9, minute, tzinfo=UTC) for minute in range(5)], pa.timestamp("us", tz="UTC")
    )
    assert list(split_by_hour(times)) == [("ingest_date=2026-11-23/hour=09", None)]
