"""The record parser: rows of good and unusual records, rejections of bad ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.schema.checks import RecordChecks
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import REASONS, VALUE_CHARACTERS, Rejection
from jobs.schema.table import TableContract
from producer.sample import BAD_KINDS, write_sample
from tests.helpers.samples import GOOD, LOWER, MEAN, TRAVEL_TIMES, UPPER, as_data, bytes_of, contract_with, good

PARSER = RecordParser(TRAVEL_TIMES)
KPL = (
    "several records in one, written by the Kinesis Producer Library: set source.deaggregate: true to split it. "
    "If that is set, the aggregate is damaged"
)


def row_of(record: bytes, contract: TableContract | None = None) -> dict[str, Any]:
    """The row of a good record."""
    parsed = (RecordParser(contract) if contract else PARSER).parse(as_data([record]))
    assert parsed.rejections == {}
    row: dict[str, Any] = parsed.columns.to_pylist()[0]
    return row


def one_column(kind: str, **keys: Any) -> TableContract:
    """A contract with a column `x` of one type."""
    return TableContract.model_validate(
        {
            "version": 1,
            "name": "one",
            "partition_by": ["folder"],
            "stream_partition_key": ["folder"],
            "columns": [
                {"source": "folder", "column": "folder", "type": "string"},
                {"source": "x", "column": "x", "type": kind, **keys},
            ],
        }
    )


LONGS = RecordParser(one_column("long"))


def x_of(kind: str, text: str) -> Any:
    """The value of a field of `kind` with the JSON `text`, or the reason of its rejection."""
    parsed = RecordParser(one_column(kind)).parse(as_data([b'{"x": %s}' % text.encode()]))
    return parsed.rejections[0].reason if parsed.rejections else parsed.columns["x"][0].as_py()


def test_a_record_becomes_a_typed_row() -> None:
    assert row_of(good()) == {
        "city": "Paris",
        "origin_movement_id": "9",
        "origin_display_name": "Quai des Orfèvres",
        "origin_geometry": None,
        "destination_movement_id": "1",
        "destination_display_name": "",
        "destination_geometry": None,
        "date_range": "09/03/2016 - 10/01/2016, Every day, Daily Average",
        "start_date": date(2016, 9, 3),
        "end_date": date(2016, 10, 1),
        "day_filter": "Every day",
        "time_filter": "Daily Average",
        "mean_travel_time_seconds": 446,
        "lower_bound_travel_time_seconds": 229,
        "upper_bound_travel_time_seconds": 866,
        "rescued_data": None,
    }


def test_no_records_are_no_rows() -> None:
    parsed = PARSER.parse(as_data([]))
    assert (parsed.columns.num_rows, parsed.rejections, parsed.rescued) == (0, {}, 0)
    assert parsed.columns.schema == PARSER.schema


@pytest.mark.parametrize(
    ("record", "reason", "field", "value"),
    [
        (b"x" * 10485762, "too_large", None, "10485762 bytes; at most 10485760 are allowed"),
        (b"\xf3\x89\x9a\xc2\x0a", "kpl_aggregate", None, KPL),
        (b"\xff{}", "not_utf8", None, None),
        (b'{"City": "\xed\xa0\x80"}', "not_utf8", None, None),
        (b"", "not_json", None, None),
        (b"{", "not_json", None, None),
        (b"\xef\xbb\xbf" + good(), "not_json", None, None),
        (good() + b" x", "not_json", None, None),
        (good() + good(), "not_json", None, None),
        (good()[:-1] + b', "x": NaN}', "not_json", None, None),
        (good()[:-1] + b', "x": Infinity}', "not_json", None, None),
        (good()[:-1] + b',}', "not_json", None, None),
        (good()[:-1] + b', "x": "\\ud800"}', "not_json", None, None),
        (good()[:-1] + b', "x": ' + b"9" * 5000 + b"}", "not_json", None, None),
        (b"[" * 100_000, "not_json", None, None),
        (b"[" * 100_000 + b"]" * 100_000, "not_json", None, None),
        (b'{"City":' * 100_000, "not_json", None, None),
        (good()[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json", None, None),
        (b"[]", "not_an_object", None, None),
        (b"[" + good() + b"]", "not_an_object", None, None),
        (b"null", "not_an_object", None, None),
        (b'"text"', "not_an_object", None, None),
        (b"{}", "missing_field", "Origin Movement ID", None),
        (good(**{MEAN: None}), "missing_field", MEAN, None),
        (good(**{MEAN: ""}), "missing_field", MEAN, None),
        (good(**{"Origin Movement ID": ""}), "missing_field", "Origin Movement ID", None),
        (good(**{MEAN: "n/a"}), "wrong_type", MEAN, "n/a"),
        (good(**{MEAN: 446.5}), "wrong_type", MEAN, "446.5"),
        (good(**{MEAN: "446.5"}), "wrong_type", MEAN, "446.5"),
        (good(**{MEAN: True}), "wrong_type", MEAN, "true"),
        (good(**{MEAN: [446]}), "wrong_type", MEAN, "[446]"),
        (good(**{MEAN: {"a": 1}}), "wrong_type", MEAN, '{"a":1}'),
        (good(**{MEAN: "0x10"}), "wrong_type", MEAN, "0x10"),
        (good(**{MEAN: "٤٤٦"}), "wrong_type", MEAN, "٤٤٦"),
        (good(**{MEAN: 2**31}), "wrong_type", MEAN, "2147483648"),
        (good(**{MEAN: -(2**31) - 1}), "wrong_type", MEAN, "-2147483649"),
        (good(**{MEAN: 10**4000}), "wrong_type", MEAN, "1" + "0" * 199),
        (good(**{MEAN: "9" * 5000}), "wrong_type", MEAN, "9" * 200),
        (good(**{LOWER: " "}), "wrong_type", LOWER, " "),
        (good(**{"Date Range": "2016-09-03"}), "bad_date_range", "Date Range", "2016-09-03"),
        (good(**{"Date Range": 5}), "bad_date_range", "Date Range", "5"),
        (
            good(**{"Date Range": "02/30/2016 - 12/31/2016, Every day, Daily Average"}),
            "bad_date_range", "Date Range", "02/30/2016 - 12/31/2016, Every day, Daily Average",
        ),
        (
            good(**{"Date Range": GOOD["Date Range"] + "\n"}),
            "bad_date_range", "Date Range", "09/03/2016 - 10/01/2016, Every day, Daily Average\n",
        ),
        (good(**{MEAN: -1}), "failed_check", MEAN, "-1"),
        (good(**{LOWER: "-1"}), "failed_check", LOWER, "-1"),
        (good(**{LOWER: 447}), "failed_check", "bounds_in_order", "447, 446, 866"),
        (good(**{UPPER: 445}), "failed_check", "bounds_in_order", "229, 446, 445"),
        (
            good(**{"Date Range": "10/01/2016 - 09/03/2016, Every day, Daily Average"}),
            "failed_check", "period_in_order", "2016-10-01, 2016-09-03",
        ),
        (good(City="x" * 251), "bad_partition_value", "City", "x" * 200),
        (good(City="a\0b"), "bad_partition_value", "City", "a\0b"),
        (good(City="\u202emoc"), "bad_partition_value", "City", "\u202emoc"),
        (good(City="a\u2028b"), "bad_partition_value", "City", "a\u2028b"),
        (good(City="__HIVE_DEFAULT_PARTITION__"), "bad_partition_value", "City", "__HIVE_DEFAULT_PARTITION__"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_a_bad_record_is_rejected_with_its_reason(
    record: bytes, reason: str, field: str | None, value: str | None
) -> None:
    assert PARSER.parse(as_data([good(), record, good()])).rejections == {1: Rejection(reason, field, value)}


def test_every_reason_code_is_tested() -> None:
    found = {
        PARSER.reject(record).reason  # type: ignore[union-attr]
        for record in (
            b"x" * (TRAVEL_TIMES.max_record_bytes + 1), b"\xf3\x89\x9a\xc2", b"\xff", b"{", b"[]", b"{}",
            good(**{MEAN: "x"}), good(**{MEAN: -1}), good(City="\0"),
        )
    }  # fmt: skip
    rules: list[dict[str, Any]] = [
        {"parse": {"pattern": "a", "into": []}}, {"allowed": ["a"]}, {"max_length": 1}, {"pattern": "a"}
    ]  # fmt: skip
    rejected = [RecordParser(one_column("string", **rule)).reject(b'{"x": "bb"}') for rule in rules]
    rejected.append(RecordParser(contract_with(encoding="gzip")).reject(b"\x1f\x8b"))
    assert found | {each.reason for each in rejected if each is not None} == set(REASONS)


@pytest.mark.parametrize("first", range(5))
def test_a_record_with_many_faults_has_the_first_reason_in_order(first: int) -> None:
    faults: list[tuple[str, dict[str, Any]]] = [
        ("missing_field", {"Destination Movement ID": None}),
        ("wrong_type", {UPPER: "x"}),
        ("bad_date_range", {"Date Range": "?"}),
        ("failed_check", {MEAN: -5, LOWER: -7}),
        ("bad_partition_value", {"City": "\0"}),
    ]
    record: dict[str, Any] = dict(GOOD)
    for _, changes in faults[first:]:
        record |= changes
    found = PARSER.reject(bytes_of(record))
    assert found is not None
    assert found.reason == faults[first][0]


def test_a_rejected_value_is_cut_but_its_record_is_not() -> None:
    found = PARSER.reject(good(**{MEAN: "x" * 10_000}))
    assert found is not None
    assert found.value == "x" * VALUE_CHARACTERS


def test_the_last_of_duplicate_fields_wins() -> None:
    twice = good()[:-1] + b', "%s": 500}' % MEAN.encode()
    assert row_of(twice)["mean_travel_time_seconds"] == 500
    twice = good()[:-1] + b', "x": 1, "x": 2, "%s": 501}' % MEAN.encode()
    row = row_of(twice)
    assert (row["mean_travel_time_seconds"], row["rescued_data"]) == (501, '{"x":2}')


def test_null_absent_and_empty_values_follow_the_contract() -> None:
    without = {name: value for name, value in GOOD.items() if name not in ("City", "Origin Display Name", LOWER)}
    for city in (without, without | {"City": None}, without | {"City": ""}):
        row = row_of(bytes_of(city))
        assert (row["city"], row["origin_display_name"], row["lower_bound_travel_time_seconds"]) == (
            "unknown",
            None,
            None,
        )
    row = row_of(good(**{"Origin Display Name": "", LOWER: ""}))
    assert (row["origin_display_name"], row["lower_bound_travel_time_seconds"]) == ("", None)


@pytest.mark.parametrize("written", [446, "446", " 446 ", "+446", "0446", "446\n", 446.0, "446.0", "446.00", "4.46e2"])
def test_a_numeric_text_is_a_number(written: Any) -> None:
    assert row_of(good(**{MEAN: written}))["mean_travel_time_seconds"] == 446


@pytest.mark.parametrize(
    "as_written", [float, str, lambda seconds: str(float(seconds))], ids=["JSON", "text", "pandas"]
)
def test_records_with_integers_in_every_notation_are_parsed_as_columns(
    as_written: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_by_one(*_: Any) -> Any:
        raise AssertionError("a record was read one by one")

    for name in ("read_object", "read_value"):
        module = "record_parser" if name == "read_object" else "arrow_values"
        monkeypatch.setattr(f"jobs.schema.{module}.{name}", one_by_one)
    times = [{LOWER: as_written(229), MEAN: as_written(446 + at), UPPER: as_written(866)} for at in range(100)]
    blank = times[0] | {LOWER: None if as_written is float else ""}
    parsed = PARSER.parse(as_data([good(**fields) for fields in [*times, blank]]))
    assert parsed.rejections == {}
    assert parsed.columns["mean_travel_time_seconds"].to_pylist() == [*range(446, 546), 446]
    assert parsed.columns["lower_bound_travel_time_seconds"].to_pylist() == [229] * 100 + [None]


numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**63, 2**31 - 1, -(2**31), 0]),
)


@given(number=numbers, zeros=st.integers(0, 5), shift=st.integers(0, 5), quoted=st.booleans(), unknown=st.booleans())
def test_a_decimal_is_an_integer_exactly_if_its_value_is_one(
    number: int, zeros: int, shift: int, quoted: bool, unknown: bool
) -> None:
    """The number as 123.000, as 12300e-2, and as 1.23e2 times ten to some power."""
    sign, digits = "-" if number < 0 else "", str(abs(number)).zfill(shift + 1)
    for text in (
        f"{number}.{'0' * (zeros + 1)}",
        f"{number}{'0' * zeros}e-{zeros}",
        f"{sign}{digits[: len(digits) - shift]}.{digits[len(digits) - shift :]}0E+{shift}",
    ):
        is_json = text.lstrip("-")[0] != "0" or text.lstrip("-")[1] in ".eE"
        value, more = json.dumps(text) if quoted or not is_json else text, ', "y": 1' if unknown else ""
        record = f'{{"x": {value}{more}}}'.encode()
        parsed = LONGS.parse(as_data([record, b'{"x": 7}']))
        assert parsed.rejections.get(0) == RecordChecks(LONGS.contract).reject_bytes(record)
        if -(2**63) <= number < 2**63:
            assert parsed.columns["x"].to_pylist() == [number, 7], text
        else:
            assert parsed.rejections[0].reason == "wrong_type"


@given(number=st.integers(-(2**62), 2**62), fraction=st.from_regex(r"\A0{0,12}[1-9][0-9]{0,3}\Z"), quoted=st.booleans())
def test_a_number_with_a_fraction_is_never_an_integer(number: int, fraction: str, quoted: bool) -> None:
    text = f"{number}.{fraction}"
    record = f'{{"x": {json.dumps(text) if quoted else text}}}'.encode()
    assert (
        LONGS.reject(record) == RecordChecks(LONGS.contract).reject_bytes(record) == Rejection("wrong_type", "x", text)
    )


def test_numbers_and_numeric_texts_may_be_mixed_in_one_batch() -> None:
    records = [good(**{MEAN: value}) for value in (446, "447", " 448", None, "x", 2**40)]
    parsed = PARSER.parse(as_data(records))
    assert parsed.columns["mean_travel_time_seconds"].to_pylist() == [446, 447, 448, None, None, None]
    assert {at: found.reason for at, found in parsed.rejections.items()} == {
        3: "missing_field",
        4: "wrong_type",
        5: "wrong_type",
    }


def test_a_geometry_may_be_json_as_text_or_as_an_array() -> None:
    ring = [[-71.1, 42.25], [-71.0, 42.30]]
    text = "[[-71.1,42.25],[-71.0,42.30]]"
    assert row_of(good(**{"Origin Geometry": text}))["origin_geometry"] == text
    assert json.loads(row_of(good(**{"Origin Geometry": ring}))["origin_geometry"]) == ring
    as_array = good()[:-1] + b', "Origin Geometry": [[-71.10, 42.250]]}'
    assert row_of(as_array)["origin_geometry"] == "[[-71.10,42.250]]", "digits stay as they were written"


@pytest.mark.parametrize("as_text", [True, False])
def test_a_geometry_of_58_kb_is_kept_whole(as_text: bool) -> None:
    ring = [[round(-71 + at / 1e5, 6), 42.5] for at in range(3000)]
    text = json.dumps(ring, separators=(",", ":"))
    assert len(text) > 40_000
    assert row_of(good(**{"Origin Geometry": text if as_text else ring}))["origin_geometry"] == text


def test_fields_that_the_contract_does_not_name_are_kept_with_their_types() -> None:
    extra = {"n": 1, "f": 1.5, "b": True, "z": None, "t": "Ü", "l": [1, {"a": []}], "big": 2**64}
    parsed = PARSER.parse(as_data([good(), good(**extra), good(**extra, **{MEAN: None})]))
    assert json.loads(parsed.columns["rescued_data"][1].as_py()) == extra
    assert parsed.columns["rescued_data"][0].as_py() is None
    assert parsed.rescued == 1, "a rejected record is no row with unknown fields"


def test_a_number_in_an_unknown_field_keeps_its_digits() -> None:
    row = row_of(good()[:-1] + b', "a": 1.50, "b": 1E400, "c": -0.0, "d": 12345678901234567890.123}')
    assert row["rescued_data"] == '{"a":1.50,"b":1E400,"c":-0.0,"d":12345678901234567890.123}'


def test_a_number_in_a_text_field_keeps_its_digits() -> None:
    record = good()[:-1] + b', "Origin Movement ID": 12.10, "Destination Movement ID": 7, "City": false}'
    row = row_of(record)
    assert (row["origin_movement_id"], row["destination_movement_id"], row["city"]) == ("12.10", "7", "false")


@pytest.mark.parametrize("depth", [10, 500, 900, 950, 970, 980, 985, 990, 995, 1000, 1010, 1500])
def test_nesting_is_either_kept_or_rejected_but_never_an_error(depth: int) -> None:
    for field in ("x", "Origin Geometry", MEAN):
        record = good()[:-1] + b', "%s": ' % field.encode() + b"[" * depth + b"]" * depth + b"}"
        parsed = PARSER.parse(as_data([record]))
        if parsed.rejections:
            assert parsed.rejections[0].reason == ("not_json" if depth > 900 or field != MEAN else "wrong_type")
        else:
            column = {"x": "rescued_data", "Origin Geometry": "origin_geometry"}[field]
            assert parsed.columns[column][0].as_py().count("[") == depth


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int", "446.0", 446),
        ("int", "4.46e2", 446),
        ("int", "44600E-2", 446),
        ("int", '"446.0"', 446),
        ("int", '" 4.46E+2 "', 446),
        ("int", "-0.0", 0),
        ("int", "446.5", "wrong_type"),
        ("int", "446.00000000000000001", "wrong_type"),
        ("int", "4.465e2", "wrong_type"),
        ("int", "1e-2", "wrong_type"),
        ("int", "2147483647.0", 2**31 - 1),
        ("int", "2147483648.0", "wrong_type"),
        ("long", "9007199254740993.0", 2**53 + 1),
        ("long", '"9007199254740993.00"', 2**53 + 1),
        ("long", "9223372036854775807.0", 2**63 - 1),
        ("long", "9223372036854775808.0", "wrong_type"),
        ("long", "1e18", 10**18),
        ("long", "1e999", "wrong_type"),
        ("long", "1e999999999999", "wrong_type"),
        ("long", "9223372036854775807", 2**63 - 1),
        ("long", "9223372036854775808", "wrong_type"),
        ("long", '"-9223372036854775808"', -(2**63)),
        ("long", '"9999999999999999999"', "wrong_type"),
        ("double", "1.5", 1.5),
        ("double", "3", 3.0),
        ("double", '"1e3"', 1000.0),
        ("double", '" .5 "', 0.5),
        ("double", "1e999", "wrong_type"),
        ("double", '"1e999"', "wrong_type"),
        ("double", '"NaN"', "wrong_type"),
        ("double", '"Infinity"', "wrong_type"),
        ("double", "9" * 400, "wrong_type"),
        ("double", "9007199254740993", 9007199254740992.0),
        ("double", "true", "wrong_type"),
        ("double", '""', None),
        ("boolean", "true", True),
        ("boolean", '"False"', False),
        ("boolean", "1", "wrong_type"),
        ("boolean", '"yes"', "wrong_type"),
        ("date", '"2016-02-29"', date(2016, 2, 29)),
        ("date", '"2015-02-29"', "wrong_type"),
        ("date", '"2016-W05-1"', "wrong_type"),
        ("date", '"20160229"', "wrong_type"),
        ("date", "20160229", "wrong_type"),
        ("timestamp", '"2016-02-29T01:02:03+01:00"', datetime(2016, 2, 29, 0, 2, 3, tzinfo=UTC)),
        ("timestamp", '"2016-02-29 01:02:03"', datetime(2016, 2, 29, 1, 2, 3, tzinfo=UTC)),
        ("timestamp", '"0001-01-01T00:00:00+14:00"', "wrong_type"),
        ("timestamp", '"9999-12-31T23:59:59-14:00"', "wrong_type"),
        ("timestamp", "1456707723", "wrong_type"),
        ("string", "null", None),
        ("string", "1.0", "1.0"),
        ("string", "[1, 2]", "[1,2]"),
    ],
)
def test_a_value_is_read_as_its_columns_type(kind: str, text: str, expected: Any) -> None:
    found = x_of(kind, text)
    assert found == expected
    assert type(found) is type(expected)


def test_a_null_between_two_ascending_columns_is_skipped() -> None:
    contract = contract_with(columns=[
        column.model_dump() | ({"required": False} if column.source == MEAN else {}) for column in TRAVEL_TIMES.columns
    ])  # fmt: skip
    parser = RecordParser(contract)
    assert parser.reject(good(**{LOWER: 1, MEAN: None, UPPER: 2})) is None
    found = parser.reject(good(**{LOWER: 3, MEAN: None, UPPER: 2}))
    assert found == Rejection("failed_check", "bounds_in_order", "3, 2")


def test_a_group_that_is_not_part_of_the_match_is_null() -> None:
    into = [{"column": "a", "type": "string"}, {"column": "b", "type": "int"}]
    parser = RecordParser(one_column("string", parse={"pattern": r"(\w+)(?:/(\d+))?", "into": into}))
    parsed = parser.parse(as_data([b'{"x": "u/7"}', b'{"x": "v"}', b'{"x": ""}', b"{}", b'{"x": "w/99999999999"}']))
    assert parsed.columns["a"].to_pylist() == ["u", "v", None, None, None]
    assert parsed.columns["b"].to_pylist() == [7, None, None, None, None]
    assert list(parsed.rejections) == [4]


def test_a_part_of_a_text_that_names_a_folder_must_be_usable() -> None:
    contract = contract_with(partition_by=["time_filter"])
    record = good(**{"Date Range": "09/03/2016 - 10/01/2016, Every day, " + "x" * 300})
    found = RecordParser(contract).reject(record)
    assert found is not None
    assert (found.reason, found.field) == ("bad_partition_value", "Date Range")


def test_a_partition_value_is_shorter_if_more_columns_partition() -> None:
    contract = contract_with(partition_by=["city", "start_date", "day_filter", "time_filter"])
    assert RecordParser(contract).reject(good(City="x" * 170)) is None
    found = RecordParser(contract).parse(as_data([good(), good(City="x" * 171)])).rejections
    assert found == {1: Rejection("bad_partition_value", "City", "x" * 171)}
    assert RecordChecks(contract).reject_bytes(good(City="x" * 171)) == found[1]


def test_a_column_may_have_a_python_keyword_as_name() -> None:
    contract = TableContract.model_validate(
        {
            "version": 1,
            "name": "one",
            "partition_by": ["from"],
            "stream_partition_key": ["a"],
            "columns": [{"source": "a", "column": "from", "type": "string"}],
        }
    )
    assert row_of(b'{"a": "x"}', contract)["from"] == "x"


@pytest.mark.parametrize("kind", sorted(BAD_KINDS))
def test_every_bad_row_of_a_sample_is_rejected(kind: str) -> None:
    row: dict[str, Any] = dict(GOOD)
    row |= {name: int(row[name]) for name in (MEAN, LOWER, UPPER)}
    assert PARSER.reject(bytes_of(row)) is None
    assert PARSER.reject(bytes_of(row | BAD_KINDS[kind](row))) is not None


def test_exactly_the_bad_rows_of_a_sample_are_rejected(tmp_path: Path) -> None:
    sample = write_sample(2000, tmp_path, cities=4, seed=7, bad_rate=0.1)
    records = []
    for file in sample.files:
        with file.open(encoding="utf-8", newline="") as source:
            records += [bytes_of(row) for row in csv.DictReader(source)]
    parsed = PARSER.parse(as_data(records))
    assert parsed.columns.num_rows == 2000
    assert len(parsed.rejections) == sample.bad == 200


def test_each_record_of_a_batch_with_many_kinds_of_faults_is_a_row_or_a_rejection() -> None:
    records = [good(), b"", good(City="\0"), b"[]", good(x=1)] * 100
    parsed = PARSER.parse(as_data(records))
    assert sorted(parsed.rejections) == [at for at in range(500) if at % 5 in (1, 2, 3)]
    assert parsed.columns.num_rows == 500
    assert parsed.rescued == 100


def test_records_may_be_a_slice_of_a_larger_array() -> None:
    data = pa.array([b"x", good(), good(**{MEAN: 1, LOWER: 1}), b"y"], pa.binary()).slice(1, 2)
    parsed = PARSER.parse(data)
    assert parsed.rejections == {}
    assert parsed.columns["mean_travel_time_seconds"].to_pylist() == [446, 1]
