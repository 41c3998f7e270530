"""The contract's checks of one record: which records pass, and the reason of each rejection."""

from __future__ import annotations

import json

import pytest

from jobs.schema.checks import RecordChecks
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from tests.helpers.samples import GOOD, LOWER, MEAN, TRAVEL_TIMES, UPPER

CHECKS = RecordChecks(TRAVEL_TIMES)


def test_a_record_of_a_real_export_passes():
    assert CHECKS.reject(GOOD) is None
    assert CHECKS.reject_bytes(json.dumps(GOOD).encode()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {MEAN: 446},
        {MEAN: 446.0},
        {MEAN: "446.0"},
        {MEAN: "4.46e2"},
        {MEAN: " +446\t"},
        {LOWER: None, UPPER: ""},
        {LOWER: 900, MEAN: 900, UPPER: None},
        {"City": None},
        {"Some other field": {"nested": [1, 2]}},
        {"Origin Geometry": [[1.5, 2.5]]},
        {"Origin Movement ID": 9},
        {MEAN: 0, LOWER: 0},
        {MEAN: 2147483647, UPPER: 2147483647},
    ],
)
def test_a_record_that_can_become_a_row_passes(changes):
    assert CHECKS.reject(GOOD | changes) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({MEAN: None}, Rejection("missing_field", MEAN)),
        ({MEAN: ""}, Rejection("missing_field", MEAN)),
        ({"Origin Movement ID": ""}, Rejection("missing_field", "Origin Movement ID")),
        ({MEAN: "n/a"}, Rejection("wrong_type", MEAN, "n/a")),
        ({MEAN: "44 6"}, Rejection("wrong_type", MEAN, "44 6")),
        ({MEAN: "4_46"}, Rejection("wrong_type", MEAN, "4_46")),
        ({MEAN: "٤٤٦"}, Rejection("wrong_type", MEAN, "٤٤٦")),
        ({MEAN: 446.5}, Rejection("wrong_type", MEAN, "446.5")),
        ({MEAN: "446.5"}, Rejection("wrong_type", MEAN, "446.5")),
        ({MEAN: True}, Rejection("wrong_type", MEAN, "true")),
        ({MEAN: [446]}, Rejection("wrong_type", MEAN, "[446]")),
        ({MEAN: 2147483648}, Rejection("wrong_type", MEAN, "2147483648")),
        ({MEAN: "9" * 5000}, Rejection("wrong_type", MEAN, "9" * 200)),
        ({LOWER: " "}, Rejection("wrong_type", LOWER, " ")),
        ({MEAN: -1}, Rejection("failed_check", MEAN, "-1")),
        ({LOWER: 447}, Rejection("failed_check", "bounds_in_order", "447, 446, 866")),
        ({LOWER: 867, MEAN: 900}, Rejection("failed_check", "bounds_in_order", "867, 900, 866")),
        ({"Date Range": "2016-09-03"}, Rejection("bad_date_range", "Date Range", "2016-09-03")),
    ],
)
def test_a_bad_record_is_rejected_with_its_reason(changes, expected):
    assert CHECKS.reject(GOOD | changes) == expected


@pytest.mark.parametrize("day", ["02/30/2016", "13/01/2016", "00/10/2016", "9/03/2016", "٠٩/03/2016"])
def test_an_invalid_date_is_rejected(day):
    found = CHECKS.reject(GOOD | {"Date Range": f"{day} - 12/31/2016, Every day, Daily Average"})
    assert found is not None
    assert (found.reason, found.field) == ("bad_date_range", "Date Range")


def test_february_29_is_valid_only_in_leap_years():
    def period(year: int) -> dict[str, str]:
        return GOOD | {"Date Range": f"02/29/{year} - 12/31/{year}, Every day, Daily Average"}

    assert CHECKS.reject(period(2016)) is None
    assert CHECKS.reject(period(2017)) is not None


def test_a_period_that_ends_before_it_starts_fails_its_check():
    found = CHECKS.reject(GOOD | {"Date Range": "10/01/2016 - 09/03/2016, Every day, Daily Average"})
    assert found == Rejection("failed_check", "period_in_order", "2016-10-01, 2016-09-03")


def test_the_whole_value_must_match_a_pattern():
    found = CHECKS.reject(GOOD | {"Date Range": "x" + GOOD["Date Range"]})
    assert found is not None
    assert found.reason == "bad_date_range"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xf3\x89\x9a\xc2\x0a", "kpl_aggregate"),
        (b"\xff\xfe", "not_utf8"),
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "missing_field"),
    ],
)
def test_bytes_that_are_not_a_json_object_are_rejected(data, reason):
    found = CHECKS.reject_bytes(data)
    assert found is not None
    assert found.reason == reason


def test_the_size_is_checked_first():
    small = TRAVEL_TIMES.model_copy(update={"max_record_bytes": 10})
    found = RecordChecks(small).reject_bytes(b"\xff" * 11)
    assert found == Rejection("too_large", value="11 bytes; at most 10 are allowed")
    assert RecordChecks(small).reject_bytes(b"\xff" * 10) == Rejection("not_utf8")


def test_the_first_reason_of_several_counts_and_all_are_listed():
    record = GOOD | {"Date Range": "?", LOWER: "x", MEAN: None}
    found = list(CHECKS.rejections(record))
    assert [one.reason for one in found] == ["missing_field", "wrong_type", "bad_date_range"]
    assert CHECKS.reject(record) == found[0]


def test_every_type_of_a_contract_is_read_strictly():
    contract = TableContract.model_validate(
        {
            "version": 1,
            "name": "other",
            "partition_by": ["day"],
            "stream_partition_key": ["d"],
            "columns": [
                {"source": "d", "column": "day", "type": "date"},
                {"source": "t", "column": "moment", "type": "timestamp"},
                {"source": "b", "column": "flag", "type": "boolean"},
                {"source": "l", "column": "number", "type": "long"},
                {"source": "f", "column": "ratio", "type": "double", "max": 1},
            ],
        }
    )
    checks = RecordChecks(contract)
    good = {"d": "2016-02-29", "t": "2016-02-29T01:02:03Z", "b": "TRUE", "l": 2**63 - 1, "f": "1e0"}
    assert checks.reject(good) is None
    assert checks.reject({}) is None
    for field, value in [("d", "2015-02-29"), ("t", "yesterday"), ("b", 1), ("l", 2**63), ("f", "inf"), ("f", "1e999")]:
        assert checks.reject(good | {field: value}) == Rejection("wrong_type", field, str(value)), field
    assert checks.reject(good | {"f": 1.5}) == Rejection("failed_check", "f", "1.5")
