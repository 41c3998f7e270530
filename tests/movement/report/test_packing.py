"""Numbers are packed into bytes. `test_browser` shows that the page's script unpacks them."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from movement.report.model import NONE, Ints
from movement.report.packing import pack, pack_columns, zigzag
from tests.helpers.packed_numbers import unpacked


def ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)


@given(st.lists(st.one_of(st.integers(-(10**8), 10**9), st.just(NONE))))
def test_packed_numbers_can_be_unpacked(values: list[int]) -> None:
    header, content = pack(ints(values))

    assert unpacked(header, content) == values


def test_a_column_takes_as_many_bytes_a_value_as_its_span_needs() -> None:
    assert len(pack(ints([70_000, 70_255]))[1]) == 2
    assert len(pack(ints([70_000, 70_256]))[1]) == 4
    assert pack(ints([5, 5, 5])) == ([3, 0, 5, 0], b"")


def test_a_span_that_the_page_cannot_read_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        pack(ints([0, 2**40]))


def test_columns_follow_each_other() -> None:
    headers, content = pack_columns([ints([1, 2]), ints([300, 900])])

    assert zlib.decompress(content, -15) == b"\x00\x01" + b"\x00\x58" + b"\x00\x02"
    assert [header[:3] for header in headers] == [[2, 1, 1], [2, 2, 300]]


def test_zigzag_keeps_small_numbers_small() -> None:
    assert zigzag(ints([0, -1, 1, -2, 2])).tolist() == [0, 1, 2, 3, 4]
