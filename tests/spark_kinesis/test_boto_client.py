"""boto3's answers and errors in the source's words: against a scripted HTTP server, so that the real hook runs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from spark_kinesis.boto_client import BotoStreamClient, worker_client
from spark_kinesis.client import RetryingClient
from spark_kinesis.errors import (
    ExpiredIteratorError,
    FutureTimeError,
    PositionGoneError,
    SourceConfigurationError,
    StreamAccessError,
    StreamNotFoundError,
    ThrottledError,
    TransientSourceError,
)
from spark_kinesis.offset import TRIM_HORIZON, after, at_timestamp, parse_time
from spark_kinesis.options import KinesisOptions


class Server:
    """Answers each request with the next of `answers` (status, body) and keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any] | None] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append((self.headers["X-Amz-Target"].split(".")[-1], json.loads(body)))
                answer = server.answers.pop(0)
                if answer is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, content = answer
                payload = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def client(server: Server) -> BotoStreamClient:
    return BotoStreamClient(KinesisOptions(stream="trips", region="us-east-1", endpoint_url=server.endpoint))


def error(code: str, message: str = "no") -> dict[str, str]:
    return {"__type": code, "message": message}


def test_records_are_decoded_with_their_bytes_and_times(server: Server, client: BotoStreamClient) -> None:
    server.answers = [
        (
            200,
            {
                "Records": [
                    {
                        "SequenceNumber": "49",
                        "ApproximateArrivalTimestamp": 1764000000.25,
                        "Data": base64.b64encode(b"\x00\xff").decode(),
                        "PartitionKey": "Köln",
                        "EncryptionType": "KMS",
                    }
                ],
                "NextShardIterator": "next",
                "MillisBehindLatest": 7,
                "ChildShards": [],
            },
        )
    ]
    page = client.records("it", 1)
    (record,) = page.records
    assert (record.sequence_number, record.data, record.partition_key) == ("49", b"\x00\xff", "Köln")
    assert record.approximate_arrival_timestamp == 1764000000.25
    assert (page.next_iterator, page.millis_behind, page.full, page.caught_up) == ("next", 7, True, False)
    assert server.asked == [("GetRecords", {"ShardIterator": "it", "Limit": 1})]


@pytest.mark.parametrize(("size", "full"), [(100, False), (9_500_000, True)])
def test_an_answer_of_nearly_10_mb_does_not_prove_that_nothing_is_left(
    server: Server, client: BotoStreamClient, size: int, full: bool
) -> None:
    data = base64.b64encode(b"x" * size).decode()
    records = [{"SequenceNumber": "49", "Data": data, "PartitionKey": "k"}]
    server.answers = [(200, {"Records": records, "NextShardIterator": "next", "MillisBehindLatest": 0})]
    page = client.headers("it", 10)
    assert (page.full, page.lag_unknown, page.caught_up) == (full, full, not full)


def test_headers_know_their_payloads_size_without_decoding_it(server: Server, client: BotoStreamClient) -> None:
    data = base64.b64encode(b"x" * 300).decode()
    server.answers = [(200, {"Records": [{"SequenceNumber": "49", "Data": data, "PartitionKey": "k"}]})]
    page = client.headers("it", 10)
    assert page.records[0].payload_bytes == 300
    assert page.next_iterator is None
    assert page.caught_up


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "said"),
    [
        (400, "ExpiredIteratorException", "old", ExpiredIteratorError, "old"),
        (400, "ProvisionedThroughputExceededException", "rate", ThrottledError, "rate"),
        (400, "KMSThrottlingException", "rate", ThrottledError, "rate"),
        (400, "AccessDeniedException", "not yours", StreamAccessError, "check the role's policy"),
        (400, "ExpiredTokenException", "late", StreamAccessError, "AWS refused"),
        (400, "KMSAccessDeniedException", "key", SourceConfigurationError, "kms:Decrypt"),
        (
            400,
            "ResourceNotFoundException",
            "Stream trips not found",
            StreamNotFoundError,
            "check name, region and account",
        ),
        (400, "ResourceNotFoundException", "Shard shardId-000000000003 in stream", PositionGoneError, "shardId-0"),
        (400, "InvalidArgumentException", "StartingSequenceNumber is invalid", PositionGoneError, "is invalid"),
        (500, "InternalFailure", "oops", TransientSourceError, "oops"),
        (503, "ServiceUnavailable", "later", TransientSourceError, "later"),
    ],
)
def test_an_error_of_get_records_keeps_its_code_and_says_what_to_do(
    server: Server, client: BotoStreamClient, status: int, code: str, message: str, kind: type[Exception], said: str
) -> None:
    server.answers = [(status, error(code, message))]
    with pytest.raises(kind) as raised:
        client.records("it", 10)
    assert type(raised.value) is kind
    assert said in str(raised.value)
    assert str(raised.value).startswith("stream trips: read records")
    assert len(server.asked) == 1, "boto3 retried by itself"


