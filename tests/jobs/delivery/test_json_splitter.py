"""Splitting a delivery file: what was joined comes apart again, and no file costs more than its length allows."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.delivery import json_values
from jobs.delivery.delivery_records import CHUNK_BYTES, gunzipped
from jobs.delivery.json_splitter import split
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import NOT_JSON, NOT_UTF8
from jobs.schema.table import load_contract

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


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(encoded(), st.sampled_from([b"", b"\n", b"\r\n"])), max_size=8), st.integers(1, 64))
def test_valid_objects_come_apart_as_they_were_whatever_the_delimiter_and_the_chunks(
    records: list[tuple[bytes, bytes]], size: int
) -> None:
    data = b"".join(record + delimiter for record, delimiter in records)

    assert list(split(chunked(data, size))) == [record for record, _ in records]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\ \n1a'), max_size=60).map(str.encode))
def test_whatever_the_bytes_none_but_blanks_between_records_are_lost(data: bytes) -> None:
    records = list(split([data]))

    at = 0
    for record in records:
        found = data.index(record, at)
        assert data[at:found].strip(b" \t\r\n") == b""
        at = found + len(record)
    assert data[at:].strip(b" \t\r\n") == b""
    for size in (1, 3, 7):
        assert list(split(chunked(data, size))) == records


@settings(max_examples=200, deadline=None)
@given(encoded(), st.data())
def test_the_slow_way_and_the_quick_way_agree(record: bytes, data: st.DataObject) -> None:
    behind = data.draw(st.sampled_from([b"", b"\n", b" x", b"{", b'{"a"', b"]"]))
    text = record + behind

    assert json_values.Values(text, True, 1 << 20)._scan(0) == len(record)
    try:
        msgspec.json.decode(record, type=msgspec.Raw)
    except msgspec.DecodeError:
        return  # NaN and Infinity, which the quick way leaves to the slow one
    assert json_values.Values(text, True, 1 << 20)._quick_end(0) == len(record)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('{}[]",:\\ 1'), min_size=1, max_size=30))
def test_an_object_found_is_one_for_the_parser_too_unless_its_numbers_or_escapes_are_wrong(text: str) -> None:
    end = json_values.Values(("{" + text).encode(), True, 1 << 20).end(0)
    try:
        _, expected = json.JSONDecoder().raw_decode("{" + text)
    except json.JSONDecodeError:
        return
    assert end == expected


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
    ],
)
def test_what_is_no_json_ends_at_the_next_object_or_line(junk: bytes, records: list[bytes]) -> None:
    for delimiter in (b"", b"\n"):
        assert list(split([junk + delimiter + GOOD + delimiter])) == [*records, GOOD]
        assert list(split([GOOD + delimiter + junk + delimiter + GOOD])) == [GOOD, *records, GOOD]


def test_where_a_record_on_the_stream_holds_an_object_and_more_the_two_paths_differ() -> None:
    """The one difference that the bytes of a file do not tell: see docs/batch-path.md."""
    parser = RecordParser(load_contract("travel_times.yaml"))
    for held in (b"{}{}", b"words {}", b"{} words"):
        rejection = parser.reject(held)
        assert rejection is not None
        assert rejection.reason == NOT_JSON
        assert len(list(split([held]))) == 2


def test_bytes_that_are_not_utf8_get_the_stream_s_reason() -> None:
    broken = b'{"City": "Par\xff\xfeis"}'
    found = list(split([GOOD + broken + GOOD]))

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
        begun = time.process_time()
        assert sum(map(len, split(chunked(data, 8192)))) >= size // 2
        return time.process_time() - begun

    small = max(min(seconds(20_000) for _ in range(2)), 0.002)
    # 8 times the length: 8 times the time, where a file that is read anew from each brace would take 64 times.
    assert seconds(160_000) < 30 * small


def test_objects_deeper_than_any_parser_goes_are_one_record() -> None:
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000

    assert list(split(chunked(deep + GOOD, 10_000))) == [deep, GOOD]


def test_what_never_ends_comes_in_pieces_and_a_value_too_long_is_none() -> None:
    pieces = list(split(chunked(b"x" * 1_000_000, 1000), longest=10_000))
    assert sum(map(len, pieces)) == 1_000_000
    assert max(map(len, pieces)) < 50_000

    endless = b'{"a":"' + b"y" * 100_000
    pieces = list(split(chunked(endless, 1000), longest=10_000))
    assert b"".join(pieces) == endless
    assert max(map(len, pieces)) < 50_000
    assert list(split(chunked(b'{"a":"' + b"y" * 9_000 + b'"}' + GOOD, 1000), longest=10_000))[1] == GOOD


@pytest.mark.parametrize("size", [0, 1, 100, 3 * CHUNK_BYTES])
def test_gzip_in_one_member_or_several_padded_or_not(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    members = gzip.compress(data) + gzip.compress(data)

    assert b"".join(gunzipped(gzip.compress(data), "name")) == data
    assert b"".join(gunzipped(members + b"\0" * 512, "name")) == data + data


def test_a_bomb_is_unpacked_chunk_by_chunk() -> None:
    bomb = gzip.compress(b"\0" * (40 * CHUNK_BYTES))

    assert max(map(len, gunzipped(bomb, "bomb"))) <= CHUNK_BYTES


@pytest.mark.parametrize("cut", [1, 5, 12, 40, -1, -8])
def test_gzip_that_breaks_off_shows_its_last_bytes(cut: int) -> None:
    whole = gzip.compress(b"".join(b'{"n":%d}\n' % number for number in range(3000)))
    records = list(split(gunzipped(whole[:cut], "name")))

    parser = RecordParser(load_contract("travel_times.yaml"))
    assert parser.reject(records[-1]) is not None
    assert records[-1] == b"" or whole[:cut].endswith(records[-1])
