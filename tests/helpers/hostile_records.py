"""Records as nobody should send them."""

from __future__ import annotations

import json
import zlib
from typing import Any

from hypothesis import strategies as st

from tests.helpers.samples import bytes_of

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), 2**63, 2**64, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**33), 2**33).map(float),
    st.integers(-(2**33), 2**33).map(lambda number: f"{number}.0"),
    st.text(max_size=20),
    st.sampled_from(["", " ",  "0", "-1", "+5", " 7 ", "7.", "1e3", "1e400", "0x10", "NaN", "true", "٤", "9" * 70]),
    st.sampled_from(["2016-02-29", "\0", "\uffff", "a/1", "a/", "x" * 260]),
    st.sampled_from([
        "09/03/2016 - 10/01/2016, Every day, PM", "10/01/2016 - 09/03/2016, x, y"
    ]),
)  # fmt: skip


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def a_record(base: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """The good record with some fields changed, dropped or added."""
    names = st.sampled_from([*base, "unknown", ""])
    changed = st.dictionaries(names, VALUES, max_size=4).map(lambda changes: base | changes)
    dropped = st.tuples(changed, st.sets(names, max_size=2)).map(
        lambda drawn: {name: value for name, value in drawn[0].items() if name not in drawn[1]}
    )
    return dropped.map(_json_bytes)


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def damaged(record: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A record with bytes cut off, put in the middle, or in another encoding."""
    return st.one_of(
        st.tuples(record, st.integers(0, 300)).map(lambda drawn: drawn[0][: drawn[1]]),
        st.tuples(record, st.integers(0, 300), st.binary(min_size=1, max_size=4)).map(
            lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] :]
        ),
        record.map(lambda data: data + data),
        record.map(lambda data: b"\xef\xbb\xbf" + data),
        record.map(lambda data: data.decode("utf-8", "replace").encode("utf-16")),
        st.tuples(record, VALUES).map(lambda drawn: drawn[0][:-1] + b', "City": ' + _json_bytes(drawn[1]) + b"}"),
    )


def hostile(base: dict[str, Any]) -> st.SearchStrategy[bytes]:
    record = a_record(base)
    extremes = [
        b"[" * 100_000,
        b"[" * 980 + b"]" * 980,
        bytes_of(base)[:-1] + b', "x":' + b"[" * 985 + b"]" * 985 + b"}",
        bytes_of(base)[:-1] + b', "x": 1e999999999999999999999}',
        bytes_of(base)[:-1] + b', "x": NaN}',
        bytes_of(base)[:-1] + b', "x": "\\ud800"}',
        bytes_of(base | {"x": "y" * 1_000_000}),
        bytes_of(base)[:-1] + b', "x": ' + b"9" * 5000 + b"}",
        b"\0" * 1000,
    ]
    return st.one_of(
        record, record, damaged(record), VALUES.map(_json_bytes), st.binary(max_size=50), st.sampled_from(extremes)
    )


def with_twins(records: list[bytes]) -> list[bytes]:
    """The records, and of each another that is damaged at a place that its content decides."""
    twins = []
    for record in records:
        at = zlib.crc32(record) % (len(record) + 1)
        twins.append(record[:at] if at % 2 else record[:at] + bytes([at % 256]) + record[at + 1 :])
    return records + twins
