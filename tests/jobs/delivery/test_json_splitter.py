"""The JSON splitter gives joined records back unchanged, and its cost grows with a file's length, no faster."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.delivery.delivery_records import CHUNK_BYTES, gunzip
from jobs.delivery.json_splitter import split_records
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import NOT_JSON, NOT_UTF8
from jobs.schema.table import load_contract
from tests.helpers.examples import examples

ODD = st.text(st.sampled_from('{}[]",:\\ \n\t1aé\u2028'), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ODD | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(ODD, VALUES, max_size=4)


@st.composite
def encoded(draw: st.DrawFn) -> bytes:
    """An object as some producer writes it: compact or pretty, ASCII or UTF-8, with NaN and Infinity as Python has."""
    indent = draw(st.sampled_from([None, None, 2]))
    text = json.dumps(draw(OBJECTS), indent=indent, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.tuples(encoded(), st.sampled_from([b"", b"\n", b"\r\n"])), max_size=8), st.integers(1, 64))
def test_valid_objects_come_apart_as_they_were_whatever_the_delimiter_and_the_chunks(
    records: list[tuple[bytes, bytes]], size: int
) -> None:
    data = b"".join(record + delimiter for record, delimiter in records)

    assert list(split_records(chunked(data, size))) == [record for record, _ in records]


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\ \n1a'), max_size=60).map(str.encode))
def test_nothing_but_white_space_between_records_is_dropped(data: bytes) -> None:
    records = list(split_records([data]))

    at = 0
    for record in records:
        found = data.index(record, at)
        assert data[at:found].strip(b" \t\r\n") == b""
        at = found + len(record)
    assert data[at:].strip(b" \t\r\n") == b""
    for size in (1, 3, 7):
        assert list(split_records(chunked(data, size))) == records


@settings(max_examples=examples(200), deadline=None)
@given(encoded(), st.sampled_from([b"", b"\n", b" x", b"{", b'{"a"', b"]"]))
def test_a_valid_object_is_found_whatever_follows_it(record: bytes, following: bytes) -> None:
    assert next(split_records([record + following])) == record


@settings(max_examples=examples(200), deadline=None)
@given(st.text(st.sampled_from('{}[]",:\\ 1'), min_size=1, max_size=30))
def test_a_record_is_exactly_the_value_that_the_standard_library_reads(text: str) -> None:
    try:
        _, end = json.JSONDecoder().raw_decode("{" + text)
    except json.JSONDecodeError:
        return
    assert next(split_records([("{" + text).encode()])) == ("{" + text)[:end].encode()


@pytest.mark.parametrize("delimiter", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_record_may_take_several_lines(delimiter: bytes, size: int) -> None:
    records = [
        b'{\n  "City": "Paris",\n  "geometry": [\n    [1, 2],\n    [3, 4]\n  ]\n}',
        b'{"a": 1}',
        b'{\r\n\t"text": "{\\n}",\r\n\t"b": {}\r\n}',
        b"[\n1,\n2\n]",
        b'{"line break in a string": "\n"}',
    ]
    data = delimiter.join(records) + delimiter
    bad = b'{\n  "City": "Paris",\n  "n": tru'

    assert list(split_records(chunked(data, size))) == records
    # A broken record of several lines comes in pieces; the records around it stay as they are.
    found = list(split_records(chunked(data + bad + b"\n" + data, size)))
    assert found[: len(records)] == found[-len(records) :] == records
    assert b"".join(b"".join(found[len(records) : -len(records)]).split()) == b"".join(bad.split())


GOOD = b'{"City":"Paris","geometry":[[1,2],[3,4]]}'


@pytest.mark.parametrize(
    ("junk", "records"),
    [
        (b"not JSON", [b"not JSON"]),
        (b"two\nlines", [b"two", b"lines"]),
        (b'{"City": "Paris", \xff\xfe', [b'{"City": "Paris", \xff\xfe']),
        (b'{"City": "Par', [b'{"City": "Par']),
        (b'{"City": ', [b'{"City": ']),
        (b'{"City": {"a": [', [b'{"City": {"a": [']),
        (b'[{"a": 1}]', [b'[{"a": 1}]']),
        (b'"{}"', [b'"{}"']),
        (b"null", [b"null"]),
        (b'{"a": NaN, "b": {}, "c": -Infinity}', [b'{"a": NaN, "b": {}, "c": -Infinity}']),
        (b"{]", [b"{]"]),
        (b'{"a":1,}', [b'{"a":1,}']),
        (b'{"tab\tin a string":1}', [b'{"tab\tin a string":1}']),
        (b"\x00\x01", [b"\x00\x01"]),
        (b'{"a":1}}', [b'{"a":1}', b"}"]),
        (b'{"a":01}', [b'{"a":01}']),
        (b'{"a":01,"b":{},"c":2}', [b'{"a":01,"b":', b"{}", b',"c":2}']),
    ],
)
def test_a_bad_stretch_ends_at_the_next_object_or_line(junk: bytes, records: list[bytes]) -> None:
    for delimiter in (b"", b"\n"):
        assert list(split_records([junk + delimiter + GOOD + delimiter])) == [*records, GOOD]
        assert list(split_records([GOOD + delimiter + junk + delimiter + GOOD])) == [GOOD, *records, GOOD]


def test_a_stream_record_that_holds_an_object_and_more_is_two_records_here() -> None:
    """The paths must differ here, because a file does not say where such a record ended: see docs/batch-path.md."""
    parser = RecordParser(load_contract("travel_times.yaml"))
    for held in (b"{}{}", b"words {}", b"{} words"):
        rejection = parser.reject(held)
        assert rejection is not None
        assert rejection.reason == NOT_JSON
        assert len(list(split_records([held]))) == 2


def test_bytes_that_are_not_utf8_get_the_stream_s_reason() -> None:
    broken = b'{"City": "Par\xff\xfeis"}'
    found = list(split_records([GOOD + broken + GOOD]))

    assert found == [GOOD, broken, GOOD]
    rejection = RecordParser(load_contract("travel_times.yaml")).reject(found[1])
    assert rejection is not None
    assert rejection.reason == NOT_UTF8


HOSTILE = {
    "objects opened and never closed": b'{"a":',
    "arrays opened and never closed": b'{"a":[',
    "braces": b"{",
    "quotes": b'{"',
    "strings that hold beginnings": b'{"a":"{',
    "strings that hold beginnings and ends": b'{"a":"b","{":"',
    "escapes": b'{"\\',
    "whole objects in one that is not": b"{},",
    "no line and no object": b"x",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_costs_time_in_proportion_to_its_length(name: str) -> None:
    def seconds(size: int) -> float:
        data = b'{"a":[' * 100 + HOSTILE[name] * (size // len(HOSTILE[name]))
        started = time.process_time()
        assert sum(map(len, split_records(chunked(data, 8192)))) >= size // 2
        return time.process_time() - started

    small = max(min(seconds(20_000) for _ in range(2)), 0.002)
    # 8 times the length takes about 8 times as long; reading again from each brace would take 64 times as long.
    assert seconds(160_000) < 30 * small


def test_objects_deeper_than_any_parser_goes_are_one_record() -> None:
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000

    assert list(split_records(chunked(deep + GOOD, 10_000))) == [deep, GOOD]


def test_an_endless_stretch_comes_in_pieces_and_a_value_over_the_limit_is_a_bad_stretch() -> None:
    pieces = list(split_records(chunked(b"x" * 1_000_000, 1000), max_bytes=10_000))
    assert sum(map(len, pieces)) == 1_000_000
    assert max(map(len, pieces)) < 50_000

    endless = b'{"a":"' + b"y" * 100_000
    pieces = list(split_records(chunked(endless, 1000), max_bytes=10_000))
    assert b"".join(pieces) == endless
    assert max(map(len, pieces)) < 50_000
    assert list(split_records(chunked(b'{"a":"' + b"y" * 9_000 + b'"}' + GOOD, 1000), max_bytes=10_000))[1] == GOOD


@pytest.mark.parametrize("size", [0, 1, 100, 3 * CHUNK_BYTES])
def test_gzip_in_one_member_or_several_padded_or_not(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    members = gzip.compress(data) + gzip.compress(data)

    assert b"".join(gunzip(gzip.compress(data), "name")) == data
    assert b"".join(gunzip(members + b"\0" * 512, "name")) == data + data


def test_a_bomb_is_unpacked_chunk_by_chunk() -> None:
    bomb = gzip.compress(b"\0" * (40 * CHUNK_BYTES))

    assert max(map(len, gunzip(bomb, "bomb"))) <= CHUNK_BYTES


@pytest.mark.parametrize("cut", [1, 5, 12, 40, -1, -8])
def test_the_last_bytes_of_a_truncated_gzip_file_are_a_record_that_is_rejected(cut: int) -> None:
    whole = gzip.compress(b"".join(b'{"n":%d}\n' % number for number in range(3000)))
    records = list(split_records(gunzip(whole[:cut], "name")))

    parser = RecordParser(load_contract("travel_times.yaml"))
    assert parser.reject(records[-1]) is not None
    assert records[-1] == b"" or whole[:cut].endswith(records[-1])
