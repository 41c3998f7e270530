"""`encoding: gzip`: a record is gzip of its JSON, bounded, and judged as the same JSON without gzip."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.delivery.delivery_records import DeliveryReader, gzip_records
from jobs.schema.checks import RecordChecks
from jobs.schema.encoding import gunzip, stretches, without_file_compression
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.write.decode import decoded
from tests.helpers.samples import TRAVEL_TIMES, arrived, as_data, contract_with, good

LIMIT = 10_000
GZIP: TableContract = contract_with(encoding="gzip")
ONE, TWO = b'{"a": 1}', b'{"b": [2, 3]}'


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def broken(data: bytes) -> bytes:
    """A member whose checksum is wrong."""
    found = bytearray(zipped(data))
    found[-8] ^= 1
    return bytes(found)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (zipped(ONE), ONE),
        (zipped(ONE[:3]) + zipped(ONE[3:]), ONE),
        (zipped(b"") + zipped(ONE) + b"\0\0\n", ONE),
        (ONE, ONE),
        (b" \n" + ONE, b" \n" + ONE),
        (zipped(b"[]"), b"[]"),
        (b"oops", b"oops"),
        (zipped(b"oops"), b"oops"),
        (b"", b""),
    ],
)
def test_the_text_of_a_record(data: bytes, text: bytes) -> None:
    assert gunzip(data, LIMIT) == text


@pytest.mark.parametrize(
    "data",
    [
        b"\x1f\x8b", b"\x1f\x8bnot really", zipped(ONE)[:-1], broken(ONE), zipped(ONE) + b"{}",
        zipped(ONE) + b"\x1f\x8b\x08oops", zipped(zipped(ONE)), zipped(b"") * 1_001,
    ],
)  # fmt: skip
def test_what_is_not_gzip(data: bytes) -> None:
    found = gunzip(data, LIMIT)
    assert isinstance(found, Rejection)
    assert found.reason == "not_gzip"
    assert found.value


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_the_limit_is_of_the_text(size: int) -> None:
    whole = gunzip(zipped(b" " * size), LIMIT)
    halves = gunzip(zipped(b" " * (size - 5)) + zipped(b" " * 5), LIMIT)
    for found in (whole, halves):
        if size <= LIMIT:
            assert found == b" " * size
        else:
            assert isinstance(found, Rejection)
            assert found.reason == "too_large"


def test_a_bomb_is_not_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(bytes(100_000_000), 9)
    import jobs.schema.encoding as encoding

    seen = []
    plain = encoding._read_member

    def counted(content: bytes, at: int, most: int) -> tuple[bytes, int]:
        seen.append(most)
        return plain(content, at, most)

    monkeypatch.setattr(encoding, "_read_member", counted)
    found = gunzip(bomb, LIMIT)
    assert isinstance(found, Rejection)
    assert found.reason == "too_large"
    assert seen == [LIMIT]


def test_the_parser_reads_gzip_as_the_same_json() -> None:
    records = [good(), good(City="Lima"), b'{"City": 1}', b"{", b"\xff", b"[]", good(extra={"a": [1]})]
    plain = RecordParser(TRAVEL_TIMES).parse(as_data(records))
    found = RecordParser(GZIP).parse(as_data([zipped(record) for record in records]))
    assert found == plain
    checks = RecordChecks(GZIP)
    assert [checks.reject_bytes(zipped(one)) for one in records] == [plain.rejections.get(at) for at in range(7)]


def test_the_parser_and_the_checks_reject_what_is_not_gzip() -> None:
    bad = [broken(good()), b"oops", zipped(b" " * (GZIP.max_record_bytes + 1))]
    found = RecordParser(GZIP).parse(as_data([bad[0], zipped(good()), *bad[1:]])).rejections
    assert {at: each.reason for at, each in found.items()} == {0: "not_gzip", 2: "not_json", 3: "too_large"}
    assert [RecordChecks(GZIP).reject_bytes(each) for each in bad] == [found[0], found[2], found[3]]


def test_without_the_encoding_the_rejection_names_the_remedy() -> None:
    assert "encoding: gzip" in str(RecordParser(TRAVEL_TIMES).reject(zipped(good())))


def test_raw_and_quarantine_get_the_text_and_a_bad_record_keeps_its_bytes() -> None:
    records = [zipped(good()), broken(ONE), ONE, zipped(b"oops")]
    (batch,) = decoded([arrived(records)], GZIP)
    assert batch["data"].to_pylist() == [good(), broken(ONE), ONE, b"oops"]
    assert batch.drop_columns("data") == arrived(records).drop_columns("data")
    given_batches = [arrived([ONE])]
    assert decoded(given_batches, TRAVEL_TIMES) is given_batches


def test_batches_stay_small_whatever_their_text_is() -> None:
    member = zipped(b'{"a": "' + b"x" * 3_000_000 + b'"}')
    sizes = [batch.num_rows for batch in decoded([arrived([member] * 8)], GZIP)]
    assert sizes == [3, 3, 2]


def test_a_delivery_file_has_records_one_after_the_other() -> None:
    bomb = zipped(b" " * (LIMIT + 1))
    half = zipped(TWO)[:-4]
    content = zipped(ONE) + b"\n" + zipped(TWO[:4]) + zipped(TWO[4:]) + ONE + half + bomb + zipped(TWO) + b"oops\n"
    assert list(gzip_records(content, LIMIT)) == [ONE, TWO, ONE, half, bomb, TWO, b"oops"]
    assert list(gzip_records(content + zipped(ONE), LIMIT))[-2:] == [b"oops", ONE]
    assert list(gzip_records(b"\0\0" + zipped(ONE) + b"\0\0\n", LIMIT)) == [ONE]


def test_text_in_a_broken_record_is_not_a_record() -> None:
    stored = bytearray(gzip.compress(TWO, 0, mtime=0))
    stored[-8] ^= 1
    assert list(stretches(bytes(stored) + zipped(ONE), LIMIT)) == [(False, bytes(stored)), (True, ONE)]


@given(st.lists(st.sampled_from([ONE, TWO, b"[1]", b'{"c": "\\u00e9"}']), max_size=30), st.booleans(), st.booleans())
def test_the_layer_of_the_file_may_or_may_not_be_there(records: list[bytes], outer: bool, delimiter: bool) -> None:
    content = (b"\n" if delimiter else b"").join(map(zipped, records))
    content = zipped(content) if outer else content
    assert list(gzip_records(without_file_compression(content), LIMIT)) == records


def test_a_file_that_only_looks_compressed_is_read_as_records() -> None:
    content = zipped(ONE) + broken(TWO) + zipped(TWO)
    assert without_file_compression(content) == content
    assert list(gzip_records(content, LIMIT)) == [ONE, broken(TWO), TWO]


@given(st.lists(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(broken), st.just(zipped(ONE)))))
def test_a_bad_record_takes_no_good_one_with_it(parts: list[bytes]) -> None:
    found = list(gzip_records(b"".join(parts), LIMIT))
    assert found.count(ONE) == parts.count(zipped(ONE))


def test_a_quote_takes_no_good_record_with_it() -> None:
    assert list(gzip_records(b'"' + zipped(ONE) + b'"', LIMIT)) == [b'"', ONE, b'"']


@pytest.mark.parametrize("name", ["d-1-2026-11-23-10-30-00-a", "d-1-2026-11-23-10-30-00-a.gz"])
def test_the_batch_path_reads_gzip_records_from_a_file_that_firehose_compressed_or_not(
    tmp_path: Path, name: str
) -> None:
    content = zipped(ONE) + zipped(TWO) + broken(ONE)
    (tmp_path / name).write_bytes(zipped(content) if name.endswith(".gz") else content)
    reader = DeliveryReader(lambda uri: uri.rpartition("/")[2], datetime(2026, 1, 1, tzinfo=UTC), LIMIT)
    (batch,) = reader([f"file://{tmp_path}/{name}"])
    assert batch["data"].to_pylist() == [ONE, TWO, broken(ONE)]
    assert batch["sequence_number"].to_pylist() == ["1", "2", "3"]
