"""Options are parsed once, and a wrong one says what is allowed."""

from __future__ import annotations

import json

import pytest

from spark_kinesis.errors import SourceConfigurationError
from spark_kinesis.offset import TRIM_HORIZON, after, parse_offset
from spark_kinesis.options import parse_options

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/uber-movement-stream"


def test_options_are_found_in_any_case() -> None:
    options = parse_options({"STREAMNAME": "s", "startingposition": "trim_horizon", "FailOnDataLoss": "FALSE"})
    assert (options.stream, options.initial, options.fail_on_data_loss) == ("s", "TRIM_HORIZON", False)


def test_an_arn_names_stream_and_region() -> None:
    options = parse_options({"streamName": ARN})
    assert (options.stream, options.stream_arn, options.region) == ("uber-movement-stream", ARN, "eu-west-1")


def test_a_start_time_is_kept_in_utc() -> None:
    options = parse_options({"streamName": "s", "startingPosition": "2026-11-23T01:00:00.5+01:00"})
    assert options.initial == "AT_TIMESTAMP:2026-11-23T00:00:00.500000Z"


def test_explicit_positions_are_taken_shard_by_shard() -> None:
    options = parse_options(
        {"streamName": "s", "startingPosition": '{"shardId-0": "4958", "shardId-1": "TRIM_HORIZON"}'}
    )
    assert options.starting_shards == {"shardId-0": after("4958"), "shardId-1": TRIM_HORIZON}
    assert options.initial_offset.to_json()["initial"] == "SHARDS"


def test_the_endpoint_and_region_of_the_driver_travel_with_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:2")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    options = parse_options({"streamName": "s"})
    assert (options.endpoint_url, options.region) == ("http://127.0.0.1:2", "eu-north-1")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert parse_options({"streamName": "s"}).endpoint_url is None


def test_the_endpoint_of_sts_travels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert parse_options({"streamName": "s"}).sts_endpoint_url == "http://127.0.0.1:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:3")
    assert parse_options({"streamName": "s"}).sts_endpoint_url == "http://127.0.0.1:3"


def test_an_ending_is_an_offset_or_the_tip() -> None:
    given = '{"version": 1, "stream": "s", "shards": {"shardId-0": "4958"}}'
    assert parse_options({"streamName": "s"}).ending is None
    options = parse_options({"streamName": "s", "endingPosition": given})
    assert (options.ending, options.ends_at_tip) == (parse_offset(json.loads(given), "s"), False)
    options = parse_options({"streamName": "s", "endingPosition": "latest"})
    assert (options.ending, options.ends_at_tip) == (None, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "'streamName' is missing"),
        ({"streamName": "a b"}, "'a b'"),
        ({"streamName": "s", "startingPositon": "LATEST"}, "did you mean 'startingPosition'?"),
        ({"streamName": "s", "readAhead": "true"}, "option 'readAhead' was removed"),
        ({"streamName": "s", "startingPosition": "EARLIEST"}, "allowed: TRIM_HORIZON, LATEST"),
        ({"streamName": "s", "startingPosition": "2026-11-23T00:00:00"}, "no offset from UTC"),
        ({"streamName": "s", "startingPosition": "{"}, "not readable as JSON"),
        ({"streamName": "s", "startingPosition": "{}"}, "expected {shard: position}"),
        ({"streamName": "s", "startingPosition": '{"a": 1}'}, "expected {shard: position}"),
        ({"streamName": "s", "failOnDataLoss": "yes"}, "allowed: true, false"),
        ({"streamName": "s", "maxRecordsPerBatch": "-1"}, "allowed: a whole number from 0"),
        ({"streamName": "s", "maxRecordsPerBatch": "1.5"}, "allowed: a whole number"),
        ({"streamName": "s", "planningCallsPerSecond": "0"}, "allowed: a number from 0.1"),
        (
            {"streamName": "s", "endingPosition": "EARLIEST"},
            "(LATEST, or an offset): an offset is not readable as JSON",
        ),
        ({"streamName": "s", "endingPosition": '{"version": 1, "stream": "t", "shards": {}}'}, "stream 't'"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(given: dict[str, str], said: str) -> None:
    with pytest.raises(SourceConfigurationError) as error:
        parse_options(given)
    assert said in str(error.value)
