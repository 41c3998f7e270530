"""The limits of the HTTP API: bytes, values, complaints and the event loop's time. No server is needed here."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from jobs.schema.table import load_contract
from jobs.settings.api_section import ApiSettings
from producer.api_body import FREE_BYTES, VALUES_PER_RECORD, BodyReader, require_json
from producer.api_checks import MAX_COMPLAINTS, SLICE_SECONDS, check
from producer.api_errors import HttpError
from producer.record_encoder import RecordEncoder

FIVE_MB = 5 * 1024 * 1024
GOOD = {
    "Origin Movement ID": "9",
    "Destination Movement ID": "5",
    "Date Range": "09/03/2016 - 10/01/2016, Every day, Daily Average",
    "Mean Travel Time (Seconds)": 446,
}


def reader(**settings: Any) -> BodyReader:
    return BodyReader(ApiSettings(**settings))


def request(*parts: bytes, encoding: str = "") -> Request:
    """A POST whose body arrives in parts."""
    headers = [(b"content-type", b"application/json"), (b"content-encoding", encoding.encode())]
    waiting = list(parts)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}, receive)


def received(bodies: BodyReader, *parts: bytes, encoding: str = "") -> bytes:
    async def read() -> bytes:
        with bodies.reading() as receive:
            return bytes(await receive(request(*parts, encoding=encoding)))

    return asyncio.run(read())


@pytest.fixture(scope="module")
def encoder() -> RecordEncoder:
    return RecordEncoder(load_contract("travel_times.yaml"), 1_048_576)


@pytest.mark.parametrize("element", ["0", "{}", "[]", '""', '{"a":0}'])
def test_five_megabytes_of_tiny_values_are_refused_before_they_are_decoded(element: str) -> None:
    body = f"[{','.join([element] * ((FIVE_MB - 1) // (len(element) + 1)))}]".encode()
    with pytest.raises(HttpError) as refused:
        reader().decode(bytearray(body))
    assert refused.value.status == 413
    assert "240000 JSON values" in refused.value.content["error"]


def test_commas_in_texts_are_no_values() -> None:
    ring = json.dumps([[2.3, 48.8]] * 2000)
    records = [GOOD | {"Origin Geometry": ring, "Origin Display Name": 'a\\",[ "b\\\\'}] * 100
    assert reader(max_pending_records=100).decode(bytearray(json.dumps(records).encode())) == records


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text('",\\[{a', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('",\\[{a', max_size=3), inner, max_size=4),
    max_leaves=20,
)


def number_of_values(value: Any) -> int:
    parts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return 1 + sum(map(number_of_values, parts))


@given(value=JSON)
def test_no_body_with_more_values_than_the_limit_is_decoded(value: Any) -> None:
    bodies, body = reader(max_pending_records=1), bytearray(json.dumps(value).encode())
    if number_of_values(value) > VALUES_PER_RECORD:
        with pytest.raises(HttpError, match="413"):
            bodies.decode(body)


def test_the_first_complaints_are_listed_and_all_are_counted(encoder: RecordEncoder) -> None:
    checked = asyncio.run(check([{}, GOOD, 0] * 100, encoder))
    assert len(checked.complaints) == MAX_COMPLAINTS
    assert [one["index"] for one in checked.complaints[:3]] == [0, 2, 3]
    assert len(checked.complaints[0]["errors"]) == 4
    assert checked.rejections()["rejected_count"] == 200
    assert dict(checked.reasons) == {"missing_field": 100, "not_an_object": 100}
    assert [index for index, _ in checked.records] == list(range(1, 300, 3))


def test_other_requests_run_while_a_long_list_is_checked(encoder: RecordEncoder) -> None:
    async def turns() -> int:
        checking = asyncio.create_task(check([{}] * 100_000, encoder))
        count = 0
        while not checking.done():
            await asyncio.sleep(0)
            count += 1
        return count

    started = time.perf_counter()
    assert asyncio.run(turns()) > 2, "the list was checked at one go"
    assert time.perf_counter() - started > 2 * SLICE_SECONDS


def test_all_large_bodies_share_a_budget_and_small_ones_do_not_need_it() -> None:
    bodies = reader(max_receiving_bytes=100_000)
    large, small = b" " * (FREE_BYTES + 60_000), b" " * FREE_BYTES

    async def two() -> None:
        with bodies.reading() as first:
            await first(request(large))
            assert bodies.receiving_bytes == 60_000
            with bodies.reading() as other:
                assert await other(request(small)) == small
            with pytest.raises(HttpError) as refused, bodies.reading() as other:
                await other(request(large[:70_000], large[70_000:]))
            assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
            assert bodies.receiving_bytes == 60_000

    asyncio.run(two())
    assert bodies.receiving_bytes == 0
    assert received(bodies, large) == large


def test_a_gzip_body_is_decompressed_in_parts() -> None:
    body = json.dumps([GOOD] * 50).encode()
    packed = gzip.compress(body)
    assert received(reader(), *(packed[at : at + 7] for at in range(0, len(packed), 7)), encoding="GZIP") == body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b" " * 100_000_000, 1), 413),
        (gzip.compress(b"[1]")[:-1], 400),
        (gzip.compress(b"[1]") + b"more", 400),
        (b"[1]", 400),
        (b"", 400),
    ],
    ids=["bomb", "cut", "more", "plain", "empty"],
)
def test_a_gzip_body_that_is_too_large_or_damaged_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(HttpError) as refused:
        received(reader(), body, encoding="gzip")
    assert refused.value.status == status


def test_another_encoding_is_415_and_names_the_one_that_works() -> None:
    with pytest.raises(HttpError) as refused:
        received(reader(), b"[1]", encoding="br")
    assert (refused.value.status, refused.value.headers) == (415, {"Accept-Encoding": "gzip"})
    assert received(reader(), b"[1]", encoding="identity") == b"[1]"


@pytest.mark.parametrize(
    "accepted", ["application/json", "Application/JSON ; charset=UTF-8", 'application/json;charset="utf8"']
)
def test_json_in_utf8_is_accepted(accepted: str) -> None:
    require_json(accepted)


@pytest.mark.parametrize(
    "refused", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
def test_another_content_type_is_415(refused: str) -> None:
    with pytest.raises(HttpError) as error:
        require_json(refused)
    assert error.value.status == 415
