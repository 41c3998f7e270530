"""Reading exports as they come: encodings, line ends, compression, faults."""

from __future__ import annotations

import gzip
import io

import pytest

from jobs.contract.errors import ConfigurationError, TerminalError
from producer.csv_rows import Export, ExportReader, city_of, find_exports, read_records


def rows_of(data: bytes, tmp_path, **arguments):
    file = tmp_path / "in.csv"
    file.write_bytes(data)
    with ExportReader(Export(str(file))) as reader:
        return reader.header, list(reader.chunks(**arguments))


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
def test_the_same_rows_come_from_every_form_of_a_file(data, tmp_path):
    header, chunks = rows_of(data, tmp_path)
    assert header == ["a", "b"]
    assert [row for chunk in chunks for row in chunk.rows] == [["1", "x"], ["2", "y"]]


def test_quoted_line_breaks_commas_and_quotes_stay_as_they_are(tmp_path):
    _, chunks = rows_of(b'a,b\n"1\r\n2\n3","x,""y"""\n', tmp_path)
    assert chunks[0].rows == [["1\r\n2\n3", 'x,"y"']]


def test_a_row_is_found_by_its_line_though_others_span_several(tmp_path):
    _, chunks = rows_of(b'a,b\n"1\n1",x\n\n"3\r\n3",y\n4,z\n', tmp_path)
    assert [chunks[0].line_of(index) for index in range(4)] == [2, 4, 5, 7]


def test_a_row_that_the_reader_cannot_read_is_told_with_its_line_and_the_rest_is_read(tmp_path):
    _, chunks = rows_of(b'a,b\n1,x\n"2"?,y\n3,z\n', tmp_path)
    assert [chunk.rows for chunk in chunks] == [[["1", "x"]], [["3", "z"]]]
    assert chunks[0].fault is not None
    assert chunks[0].fault[0] == 3
    assert [(chunk.first_row, chunk.taken) for chunk in chunks] == [(0, 2), (2, 1)]


def test_a_quote_that_is_never_closed_is_a_fault_and_not_a_row(tmp_path):
    _, chunks = rows_of(b'a,b\n1,x\n2,"y\n3,z\n', tmp_path)
    assert [row for chunk in chunks for row in chunk.rows] == [["1", "x"]]
    assert "unexpected end of data" in chunks[-1].fault[1]


def test_rows_that_are_skipped_are_counted_as_the_reader_counts_them(tmp_path):
    data = b'a,b\n1,x\n"2"?,y\n\n4,z\n5,z\n'
    for skip in range(6):
        _, chunks = rows_of(data, tmp_path, rows=2, skip=skip)
        _, whole = rows_of(data, tmp_path, rows=1)
        assert [row for chunk in chunks for row in chunk.rows] == [
            row for chunk in whole if chunk.first_row >= skip for row in chunk.rows
        ]
        assert not chunks or chunks[0].first_row == skip


def test_chunks_hold_no_more_rows_than_asked_for(tmp_path):
    _, chunks = rows_of(b"a\n" + b"1\n" * 1001, tmp_path)
    assert [len(chunk.rows) for chunk in chunks] == [500, 500, 1]
    assert [chunk.first_row for chunk in chunks] == [0, 500, 1000]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"a,b,a\n", "names a column twice: a"),
        (gzip.compress(b"a\n" + b"1\n" * 100)[:-10], "not readable"),
    ],
)
def test_a_file_that_is_no_export_is_named(data, message, tmp_path):
    with pytest.raises(TerminalError, match=rf"in\.csv: .*{message}"):
        rows_of(data, tmp_path)


def test_the_city_is_in_the_name_of_the_file():
    assert city_of("/x/Travel_Times - Johannesburg and Pretoria.csv") == "Johannesburg and Pretoria"
    assert city_of("Travel_Times - São Paulo.csv.gz") == "São Paulo"
    assert city_of("Travel_Times - Bogota\u0301.csv") == "Bogotá", "as macOS writes it"
    assert city_of("anything.csv") is None


def test_a_folder_stands_for_its_exports_and_a_file_named_twice_counts_once(tmp_path):
    for name in ("b.csv", "a.csv.gz", "notes.txt"):
        (tmp_path / name).write_bytes(b"a\n1\n")
    found = find_exports([tmp_path, tmp_path / "b.csv"])
    assert [export.path for export in found] == [str(tmp_path / "a.csv.gz"), str(tmp_path / "b.csv")]


def test_a_path_that_leads_nowhere_is_an_error_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        find_exports([tmp_path / "missing.csv"])
    with pytest.raises(ConfigurationError, match=r"holds no \*\.csv"):
        find_exports([tmp_path])


def test_standard_input_is_read_like_a_file(monkeypatch):
    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(b"a,b\n1,x\n"))

    monkeypatch.setattr("sys.stdin", Stdin)
    assert list(read_records("-", city="Paris")) == [{"a": "1", "b": "x", "City": "Paris"}]


def test_a_record_holds_the_columns_of_its_file_and_an_empty_cell_is_empty(tmp_path):
    file = tmp_path / "Travel_Times - Paris.csv"
    file.write_bytes(b'"a","b"\n"007",""\n')
    assert list(read_records(file)) == [{"a": "007", "b": "", "City": "Paris"}]


def test_a_city_column_of_the_file_itself_wins(tmp_path):
    file = tmp_path / "Travel_Times - Paris.csv"
    file.write_bytes(b'"City","b"\n"Lyon",""\n')
    assert list(read_records(file)) == [{"City": "Lyon", "b": ""}]


def test_text_that_is_not_utf8_is_left_for_the_next_stage_to_reject(tmp_path):
    _, chunks = rows_of("a,b\n1,Orfèvres\n".encode("latin-1"), tmp_path)
    assert chunks[0].rows[0][1].encode("utf-8", "surrogateescape") == "Orfèvres".encode("latin-1")
