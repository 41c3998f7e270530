"""The same records give the same blocks, whatever batches they arrive in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from jobs.write.rebatch import MAX_BYTES, MAX_ROWS, rebatch

RECORDS = st.lists(st.integers(0, 400), max_size=60)  # bytes of each record


def batch(sizes: list[int]) -> pa.RecordBatch:
    return pa.record_batch(
        {"data": pa.array([bytes(size) for size in sizes], pa.binary()), "number": range(len(sizes))}
    )


def cut(whole: pa.RecordBatch, at: list[int]) -> Iterator[pa.RecordBatch]:
    places = [0, *sorted(place % (whole.num_rows + 1) for place in at), whole.num_rows]
    for start, end in pairwise(places):
        yield whole.slice(start, end - start)


@given(RECORDS, st.lists(st.integers(0, 1000), max_size=9), st.lists(st.integers(0, 1000), max_size=9))
def test_the_blocks_do_not_depend_on_the_batches(sizes: list[int], one: list[int], two: list[int]) -> None:
    whole = batch(sizes)
    first, second = (list(rebatch(cut(whole, at), 1000)) for at in (one, two))
    assert first == second
    assert [row for block in first for row in block.to_pylist()] == whole.to_pylist()
    for block in first:
        lengths = [len(data) for data in block["data"].to_pylist()]
        assert sum(lengths[:-1]) < 1000
    for block in first[:-1]:
        assert sum(len(data) for data in block["data"].to_pylist()) >= 1000


def test_a_batch_of_the_usual_size_is_not_copied() -> None:
    whole = batch([400] * MAX_ROWS)
    (block,) = rebatch(iter([whole]))
    assert block["data"].buffers()[2].address == whole["data"].buffers()[2].address


def test_large_records_make_small_blocks() -> None:
    whole = batch([MAX_BYTES // 2, MAX_BYTES, 1, MAX_BYTES // 2 - 1, MAX_BYTES // 2, 7])
    assert [block.num_rows for block in rebatch(iter([whole]))] == [2, 3, 1]


def test_no_records_give_no_block() -> None:
    assert list(rebatch(iter([]))) == list(rebatch(iter([batch([])]))) == []
