"""One PutRecords request: its signature, and the outcome of every kind of answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from jobs.common.errors import AwsAccessError
from producer.put_records import NotAcceptedError, OutcomeUnknownError, PutRecordsClient, PutResult
from producer.record_encoder import PutRecordsEntry
from tests.helpers.faulty_kinesis import Fail, FaultyKinesis, Reset, Status

RECORDS = [PutRecordsEntry(b'{"a":1}', "é|1"), PutRecordsEntry("ü".encode(), "b")]


@pytest.fixture
def kinesis(aws_environment: pytest.MonkeyPatch) -> Iterator[FaultyKinesis]:
    with FaultyKinesis() as server:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", server.url)
        yield server


def test_a_request_has_the_signature_and_headers_of_boto3s_request(
    kinesis: FaultyKinesis, aws_environment: pytest.MonkeyPatch
) -> None:
    aws_environment.setenv("AWS_SESSION_TOKEN", "temporary")
    PutRecordsClient("stream").put(RECORDS)
    entries = [{"Data": one.Data, "PartitionKey": one.PartitionKey} for one in RECORDS]
    boto3.Session().client("kinesis", region_name="us-east-1").put_records(StreamName="stream", Records=entries)

    def shape(headers: dict[str, str]) -> dict[str, object]:
        signature = re.fullmatch(
            r"AWS4-HMAC-SHA256 (Credential=.*, SignedHeaders=.*), Signature=\w{64}", headers["Authorization"]
        )
        assert signature is not None
        same = ("Content-Type", "X-Amz-Target", "X-Amz-Security-Token", "Host")
        return {"signed": signature[1]} | {name: headers[name] for name in same}

    ours, theirs = kinesis.headers
    assert shape(ours) == shape(theirs)
    assert kinesis.accepted[:2] == kinesis.accepted[2:] == [(one.PartitionKey, one.Data) for one in RECORDS]


def test_sequence_numbers_are_returned_only_if_requested(kinesis: FaultyKinesis) -> None:
    assert PutRecordsClient("stream").put(RECORDS) is None
    results = PutRecordsClient("stream", detailed=True).put(RECORDS)
    assert results is not None
    assert [result.sequence_number for result in results] == ["3", "4"]


def test_each_record_has_its_own_result_if_some_fail(kinesis: FaultyKinesis) -> None:
    kinesis.faults = lambda _n: Fail(lambda index: index == 0)
    first, second = PutRecordsClient("stream").put(RECORDS) or []
    assert first == PutResult(error="ProvisionedThroughputExceededException")
    assert (second.error, second.sequence_number) == (None, "1")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(400, "ProvisionedThroughputExceededException"), NotAcceptedError),
        (Status(400, "com.amazon.kinesis#LimitExceededException"), NotAcceptedError),
        (Status(429, "Anything"), NotAcceptedError),
        (Status(400, "RequestExpired"), NotAcceptedError),
        (Status(500, "InternalFailure"), OutcomeUnknownError),
        (Status(502, ""), OutcomeUnknownError),
        (Reset(after=True), OutcomeUnknownError),
        (Status(400, "AccessDeniedException"), AwsAccessError),
        (Status(403, "InvalidSignatureException"), AwsAccessError),
        (Status(400, "ResourceNotFoundException"), AwsAccessError),
    ],
    ids=lambda value: getattr(value, "code", None) or getattr(value, "__name__", "reset"),
)
def test_the_error_of_a_failed_request_says_whether_a_retry_can_help_or_duplicate(
    fault: Status | Reset, error: type[Exception], kinesis: FaultyKinesis
) -> None:
    kinesis.faults = lambda _n: fault
    with pytest.raises(error) as raised:
        PutRecordsClient("stream").put(RECORDS)
    if isinstance(raised.value, NotAcceptedError):
        assert raised.value.throttled == (getattr(fault, "code", "") != "RequestExpired")


def test_without_a_connection_nothing_was_accepted(kinesis: FaultyKinesis) -> None:
    client = PutRecordsClient("stream")
    kinesis.stop()
    with pytest.raises(NotAcceptedError):
        client.put(RECORDS)


@pytest.mark.usefixtures("kinesis")
def test_missing_credentials_are_named_with_the_remedy(aws_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws_environment.delenv(name)
    aws_environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    aws_environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    aws_environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AwsAccessError, match="no AWS credentials"):
        PutRecordsClient("stream").put(RECORDS)
