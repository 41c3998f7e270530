"""Encoding rows as records: the column checks miss no bad row, and no value changes."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.schema.checks import RecordChecks
from jobs.schema.rejections import Rejection
from jobs.schema.table import load_contract
from producer.csv_reader import CsvReader, RowChunk
from producer.input_files import InputFile
from producer.json_encoder import JsonEncoder
from producer.json_reader import JsonChunk
from producer.readers import encoder_for
from producer.record_encoder import PutRecordsEntry, RecordEncoder, RowEncoder, partition_key
from tests.helpers.examples import examples

CONTRACT = load_contract("travel_times.yaml")
CHECKS = RecordChecks(CONTRACT)
HEADER = [field for field in CONTRACT.source_fields if field != "City"]
GOOD = ["1", "a", "[]", "2", "b", "[]", "07/31/2016 - 08/28/2016, Every day, Daily Average", "20", "10", "30"]
PARIS = {"City": "Paris"}
LIMIT = 1024 * 1024

unusual = st.sampled_from(
    [
        "",
        " ",
        "0",
        "-1",
        "+5",
        "1_0",
        "٣",
        "²",
        "1.0",
        "15.0",
        "15.5",
        "1.5e1",
        "99999999999",
        "99999999999.0",
        "2147483647",
        "x",
        "\x00",
        "__HIVE_DEFAULT_PARTITION__",
    ]
)
period = st.sampled_from(
    [GOOD[6], "02/30/2017 - 03/01/2017, a, b", "08/28/2016 - 07/31/2016, a, b", "07/31/2016 - 08/28/2016, a, \n", "?"]
)
rows = st.lists(
    st.tuples(
        *[
            st.one_of(st.just(value), period if at == 6 else unusual, st.text(max_size=5)) if at in (0, 1, 3, 6) else
            st.one_of(st.just(value), unusual) if at > 6 else st.just(value)
            for at, value in enumerate(GOOD)
        ]
    ).map(list),
    min_size=1,
    max_size=6,
)  # fmt: skip


Rows = Sequence[Sequence[str]]


def as_rows(rows: Rows) -> RowChunk:
    return RowChunk(0, 2, 0, rows=[list(row) for row in rows])


def as_columns(rows: Rows) -> RowChunk:
    return RowChunk(0, 2, 0, columns=[pa.array(column, pa.string()) for column in zip(*rows, strict=True)])


def encode(encoder: RowEncoder, chunk: RowChunk) -> tuple[list[PutRecordsEntry], list[tuple[int, Rejection]]]:
    return encoder.encode(chunk).part(0, chunk.file_rows)


@settings(max_examples=examples(400), deadline=None)
@given(
    rows=rows,
    city=st.one_of(st.none(), st.just("Paris"), unusual, st.text(max_size=3), st.just("x" * 300)),
    in_columns=st.booleans(),
)
def test_the_encoder_rejects_exactly_the_rows_that_the_contract_rejects(
    rows: list[list[str]], city: str | None, in_columns: bool
) -> None:
    if in_columns:
        # csv_fast_path returns only text that JSON does not escape.
        rows = [[re.sub(r'["\\\x00-\x1f]', "_", cell) for cell in row] for row in rows]
    extra = {} if city is None else {"City": city}
    encoder = RowEncoder(CONTRACT, HEADER, extra, LIMIT)
    expected = [CHECKS.reject(dict(zip(HEADER, row, strict=True)) | extra) for row in rows]
    for _ in range(2):  # the second time with the valid texts of the first
        records, rejected = encode(encoder, as_columns(rows) if in_columns else as_rows(rows))
        assert rejected == [(index, rejection) for index, rejection in enumerate(expected) if rejection is not None]
        assert [json.loads(record.Data) for record in records] == [
            dict(zip(HEADER, row, strict=True)) | extra
            for row, rejection in zip(rows, expected, strict=True)
            if rejection is None
        ]
        assert records == encode(encoder, as_rows(rows))[0]


@pytest.mark.parametrize("form", [as_rows, as_columns])
def test_only_suspect_rows_are_encoded_one_by_one(
    form: Callable[[Rows], RowChunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = RowEncoder(CONTRACT, HEADER, PARIS, LIMIT)
    one_by_one = []
    encode_row = encoder.encode_row

    def recorded(row: list[str]) -> PutRecordsEntry | Rejection:
        one_by_one.append(row)
        return encode_row(row)

    monkeypatch.setattr(encoder, "encode_row", recorded)
    bad, signed, pandas = [*GOOD[:-1], "9"], [*GOOD[:-1], "+30"], [*GOOD[:-3], "20.0", "10.0", "30.0"]

    records, rejected = encode(encoder, form([bad, *[GOOD] * 500, signed, *[pandas] * 500]))

    assert one_by_one == [bad, signed]
    assert (len(records), [index for index, _ in rejected]) == (1001, [0])
    assert json.loads(records[500].Data)[HEADER[-1]] == "+30"
    assert json.loads(records[-1].Data)[HEADER[-1]] == "30.0", "the cell goes onto the stream as it is"


def test_a_blank_line_is_dropped_and_a_malformed_row_is_rejected_by_its_index() -> None:
    encoded = RowEncoder(CONTRACT, HEADER, PARIS, LIMIT).encode(as_rows([[], GOOD, ["1"], GOOD, []]))
    assert [len(encoded.part(at, at + 2)[0]) for at in (0, 2, 4)] == [1, 1, 0]
    ((index, rejection),) = encoded.part(2, 5)[1]
    assert (index, rejection.reason) == (2, "malformed_row")


def test_a_chunk_with_only_a_fault_has_no_records() -> None:
    chunk = RowChunk(0, 2, 0, rows=[], fault=(2, "unexpected end of data"))
    assert encode(RowEncoder(CONTRACT, HEADER, PARIS, LIMIT), chunk) == ([], [])


def test_a_cell_or_a_city_that_is_not_utf8_is_rejected() -> None:
    bad = ["\udcff", *GOOD[1:]]
    records, ((index, rejection),) = encode(RowEncoder(CONTRACT, HEADER, PARIS, LIMIT), as_rows([GOOD, bad, []]))
    assert (len(records), index, rejection.reason) == (1, 1, "not_utf8")
    encoder = RowEncoder(CONTRACT, HEADER, {"City": "\udcff"}, LIMIT)
    for chunk in (as_rows([GOOD]), as_columns([GOOD])):
        assert [rejection.reason for _, rejection in encode(encoder, chunk)[1]] == ["not_utf8"]


@given(st.lists(st.text(max_size=200), min_size=1, max_size=3))
def test_a_partition_key_is_valid_and_equal_for_equal_values(values: list[str]) -> None:
    key = partition_key(values)
    assert 1 <= len(key) <= 256
    assert key == partition_key(list(values))
    assert len("|".join(values)) > 256 or not values or key == ("|".join(values) or "|")


def test_long_values_that_differ_at_the_end_have_different_keys() -> None:
    assert partition_key(["x" * 300 + "1"]) != partition_key(["x" * 300 + "2"])


def test_a_row_and_an_equal_posted_object_have_the_same_key() -> None:
    (row,), _ = RowEncoder(CONTRACT, HEADER, PARIS, LIMIT).encode(as_rows([GOOD])).part(0, 1)
    posted = RecordEncoder(CONTRACT, LIMIT).encode(dict(zip(HEADER, GOOD, strict=True)) | {"City": "Paris"})
    assert isinstance(posted, PutRecordsEntry)
    assert row.PartitionKey == posted.PartitionKey == "Paris|1|2"


def test_a_record_over_the_streams_limit_is_rejected() -> None:
    (record,), _ = RowEncoder(CONTRACT, HEADER, PARIS, LIMIT).encode(as_rows([GOOD])).part(0, 1)
    size = len(record.Data) + len(record.PartitionKey)
    assert RowEncoder(CONTRACT, HEADER, PARIS, size).encode(as_rows([GOOD])).part(0, 1) == ([record], [])
    _, ((_, rejection),) = RowEncoder(CONTRACT, HEADER, PARIS, size - 1).encode(as_rows([GOOD])).part(0, 1)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "too_large"


def test_gzip_records_have_the_same_json_and_key() -> None:
    zipped = CONTRACT.model_copy(update={"encoding": "gzip"})
    file = InputFile("-", PARIS)
    rows = [GOOD, GOOD[:-1], [*GOOD[:-1], "x"], [*GOOD[:1], 'a "name"', *GOOD[2:]], []]
    columns = [pa.array([GOOD[at]] * 3) for at in range(len(GOOD))]
    for chunk in (RowChunk(0, None, 0, rows=rows), RowChunk(0, None, 0, columns=columns)):
        plain = RowEncoder(CONTRACT, HEADER, PARIS, LIMIT).encode(chunk)
        reader = CsvReader.__new__(CsvReader)
        reader.header = HEADER
        found = encoder_for(reader, file, zipped, LIMIT, True)(chunk)
        (records, rejected), (plain_records, plain_rejected) = found.part(0, 5), plain.part(0, 5)
        assert [(gzip.decompress(one.Data), one.PartitionKey) for one in records] == [
            (one.Data, one.PartitionKey) for one in plain_records
        ]
        assert rejected == plain_rejected
    posted = dict(zip(HEADER, GOOD, strict=True))
    one, other = RecordEncoder(zipped, LIMIT).encode(posted), RecordEncoder(CONTRACT, LIMIT).encode(posted)
    assert isinstance(one, PutRecordsEntry)
    assert isinstance(other, PutRecordsEntry)
    assert gzip.decompress(one.Data) == other.Data
    assert one == RecordEncoder(zipped, LIMIT).encode(posted)


def test_the_stream_limits_the_compressed_record_and_the_contract_its_json() -> None:
    row = [*GOOD[:2], "[" + "[1,2]," * 200 + "[1,2]]", *GOOD[3:]]
    posted = dict(zip(HEADER, row, strict=True))
    zipped = CONTRACT.model_copy(update={"encoding": "gzip"})
    assert isinstance(RecordEncoder(CONTRACT, 600).encode(posted), Rejection)
    assert isinstance(RecordEncoder(zipped, 600).encode(posted), PutRecordsEntry)
    for contract, limit in ((zipped, 100), (zipped.model_copy(update={"max_record_bytes": 600}), LIMIT)):
        for found in (
            RecordEncoder(contract, limit).encode(posted),
            JsonEncoder(contract, {}, contract.max_record_bytes)
            .encode(JsonChunk(0, None, 0, [json.dumps(posted).encode()]))
            .compressed(limit)
            .record(0),
        ):
            assert isinstance(found, Rejection)
            assert found.reason == "too_large"


def test_a_column_of_the_file_may_have_a_quote_or_a_control_character_in_its_name() -> None:
    header = ['a "b" \\', *HEADER]
    chunk = as_rows([["x", *GOOD]])
    [record], rejected = encode(RowEncoder(CONTRACT, header, PARIS, LIMIT), chunk)
    assert rejected == []
    assert json.loads(record.Data)['a "b" \\'] == "x"
