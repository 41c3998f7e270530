"""Rows → records: the quick check never accepts what the contract rejects, and every text survives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.contract.checks import Checks
from jobs.contract.rejects import Rejection
from jobs.contract.table import load_contract
from producer.records import Record, RecordEncoder, RowEncoder, partition_key

CONTRACT = load_contract("travel_times.yaml")
CHECKS = Checks(CONTRACT)
HEADER = [field for field in CONTRACT.source_fields if field != "City"]
GOOD = ["1", "a", "[]", "2", "b", "[]", "07/31/2016 - 08/28/2016, Every day, Daily Average", "20", "10", "30"]
LIMIT = 1024 * 1024

odd = st.sampled_from(
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
        "99999999999",
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
            st.one_of(st.just(value), period if at == 6 else odd, st.text(max_size=5)) if at in (0, 1, 3, 6) else
            st.one_of(st.just(value), odd) if at > 6 else st.just(value)
            for at, value in enumerate(GOOD)
        ]
    ).map(list),
    min_size=1,
    max_size=6,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(rows=rows, city=st.one_of(st.none(), st.just("Paris"), odd, st.text(max_size=3), st.just("x" * 300)))
def test_the_quick_check_rejects_exactly_what_the_contract_rejects(rows, city):
    encoder = RowEncoder(CONTRACT, HEADER, city, LIMIT)
    extra = {} if city is None else {"City": city}
    expected = [CHECKS.reject(dict(zip(HEADER, row, strict=True)) | extra) for row in rows]
    for _ in range(2):  # the second time with what the first has seen
        records, rejected = encoder.encode([list(row) for row in rows])
        assert rejected == [(index, why) for index, why in enumerate(expected) if why is not None]
        assert [json.loads(record.Data) for record in records] == [
            dict(zip(HEADER, row, strict=True)) | extra for row, why in zip(rows, expected, strict=True) if why is None
        ]


def test_a_chunk_of_good_rows_takes_the_quick_way():
    encoder = RowEncoder(CONTRACT, HEADER, "Paris", LIMIT)
    encoder._encode_each = lambda rows: pytest.fail("row by row")  # type: ignore[method-assign]
    records, rejected = encoder.encode([GOOD] * 500)
    assert (len(records), rejected) == (500, [])


@given(st.lists(st.text(max_size=200), min_size=1, max_size=3))
def test_a_partition_key_is_one_that_kinesis_takes_and_the_same_for_the_same_values(values):
    key = partition_key(values)
    assert 1 <= len(key) <= 256
    assert key == partition_key(list(values))
    assert len("|".join(values)) > 256 or not values or key == ("|".join(values) or "|")


def test_long_values_that_differ_at_the_end_have_different_keys():
    assert partition_key(["x" * 300 + "1"]) != partition_key(["x" * 300 + "2"])


def test_rows_and_posted_records_of_the_same_content_have_the_same_key():
    (row,), _ = RowEncoder(CONTRACT, HEADER, "Paris", LIMIT).encode([GOOD])
    posted = RecordEncoder(CONTRACT, LIMIT).encode(dict(zip(HEADER, GOOD, strict=True)) | {"City": "Paris"})
    assert isinstance(posted, Record)
    assert row.PartitionKey == posted.PartitionKey == "Paris|1|2"


def test_a_record_may_be_as_large_as_the_stream_takes_and_no_larger():
    (record,), _ = RowEncoder(CONTRACT, HEADER, "Paris", LIMIT).encode([GOOD])
    size = len(record.Data) + len(record.PartitionKey)
    assert RowEncoder(CONTRACT, HEADER, "Paris", size).encode([GOOD]) == ([record], [])
    _, ((_, why),) = RowEncoder(CONTRACT, HEADER, "Paris", size - 1).encode([GOOD])
    assert isinstance(why, Rejection)
    assert why.reason == "too_large"