def test_a_reset_connection_is_transient(server: Server, client: BotoStreamClient) -> None:
    server.answers = [None]
    with pytest.raises(TransientSourceError, match="stream trips: read records"):
        client.records("it", 10)


@pytest.mark.parametrize(
    ("position", "inclusive", "asked"),
    [
        (TRIM_HORIZON, False, {"ShardIteratorType": "TRIM_HORIZON"}),
        (after("49"), False, {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "49"}),
        (after("49"), True, {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "49"}),
        (
            at_timestamp(parse_time("2026-11-23T00:00:00.9Z")),
            False,
            {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1795392000},
        ),
    ],
)
def test_a_position_becomes_an_iterator(
    server: Server, client: BotoStreamClient, position: Any, inclusive: bool, asked: dict[str, Any]
) -> None:
    server.answers = [(200, {"ShardIterator": "it"})]
    assert client.iterator("shardId-0", position, inclusive=inclusive) == "it"
    assert server.asked == [("GetShardIterator", {"StreamName": "trips", "ShardId": "shardId-0", **asked})]


@pytest.mark.parametrize(("ahead", "kind"), [(3600, FutureTimeError), (-5, FutureTimeError), (-90, PositionGoneError)])
def test_a_time_that_the_server_refuses_is_in_its_future_unless_it_is_long_past(
    server: Server, client: BotoStreamClient, ahead: int, kind: type[Exception]
) -> None:
    server.answers = [(400, error("InvalidArgumentException", "not that time"))]
    with pytest.raises(kind, match=r"open shard shardId-0 at AT_TIMESTAMP.*not that time") as raised:
        client.iterator("shardId-0", at_timestamp(datetime.now(UTC) + timedelta(seconds=ahead)))
    assert type(raised.value) is kind


def test_an_unknown_sequence_number_is_told_from_a_missing_stream(server: Server, client: BotoStreamClient) -> None:
    unknown = (400, error("ResourceNotFoundException", "Unable to find record with provided SequenceNumber"))
    described = {"StreamDescriptionSummary": {"RetentionPeriodHours": 24}}
    server.answers = [unknown, (200, described)]
    with pytest.raises(PositionGoneError, match="the position 49 of shard shardId-0 is not in the stream"):
        client.iterator("shardId-0", after("49"))
    server.answers = [unknown, (400, error("ResourceNotFoundException", "Stream trips not found"))]
    with pytest.raises(StreamNotFoundError, match="does not exist"):
        client.iterator("shardId-0", after("49"))


def test_all_pages_of_the_shard_list_are_read(server: Server, client: BotoStreamClient) -> None:
    hashes = {"StartingHashKey": "0", "EndingHashKey": "1"}
    server.answers = [
        (
            200,
            {
                "Shards": [
                    {
                        "ShardId": "shardId-0",
                        "HashKeyRange": hashes,
                        "SequenceNumberRange": {"StartingSequenceNumber": "1", "EndingSequenceNumber": "9"},
                    }
                ],
                "NextToken": "more",
            },
        ),
        (
            200,
            {
                "Shards": [
                    {
                        "ShardId": "shardId-2",
                        "ParentShardId": "shardId-0",
                        "AdjacentParentShardId": "shardId-1",
                        "HashKeyRange": hashes,
                        "SequenceNumberRange": {"StartingSequenceNumber": "10"},
                    }
                ]
            },
        ),
    ]
    closed, child = client.list_shards()
    assert (closed.is_closed, closed.ending_sequence, closed.parents) == (True, "9", ())
    assert (child.is_closed, child.parents) == (False, ("shardId-0", "shardId-1"))
    assert server.asked[1] == ("ListShards", {"NextToken": "more"})
    assert child.hash_keys == (0, 1)


