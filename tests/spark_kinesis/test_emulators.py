"""Reshards, streams that are created again, times and positions: planner and readers on emulators, without Spark."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spark_kinesis.boto_client import BotoStreamClient
from spark_kinesis.data_source import KinesisStreamReader
from spark_kinesis.errors import DataLossError, FutureTimeError
from spark_kinesis.offset import at_timestamp
from spark_kinesis.options import parse_options
from tests.helpers.emulators import Stream
from tests.helpers.stream_query import names

pytestmark = pytest.mark.aws
NewStream = Callable[..., Stream]


class Query:
    """One query whose checkpoint is `offsets`: the end of each batch. `values`: what its batches held."""

    def __init__(self, stream: Stream, **options: str) -> None:
        self.options = {
            "streamName": stream.name,
            "endpointUrl": stream.emulator.endpoint,
            "region": "us-east-1",
            "startingPosition": "TRIM_HORIZON",
            "discoverySeconds": "0",
            "planningCallsPerSecond": "1000",
            "retrySeconds": "10",
            **options,
        }
        self.offsets: list[dict[str, Any]] = []
        self.values: list[str] = []

    def drain(self) -> None:
        """Reads every batch, in a new process's reader."""
        reader = KinesisStreamReader(parse_options(self.options))
        if self.offsets:
            reader.partitions(self.offsets[-1], self.offsets[-1])
        try:
            while True:
                start = self.offsets[-1] if self.offsets else reader.initialOffset()
                end = reader.latestOffset()
                if end == start:
                    return
                for task in reader.partitions(start, end):
                    for batch in reader.read(task):
                        self.values += [bytes(value).decode() for value in batch["data"].to_pylist()]
                self.offsets.append(end)
        finally:
            reader.stop()


def test_a_closed_shard_of_several_pages_is_read_to_its_end(new_stream: NewStream) -> None:
    stream = new_stream(shards=1)
    stream.put(names("a", 130))
    stream.split("shardId-000000000000")
    stream.put(names("b", 20))
    query = Query(stream, recordsPerCall="50")
    query.drain()
    assert sorted(query.values) == names("a", 130) + names("b", 20)


@pytest.mark.parametrize("options", [{}, {"exactCaps": "true"}, {"maxSecondsPerBatch": "1"}, {"bytesPerTask": "0"}])
def test_capped_batches_over_a_split_and_a_merge_hold_each_record_once(
    new_stream: NewStream, options: dict[str, str]
) -> None:
    stream = new_stream(shards=2)
    query = Query(stream, recordsPerCall="40", maxRecordsPerBatch="60", **options)
    wanted = names("a", 150)
    stream.put(wanted)
    query.drain()
    stream.split("shardId-000000000000")
    wanted += names("b", 150)
    stream.put(names("b", 150))
    stream.merge("shardId-000000000002", "shardId-000000000003")
    wanted += names("c", 150)
    stream.put(names("c", 150))
    query.drain()
    assert sorted(query.values) == wanted
    assert len(query.offsets) >= 4


def created_again(stream: Stream) -> None:
    """Deletes the stream and creates it at once, with one shard."""
    stream.delete()
    for _ in range(500):
        try:
            stream.create(1)
            return
        except stream.client.exceptions.ResourceInUseException:
            time.sleep(0.02)
    raise AssertionError("the stream is not deleted")


@pytest.mark.parametrize("resharded", [False, True])
def test_a_stream_that_is_created_again_at_once_is_not_taken_for_the_old_one(
    new_stream: NewStream, resharded: bool
) -> None:
    stream = new_stream(shards=1)
    stream.put(names("old", 20))
    query = Query(stream)
    query.drain()
    if resharded:
        stream.split("shardId-000000000000")
        query.drain()
    time.sleep(1.1)  # moto's creation times are whole seconds
    created_again(stream)
    stream.put(names("new", 10))
    with pytest.raises(DataLossError, match=f"stream {stream.name} was deleted and created again"):
        query.drain()
    query.options["failOnDataLoss"] = "false"
    query.drain()
    assert sorted(query.values) == names("new", 10) + names("old", 20)
    assert query.offsets[-1]["losses"] == 1


def test_a_start_time_in_the_future_is_waited_for(new_stream: NewStream) -> None:
    stream = new_stream(shards=1)
    moment = datetime.now(UTC) + timedelta(seconds=2)
    query = Query(stream, startingPosition=moment.isoformat())
    stream.put(names("before", 5))
    query.drain()
    assert query.values == []
    time.sleep(2.2)
    stream.put(names("after", 5))
    query.drain()
    assert query.values == names("after", 5)


@pytest.mark.parametrize("emulator", ["kinesis_mock"], indirect=True)
def test_a_time_that_the_server_has_not_reached_is_told_apart(new_stream: NewStream) -> None:
    stream = new_stream(shards=1)
    stream.put(names("a", 5))
    client = BotoStreamClient(parse_options(Query(stream).options))
    with pytest.raises(FutureTimeError, match="the server's clock has not reached this time"):
        client.iterator("shardId-000000000000", at_timestamp(datetime.now(UTC) + timedelta(seconds=3)))


@pytest.mark.parametrize("emulator", ["kinesis_mock"], indirect=True)
def test_a_sequence_number_that_the_server_does_not_know_is_a_loss(new_stream: NewStream) -> None:
    stream = new_stream(shards=1)
    answers = stream.put(names("a", 5))
    unknown = str(int(answers[0]["SequenceNumber"]) + 1)
    query = Query(stream, startingPosition=json.dumps({"shardId-000000000000": unknown}))
    with pytest.raises(DataLossError, match=f"the position {unknown} is not in the stream any more"):
        query.drain()
    query.options["failOnDataLoss"] = "false"
    query.drain()
    assert query.values == names("a", 5)[1:]
    assert query.offsets[-1]["losses"] == 1
