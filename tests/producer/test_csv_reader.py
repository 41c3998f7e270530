"""Reading exports: encodings, line ends, compression, faults."""

from __future__ import annotations

import csv
import gzip
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.common.errors import TerminalError
from producer.csv_reader import CsvReader, RowChunk
from producer.input_files import InputFile
from tests.helpers.examples import examples


def rows_of(data: bytes, tmp_path: Path, skip: int = 0) -> tuple[list[str], list[RowChunk]]:
    """The header and the chunks of a file with this content."""
    file = tmp_path / "in.csv"
    file.write_bytes(data)
    with CsvReader(InputFile(str(file))) as reader:
        return reader.header, list(reader.chunks(skip))


def numbered(chunk: RowChunk) -> list[tuple[int, int, list[str]]]:
    """(row, line, cells) of each row of the chunk."""
    return [(chunk.first_row + at, chunk.line_of(at), row) for at, row in enumerate(chunk.rows)]


def read_by_the_standard_library(
    data: bytes,
) -> tuple[list[str], list[tuple[int, int, list[str]]], list[tuple[int, int, str]]]:
    """The header, (row, line, cells) of each row, and (row, line, message) of each fault."""
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8", "surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    header, rows, faults = next(reader), [], []
    while True:
        line, number = reader.line_num + 1, len(rows) + len(faults)
        try:
            row = next(reader, None)
            if row is None:
                return header, rows, faults
        except csv.Error as error:
            faults.append((number, reader.line_num, str(error)))
        else:
            rows.append((number, line, row))


cells = st.one_of(
    st.sampled_from(
        ["1", "", '"x"', '"a,b"', '""', '"q""q"', 'x"', '"x"y', '"a\nb"', '"\r\n"', "\\", "\t", "é", "\ufeff"]
    ),
    st.text("a\"',\r\n \x00é\u2028", max_size=4),
).map(str.encode)
cells = st.one_of(cells, st.sampled_from([b"\xff", b'"', b'",'])) | cells
lines = st.builds(
    lambda row, end: b",".join(row) + end,
    st.one_of(st.lists(cells, min_size=2, max_size=2), st.lists(cells, max_size=3), st.just([b"1", b'"x, y"'])),
    st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r", b""]),
)


@settings(max_examples=examples(600), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.lists(lines, max_size=8).map(b"".join),
    block=st.integers(1, 60),
    zipped=st.booleans(),
    skip=st.integers(0, 4),
)
def test_columns_and_rows_equal_those_of_the_standard_library(
    body: bytes, block: int, zipped: bool, skip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.byte_source.BLOCK_BYTES", block)
    monkeypatch.setattr("producer.csv_reader.MIN_PLAIN_BYTES", 1)
    data = b"a,b\n" + body
    header, rows, faults = read_by_the_standard_library(data)

    found, chunks = rows_of(gzip.compress(data) if zipped else data, tmp_path, skip=skip)

    assert found == header
    assert [row for chunk in chunks for row in numbered(chunk)] == [row for row in rows if row[0] >= skip]
    assert [
        (chunk.first_row + chunk.count, *chunk.fault) for chunk in chunks if chunk.fault is not None
    ] == [fault for fault in faults if fault[0] >= skip]  # fmt: skip
    assert sum(chunk.file_rows for chunk in chunks) == max(0, len(rows) + len(faults) - skip)
    for chunk in chunks:
        assert chunk.columns is None or [chunk.cells(at) for at in range(chunk.count)] == chunk.rows


def test_plain_rows_around_another_row_are_read_as_columns(tmp_path: Path) -> None:
    plain = b'"1","x, y"\r\n' * 5000
    for other in (b'"a ""b""",y\n', b'"1\n",y\n', b"\n", b"1\n", b"1,2,3\n", b"\xff,y\n", b"\\,\t\n", b'"a"b,y\n'):
        _, chunks = rows_of(b"a,b\n" + plain + other + plain, tmp_path)
        by_rows = sum(chunk.file_rows for chunk in chunks if chunk.columns is None)
        assert 1 <= by_rows <= 8, other
        assert sum(chunk.file_rows for chunk in chunks) == 10_001


def test_rows_of_a_slow_pipe_are_not_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:

        class Stdin:
            buffer = pipe

        monkeypatch.setattr("sys.stdin", Stdin)
        os.write(writing, b"a,b\n1,x\n2,")
        with CsvReader(InputFile("-")) as reader:
            chunks = reader.chunks()
            assert next(chunks).rows == [["1", "x"]]
            os.write(writing, b'"y\n')
            os.write(writing, b'"\n3,z')
            assert next(chunks).rows == [["2", "y\n"]]
            os.close(writing)
            assert next(chunks).rows == [["3", "z"]]


def test_a_file_without_line_ends_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.byte_source.MAX_LINE_BYTES", 3 << 20)
    with pytest.raises(TerminalError, match=r"line 2 is longer than"):
        rows_of(b"a,b\n" + b"x" * (9 << 20), tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b'"a","b"\n"1","x"\n"2","y"',
        b'"a","b"\n"1","x"\n"2","y"\n',
        b'"a","b"\r\n"1","x"\r\n"2","y"\r\n',
        b"a,b\n1,x\n2,y\n",
        b'\xef\xbb\xbf"a","b"\n"1","x"\n"2","y"\n',
        gzip.compress(b'"a","b"\n"1","x"\n"2","y"\n'),
        gzip.compress(b'\xef\xbb\xbf"a","b"\n"1","x"\n') + gzip.compress(b'"2","y"\n'),
    ],
    ids=["no-final-newline", "lf", "crlf", "unquoted", "bom", "gzip", "gzip-members-with-bom"],
)
def test_every_format_of_a_file_gives_the_same_rows(data: bytes, tmp_path: Path) -> None:
    header, chunks = rows_of(data, tmp_path)
    assert header == ["a", "b"]
    assert [row for chunk in chunks for row in chunk.rows] == [["1", "x"], ["2", "y"]]


