"""Positions and offsets: text in Spark's checkpoint, so their form is a contract with older and newer releases."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kinesis.errors import SourceConfigurationError
from spark_kinesis.offset import (
    SHARD_END,
    TRIM_HORIZON,
    Offset,
    Position,
    after,
    at_timestamp,
    parse_offset,
    parse_position,
)

GOLDEN = Path(__file__).with_name("golden")
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
NUMBERS = st.integers(1, 10**56).map(str)
POSITIONS = st.one_of(
    st.just(TRIM_HORIZON),
    st.just(SHARD_END),
    MOMENTS.map(at_timestamp),
    st.builds(after, NUMBERS, st.none() | st.integers(0, 10_000)),
)
SHARD_IDS = st.integers(0, 10_000).map(lambda number: f"shardId-{number:012}")
# An offset keeps milliseconds.
MILLIS = MOMENTS.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
OFFSETS = st.builds(
    Offset,
    stream=st.just("s"),
    shards=st.dictionaries(SHARD_IDS, POSITIONS, max_size=6),
    planned_at=st.none() | MILLIS,
    behind=st.dictionaries(SHARD_IDS, MILLIS, max_size=3),
    initial=st.none(),
    bytes=st.dictionaries(SHARD_IDS, st.integers(0, 2**40), max_size=3),
    losses=st.integers(0, 9),
)


@given(POSITIONS)
def test_a_position_survives_being_text(position: Position) -> None:
    assert parse_position(str(position)) == position


@given(OFFSETS)
def test_an_offset_survives_being_json(offset: Offset) -> None:
    assert parse_offset(json.loads(json.dumps(offset.to_json())), "s") == offset


@given(OFFSETS)
def test_an_offset_reads_back_to_the_same_text(offset: Offset) -> None:
    # Spark compares offsets as text: another order of keys would look like new data.
    assert json.dumps(parse_offset(json.dumps(offset.to_json()), "s").to_json()) == json.dumps(offset.to_json())


@given(NUMBERS, NUMBERS)
def test_sequence_numbers_compare_as_integers(left: str, right: str) -> None:
    assert (after(left) < after(right)) == (int(left) < int(right))


def test_a_shard_passes_through_its_positions_in_order() -> None:
    moment = at_timestamp(datetime(2026, 11, 23, tzinfo=UTC))
    passed = [TRIM_HORIZON, moment, after("9"), after("10", 0), after("10", 3), after("10"), after("11"), SHARD_END]
    assert sorted(passed, reverse=True) == passed[::-1]


@pytest.mark.parametrize("name", ["version-1-initial", "version-1-running", "version-1-sized"])
def test_offsets_of_released_versions_can_be_read(name: str) -> None:
    text = (GOLDEN / f"offset-{name}.json").read_text().strip()
    assert json.dumps(parse_offset(text, "uber-movement-stream").to_json()) == text


def test_the_golden_offset_means_what_it_says() -> None:
    offset = parse_offset((GOLDEN / "offset-version-1-running.json").read_text(), "uber-movement-stream")
    assert offset.shards["shardId-000000000000"] == SHARD_END
    assert offset.shards["shardId-000000000001"].number == 49680503127557966474791935990338286146870664286848417810
    assert offset.shards["shardId-000000000003"] == TRIM_HORIZON
    assert offset.complete_until("shardId-000000000001") == datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
    assert offset.complete_until("shardId-000000000002") == datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    assert offset.losses == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"version": 1, "stream": "other", "shards": {}}, "belongs to stream 'other', the query reads 's'"),
        ({"version": 2, "stream": "s", "shards": {}}, "version 2, this release reads up to 1"),
        ({"version": "1", "stream": "s", "shards": {}}, "version '1'"),
        ({"shardId-0": {"iteratorType": "TRIM_HORIZON"}}, "checkpoint of another source"),
        ({"version": 1, "stream": "s", "shards": {"shardId-0": "yesterday"}}, "'yesterday' is no position"),
        ({"version": 1, "stream": "s", "shards": {}, "colour": 1}, "unknown keys: colour"),
        ("{", "not readable as JSON"),
    ],
)
def test_an_offset_that_cannot_be_used_is_refused_with_the_reason(content: object, said: str) -> None:
    with pytest.raises(SourceConfigurationError, match=r".") as error:
        parse_offset(content, "s")
    assert said in str(error.value)