def test_a_stream_named_by_arn_is_asked_for_by_arn_on_every_page_of_its_shards(server: Server) -> None:
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/trips"
    options = KinesisOptions(stream="trips", stream_arn=arn, region="us-east-1", endpoint_url=server.endpoint)
    server.answers = [(200, {"Shards": [], "NextToken": "more"}), (200, {"Shards": []})]
    BotoStreamClient(options).list_shards()
    assert server.asked == [("ListShards", {"StreamARN": arn}), ("ListShards", {"StreamARN": arn, "NextToken": "more"})]


def test_a_stream_named_by_arn_is_asked_for_by_arn(server: Server) -> None:
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/trips"
    options = KinesisOptions(stream="trips", stream_arn=arn, region="us-east-1", endpoint_url=server.endpoint)
    server.answers = [(200, {"Records": [], "NextShardIterator": "n", "MillisBehindLatest": 0})]
    BotoStreamClient(options).records("it", 5)
    assert server.asked == [("GetRecords", {"StreamARN": arn, "ShardIterator": "it", "Limit": 5})]


def test_a_role_is_assumed_and_its_credentials_renew_themselves(moto: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    role = "arn:aws:iam::123456789012:role/reader"
    options = KinesisOptions(stream="none", region="us-east-1", endpoint_url=moto.endpoint, role_arn=role)
    client = BotoStreamClient(options)
    with pytest.raises(StreamAccessError, match="stream none: list shards: does not exist"):
        client.list_shards()
    credentials = client._client._request_signer._credentials
    assert credentials.method == "sts-assume-role"
    first = credentials.get_frozen_credentials().access_key
    assert first != "testing"
    monkeypatch.setattr(credentials, "_advisory_refresh_timeout", 10**6)
    assert credentials.get_frozen_credentials().access_key != first


def test_a_role_is_assumed_at_the_endpoint_that_came_with_the_options(
    moto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_STS", raising=False)
    options = KinesisOptions(
        stream="none",
        region="us-east-1",
        endpoint_url=moto.endpoint,
        role_arn="arn:aws:iam::123456789012:role/reader",
        sts_endpoint_url=moto.endpoint,
    )
    with pytest.raises(StreamAccessError, match="stream none: list shards: does not exist"):
        BotoStreamClient(options).list_shards()


def test_an_answer_that_is_no_answer_is_asked_for_again(server: Server) -> None:
    options = KinesisOptions(stream="trips", region="us-east-1", endpoint_url=server.endpoint)
    good = {"Records": [], "NextShardIterator": "n", "MillisBehindLatest": 0}
    server.answers = [(200, "<html>busy</html>"), (200, {"Records": [{"Data": "no number"}]}), (200, good)]
    client = RetryingClient(BotoStreamClient(options), seconds=60, sleep=lambda _: None)
    assert client.records("it", 5).next_iterator == "n"
    server.answers = [(200, "<html>busy</html>")]
    with pytest.raises(TransientSourceError, match="stream trips: read records: status 200 with a body of 19 bytes"):
        RetryingClient(BotoStreamClient(options), seconds=0).records("it", 5)


def test_a_worker_keeps_one_client_for_a_stream() -> None:
    options = KinesisOptions(stream="trips", region="us-east-1")
    assert worker_client(options) is worker_client(replace(options, records_per_call=7))
    assert worker_client(options) is not worker_client(replace(options, stream="other"))


def test_no_region_is_one_clear_error() -> None:
    with pytest.raises(SourceConfigurationError, match="set AWS_REGION"):
        BotoStreamClient(KinesisOptions(stream="trips"))