def test_quoted_line_breaks_commas_and_quotes_are_unchanged(tmp_path: Path) -> None:
    _, chunks = rows_of(b'a,b\n"1\r\n2\n3","x,""y"""\n', tmp_path)
    assert chunks[0].rows == [["1\r\n2\n3", 'x,"y"']]


def test_line_numbers_count_quoted_line_breaks(tmp_path: Path) -> None:
    _, chunks = rows_of(b'a,b\n"1\n1",x\n\n"3\r\n3",y\n4,z\n', tmp_path)
    assert [chunks[0].line_of(index) for index in range(4)] == [2, 4, 5, 7]


def test_a_row_that_is_not_csv_is_a_fault_with_its_line_and_the_others_are_read(tmp_path: Path) -> None:
    _, chunks = rows_of(b'a,b\n1,x\n"2"?,y\n3,z\n', tmp_path)
    assert [row for chunk in chunks for row in chunk.rows] == [["1", "x"], ["3", "z"]]
    ((line, _),) = [chunk.fault for chunk in chunks if chunk.fault is not None]
    assert line == 3
    assert [(chunk.first_row, chunk.file_rows) for chunk in chunks] == [(0, 2), (2, 1)]


def test_a_quote_that_is_never_closed_is_a_fault(tmp_path: Path) -> None:
    _, chunks = rows_of(b'a,b\n1,x\n2,"y\n3,z\n', tmp_path)
    assert [row for chunk in chunks for row in chunk.rows] == [["1", "x"]]
    assert chunks[-1].fault is not None
    assert "unexpected end of data" in chunks[-1].fault[1]


def test_skip_counts_blank_lines_and_faults_as_rows(tmp_path: Path) -> None:
    data = b'a,b\n1,x\n"2"?,y\n\n4,z\n5,z\n'
    for skip in range(6):
        _, chunks = rows_of(data, tmp_path, skip=skip)
        _, whole = rows_of(data, tmp_path)
        assert [row for chunk in chunks for row in numbered(chunk)] == [
            row for chunk in whole for row in numbered(chunk) if row[0] >= skip
        ]
        assert not chunks or chunks[0].first_row == skip


def test_a_chunk_of_rows_has_at_most_500_and_one_of_columns_a_whole_block(tmp_path: Path) -> None:
    _, chunks = rows_of(b"a\n" + b"a cell of twenty bytes\n" * 1001 + b'"\t"\n' * 3000, tmp_path)
    by_rows = [chunk.count for chunk in chunks if chunk.columns is None]
    assert (sum(by_rows), max(by_rows)) == (3000, 500)
    assert [chunk.count for chunk in chunks if chunk.columns is not None] == [1001]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"a,b,a\n", "names a column twice: a"),
        ("a,é\n".encode("latin-1"), "the header is not UTF-8"),
        (gzip.compress(b"a\n" + b"1\n" * 100, mtime=0)[:-10], "not readable"),
    ],
)
def test_the_error_names_a_file_that_is_not_an_export(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match=rf"in\.csv: .*{message}"):
        rows_of(data, tmp_path)


def test_text_that_is_not_utf8_becomes_surrogates(tmp_path: Path) -> None:
    _, chunks = rows_of("a,b\n1,Orfèvres\n".encode("latin-1"), tmp_path)
    assert chunks[0].rows[0][1].encode("utf-8", "surrogateescape") == "Orfèvres".encode("latin-1")
