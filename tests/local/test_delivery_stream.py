"""The local Firehose delivers every record once, to files with Firehose's names."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from jobs.common.errors import ConfigurationError
from jobs.settings.settings import Settings
from local import resources, server
from local.delivery_stream import DeliveredFile, DeliveryOptions, DeliveryStream
from tests.helpers.emulators import Emulator, Stream
from tests.helpers.kinesis_mock import running_kinesis_mock

pytestmark = pytest.mark.aws
Named = Callable[..., Settings]


@pytest.fixture
def ready(aws_here: server.RunningServer, named: Named) -> Settings:
    """Settings whose bucket and stream, with two shards, exist."""
    settings = named("stream.shards=2")
    resources.ensure(settings)
    return settings


def put(settings: Settings, start: int, count: int) -> None:
    records = [
        {"Data": json.dumps({"n": number, "name": "Zürich"}, ensure_ascii=False).encode(), "PartitionKey": str(number)}
        for number in range(start, start + count)
    ]
    answer = boto3.client("kinesis").put_records(StreamName=settings.stream.name, Records=records)
    assert answer["FailedRecordCount"] == 0


def body_of(file: DeliveredFile) -> bytes:
    body: bytes = boto3.client("s3").get_object(Bucket=file.bucket, Key=file.key)["Body"].read()
    assert len(body) == file.size
    return gzip.decompress(body) if file.key.endswith(".gz") else body


def numbers_in(files: list[DeliveredFile]) -> list[int]:
    return sorted(int(found) for file in files for found in re.findall(rb'"n": (\d+)', body_of(file)))


def test_drain_delivers_every_record_once_and_a_second_drain_the_new_ones(ready: Settings) -> None:
    stream = DeliveryStream(ready.stream.name, ready.lake)
    put(ready, 0, 400)
    first = stream.drain()
    assert numbers_in(first) == list(range(400))
    assert sum(file.records for file in first) == 400
    assert stream.drain() == []
    put(ready, 400, 10)
    assert numbers_in(stream.drain()) == list(range(400, 410))


def test_file_and_prefix_are_named_as_firehose_names_them(ready: Settings) -> None:
    put(ready, 0, 1)
    (file,) = DeliveryStream(ready.stream.name, ready.lake, DeliveryOptions(name="to-lake", version=3)).drain()
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    pattern = (
        r"lake/delivery/ingest_date=(\d{4}-\d\d-\d\d)/hour=(\d\d)/"
        rf"to-lake-3-(\d{{4}}-\d\d-\d\d)-(\d\d)-\d\d-\d\d-{uuid}\.gz"
    )
    found = re.fullmatch(pattern, file.key)
    assert found is not None, file.key
    assert found.group(1, 2) == found.group(3, 4)


@pytest.mark.parametrize("compression", ["GZIP", "UNCOMPRESSED"])
@pytest.mark.parametrize("delimiter", [True, False])
def test_records_are_one_a_line_or_one_after_the_other(ready: Settings, compression: Any, delimiter: bool) -> None:
    put(ready, 0, 3)
    options = DeliveryOptions(compression=compression, delimiter=delimiter)
    (file,) = DeliveryStream(ready.stream.name, ready.lake, options).drain()
    assert file.key.endswith(".gz") == (compression == "GZIP")
    body = body_of(file).decode()
    assert body.count("\n") == (3 if delimiter else 0)
    assert body.count('"name": "Zürich"}') == 3


def test_a_full_buffer_becomes_a_file_of_whole_records(ready: Settings) -> None:
    put(ready, 0, 100)
    files = DeliveryStream(ready.stream.name, ready.lake, DeliveryOptions(buffer_bytes=1_000)).drain()
    assert len(files) > 2
    for file in files:
        assert len(body_of(file)) <= 1_000
        assert body_of(file).endswith(b"}")
    assert numbers_in(files) == list(range(100))


def test_a_record_bigger_than_the_buffer_is_a_file_of_its_own(ready: Settings) -> None:
    big = b'{"n": 7, "pad": "' + b"x" * 5_000 + b'"}'
    boto3.client("kinesis").put_record(StreamName=ready.stream.name, Data=big, PartitionKey="7")
    (file,) = DeliveryStream(ready.stream.name, ready.lake, DeliveryOptions(buffer_bytes=1_000)).drain()
    assert body_of(file) == big


def test_poll_waits_for_size_or_age(ready: Settings) -> None:
    now = [2_000_000_000.0]  # after every arrival
    options = DeliveryOptions(buffer_seconds=60)
    stream = DeliveryStream(ready.stream.name, ready.lake, options, clock=lambda: now[0])
    put(ready, 0, 5)
    assert stream.poll() == []
    now[0] += 59
    put(ready, 5, 5)
    assert stream.poll() == []
    now[0] += 1
    assert numbers_in(stream.poll()) == list(range(10))


def test_drain_ignores_records_that_arrive_after_the_call(ready: Settings) -> None:
    put(ready, 0, 5)
    before = [1_000_000_000.0]  # a clock from before every arrival
    stream = DeliveryStream(ready.stream.name, ready.lake, clock=lambda: before[0])
    assert stream.drain() == []
    before[0] = 3_000_000_000.0
    assert numbers_in(stream.drain()) == list(range(5))


def test_another_process_resumes_after_the_last_delivered_record(ready: Settings) -> None:
    put(ready, 0, 20)
    first = DeliveryStream(ready.stream.name, ready.lake).drain()
    put(ready, 20, 20)
    second = DeliveryStream(ready.stream.name, ready.lake).drain()
    assert numbers_in(first) == list(range(20))
    assert numbers_in(second) == list(range(20, 40))


def test_the_next_process_reads_undelivered_records_again(ready: Settings) -> None:
    put(ready, 0, 20)
    assert DeliveryStream(ready.stream.name, ready.lake).poll() == []
    assert numbers_in(DeliveryStream(ready.stream.name, ready.lake).drain()) == list(range(20))


def test_a_stream_that_was_created_again_is_read_from_its_start(ready: Settings) -> None:
    put(ready, 0, 20)
    DeliveryStream(ready.stream.name, ready.lake).drain()
    boto3.client("kinesis").delete_stream(StreamName=ready.stream.name)
    resources.ensure(ready)
    put(ready, 0, 5)
    assert numbers_in(DeliveryStream(ready.stream.name, ready.lake).drain()) == list(range(5))


def test_after_a_reshard_the_tail_of_the_closed_shards_and_their_children_are_delivered(ready: Settings) -> None:
    kinesis = boto3.client("kinesis")
    stream = DeliveryStream(ready.stream.name, ready.lake)
    put(ready, 0, 20)
    files = stream.drain()
    put(ready, 20, 20)
    kinesis.update_shard_count(StreamName=ready.stream.name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    put(ready, 40, 20)
    files += stream.drain()
    assert numbers_in(files) == list(range(60))
    assert stream.drain() == []


def test_the_tail_of_a_closed_shard_is_delivered_whatever_end_the_server_lists(
    ready: Settings, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    with running_kinesis_mock() as url:
        record_property("server", "kinesis-mock")
        monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", url)
        resources.ensure(ready)
        delivery = DeliveryStream(ready.stream.name, ready.lake)
        put(ready, 0, 20)
        files = delivery.drain()
        put(ready, 20, 20)
        stream = Stream(boto3.client("kinesis"), ready.stream.name, Emulator("kinesis-mock", url))
        stream.split("shardId-000000000000")
        put(ready, 40, 20)
        files += delivery.drain()
        assert numbers_in(files) == list(range(60))
        assert delivery.drain() == []


def test_a_lake_that_is_a_folder_is_refused(aws_here: server.RunningServer, named: Named) -> None:
    with pytest.raises(ConfigurationError, match="lake"):
        DeliveryStream("stream", "/some/folder")
