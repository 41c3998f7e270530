"""One request: signed as boto3 signs, and every answer told apart."""

from __future__ import annotations

import re

import boto3
import pytest

from jobs.common.errors import AwsAccessError
from producer.put_records import NotAcceptedError, OutcomeUnknownError, PutRecordsClient, PutResult
from producer.record_encoder import Record
from tests.helpers.faulty_kinesis import Fail, FaultyKinesis, Reset, Status

RECORDS = [Record(b'{"a":1}', "é|1"), Record("ü".encode(), "b")]


@pytest.fixture
def kinesis(aws_environment):
    with FaultyKinesis() as server:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", server.url)
        yield server


def test_a_request_is_signed_and_described_as_boto3s_is(kinesis, aws_environment):
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


def test_accepted_records_are_placed_where_asked_for(kinesis):
    assert PutRecordsClient("stream").put(RECORDS) is None
    found = PutRecordsClient("stream", detailed=True).put(RECORDS)
    assert [where.sequence_number for where in found] == ["3", "4"]


def test_records_that_were_refused_are_told_from_those_that_were_not(kinesis):
    kinesis.faults = lambda _n: Fail(lambda place: place == 0)
    first, second = PutRecordsClient("stream").put(RECORDS)
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
def test_a_failure_says_whether_to_try_again_and_whether_anything_was_taken(fault, error, kinesis):
    kinesis.faults = lambda _n: fault
    with pytest.raises(error) as raised:
        PutRecordsClient("stream").put(RECORDS)
    if isinstance(raised.value, NotAcceptedError):
        assert raised.value.throttled == (getattr(fault, "code", "") != "RequestExpired")


def test_nobody_listening_is_surely_not_accepted(kinesis):
    put = PutRecordsClient("stream")
    kinesis.stop()
    with pytest.raises(NotAcceptedError):
        put.put(RECORDS)


def test_missing_credentials_are_named_with_the_remedy(kinesis, aws_environment, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws_environment.delenv(name)
    aws_environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    aws_environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    aws_environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AwsAccessError, match="no AWS credentials"):
        PutRecordsClient("stream").put(RECORDS)
