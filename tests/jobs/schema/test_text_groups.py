"""Groups of `parse.pattern`: those that Python's `re` finds, in time that no text can stretch."""

from __future__ import annotations

import re
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.schema.columns import SourceColumn
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.schema.text_groups import check_pattern, groups_of
from tests.helpers.examples import examples
from tests.helpers.samples import TRAVEL_TIMES

ATOMS = ["a", "b", ".", r"\d", r"\w", "[ab]", "[^a]", "[]a(]", r"[\]b]", r"\(", r"\b", "^", "é", r"[^\d]", r"\\", "{"]
patterns = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.sampled_from(["({})", "(?:{})", "(?P<x>{})", "{}?", "(?:{})*", "(?:{})+?", "(?:{}){{1,2}}"]).flatmap(
            lambda form: inner.map(form.format)
        ),
    ),
    max_leaves=6,
)
texts = st.lists(st.text("aAb1é(\\{ \n", max_size=5), min_size=1, max_size=6)


@settings(max_examples=examples(500), deadline=None)
@given(patterns, texts)
def test_the_groups_are_those_of_python(pattern: str, values: list[str]) -> None:
    try:
        check_pattern(pattern)
    except ValueError:
        return
    python = [re.fullmatch(pattern, text, re.ASCII) for text in values]
    assert groups_of(pattern, pa.array(values)) == [found.groups() if found else None for found in python]


def test_an_empty_group_is_not_an_absent_one_and_null_is_no_match() -> None:
    found = groups_of(r"(a)?(b*)-(\d*)", pa.array(["a-1", "bé-1", "-", None]))
    assert found == [("a", "", "1"), None, (None, "", ""), None]


def test_the_shipped_pattern_splits_a_date_range() -> None:
    pattern = next(column.parse.pattern for column in TRAVEL_TIMES.columns if column.parse)
    assert groups_of(pattern, pa.array(["01/01/2016 - 03/31/2016, Every day, Daily Average"])) == [
        ("01/01/2016", "03/31/2016", "Every day", "Daily Average")
    ]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (r"(a)(?=b)", "RE2 has no look-around and no back-references"),
        (r"(a)\1", "RE2 has no look-around and no back-references"),
        (r"(a)\Z", "Invalid regular expression"),
        (r"(a{,3})", "write {0,n}"),
        (r"([[:alpha:]])", "not a regular expression: Possible nested set"),
        (r"(?:x(a*))+", "a group that is repeated"),
        (r"(a|b){2,}", "a group that is repeated"),
        (r"(a", "not a regular expression"),
    ],
)
def test_a_pattern_that_python_read_otherwise_is_refused(pattern: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        check_pattern(pattern)


def one_column(**column: object) -> RecordParser:
    column = {"source": "x", "column": "x", "type": "string"} | column
    key = {"partition_by": ["x"], "stream_partition_key": ["x"]}
    content = {"version": TRAVEL_TIMES.version, "name": "t", "columns": [SourceColumn.model_validate(column)], **key}
    return RecordParser(TableContract.model_validate(content))


PARSE = {"pattern": "((?:a+)+)b", "into": [{"column": "y", "type": "string"}]}


def test_no_value_holds_the_job() -> None:
    parser = one_column(parse=PARSE)
    before = time.process_time()
    why = parser.reject(b'{"x": "' + b"a" * 26 + b'"}')
    # Python's re takes more than 2 s for it, and doubles with each further letter.
    assert time.process_time() - before < 0.5
    assert why == Rejection("unparsable", "x", "a" * 26)


def test_a_text_beyond_max_length_is_not_split() -> None:
    parser = one_column(parse=PARSE, max_length=3)
    assert parser.reject(b'{"x": "aab"}') is None
    assert parser.reject(b'{"x": "aaaa"}') == Rejection("too_long", "x", "aaaa")
    assert parser.reject(b'{"x": "aaab"}') == Rejection("too_long", "x", "aaab")
    assert parser.reject(b'{"x": "aaa"}') == Rejection("unparsable", "x", "aaa")
