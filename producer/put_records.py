"""Sends one PutRecords request to Kinesis. In: up to 500 records. Out: a result for each record, or an error.

boto3 finds the endpoint and the credentials, botocore signs and sends, and msgspec builds the body and reads the
answer: boto3's own `put_records` spends most of its time on 500 dictionaries in each direction (see
benchmarks/producer.py). Nothing is retried here, because only `send_queue` knows the order of the records.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import boto3
import botocore.session
import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ConnectionError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from jobs.common import aws
from jobs.common.errors import AwsAccessError, TransientError
from producer.record_encoder import PutRecordsEntry

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

# Limits and error codes: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
MAX_RECORDS = 500
DEFAULT_MAX_RECORD_BYTES = 1024 * 1024
THROTTLED = "ProvisionedThroughputExceededException"
_THROTTLES = frozenset(
    {
        THROTTLED,
        "KMSThrottlingException",
        "LimitExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
# A new signature may help: this host's clock was wrong, or the credentials have just changed.
_RETRYABLE = frozenset({"RequestExpired", "RequestTimeout", "RequestTimeoutException", "RequestTimeTooSkewed"})


class NotAcceptedError(TransientError):
    """A request failed and none of its records is on the stream. `throttled`: Kinesis throttled the whole request."""

    def __init__(self, message: str, throttled: bool = False) -> None:
        super().__init__(message)
        self.throttled = throttled


class OutcomeUnknownError(TransientError):
    """A request failed and its records may be on the stream. Sending them again may duplicate them."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """Where Kinesis stored a record. For a record that failed, `error` is AWS's code and the rest is None."""

    sequence_number: str | None = None
    shard_id: str | None = None
    error: str | None = None


class PutClient(Protocol):
    """Sends one request. Tests replace it."""

    def put(self, records: Sequence[PutRecordsEntry]) -> list[PutResult] | None:
        """Sends at most 500 records. Returns one result for each record in their order, or None if all were accepted.

        A failed record is a result with an `error`, not an exception. Raises NotAcceptedError or OutcomeUnknownError
        if the request failed as a whole, and AwsAccessError if a retry cannot help.
        """
        ...


class _Result(msgspec.Struct, gc=False):
    SequenceNumber: str | None = None
    ShardId: str | None = None
    ErrorCode: str | None = None


class _Answer(msgspec.Struct):
    Records: list[_Result]


class _Body(msgspec.Struct):
    StreamName: str
    Records: Sequence[PutRecordsEntry]


class _Error(msgspec.Struct):
    type: str = msgspec.field(name="__type", default="")
    message: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answer).decode
_decode_error = msgspec.json.Decoder(_Error).decode
_HEADERS = {
    "Content-Type": "application/x-amz-json-1.1",
    "X-Amz-Target": "Kinesis_20131202.PutRecords",
    "User-Agent": f"movement-lake boto3/{boto3.__version__}",
}
_CONNECT_SECONDS = 5


class SignedPost:
    """Signs and posts bodies to Kinesis. Region, endpoint, credentials, proxies and certificates are boto3's."""

    def __init__(self, connections: int, timeout_seconds: float) -> None:
        client = kinesis_client(timeout_seconds)
        self._url = client.meta.endpoint_url.rstrip("/") + "/"
        self._region = client.meta.region_name
        # Temporary credentials refresh themselves.
        self._credentials = boto3.Session().get_credentials()
        self._session = URLLib3Session(
            verify=botocore.session.get_session().get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(self._url),
            # The stubs are narrower than botocore, which accepts all that urllib3 accepts.
            timeout=cast(Any, (_CONNECT_SECONDS, timeout_seconds)),
            max_pool_connections=connections,
            # Like boto3's clients: headers and body are two writes, and Nagle's algorithm would delay the second 40 ms.
            socket_options=cast(Any, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]),
        )

    def __call__(self, body: bytes) -> tuple[int, bytes]:
        """Returns the HTTP status and the body of the answer. Raises botocore's errors."""
        if self._credentials is None:
            raise NoCredentialsError
        request = AWSRequest("POST", self._url, dict(_HEADERS), body)
        SigV4Auth(self._credentials.get_frozen_credentials(), "kinesis", self._region).add_auth(request)
        response = self._session.send(request.prepare())
        return response.status_code, response.content


class PutRecordsClient:
    """PutRecords to one stream. Thread-safe.

    With `detailed`, `put` returns a result for each record even if all were accepted; the HTTP API reports them.
    """

    def __init__(
        self, stream: str, *, connections: int = 4, timeout_seconds: float = 10, detailed: bool = False
    ) -> None:
        self.stream = stream
        self._detailed = detailed
        self._post = SignedPost(connections, timeout_seconds)

    def put(self, records: Sequence[PutRecordsEntry]) -> list[PutResult] | None:
        """See `PutClient.put`. Data and keys of a request may have up to 5 MiB."""
        what = f"put {len(records)} records to stream '{self.stream}'"
        try:
            status, answer = self._post(_encode(_Body(self.stream, records)))
        except NoCredentialsError as error:
            with aws.translate_aws_errors(what):
                raise error
        except ConnectionError as error:
            # botocore raises it only if no connection was made.
            raise NotAcceptedError(f"{what}: {error}") from error
        except BotoCoreError as error:
            raise OutcomeUnknownError(f"{what}: {error}") from error
        if status != 200:
            raise self._error(status, answer, what)
        return self._read(answer, len(records), what)

    def _read(self, body: bytes, count: int, what: str) -> list[PutResult] | None:
        # Most answers have one sequence number a record and no error. Only the others are decoded.
        if not self._detailed and b'"ErrorCode"' not in body and body.count(b'"SequenceNumber"') == count:
            return None
        try:
            results = _decode(body).Records
        except msgspec.MsgspecError as error:
            raise OutcomeUnknownError(f"{what}: the answer is not PutRecords' ({error})") from error
        if len(results) != count or any(one.ErrorCode is None and not one.SequenceNumber for one in results):
            raise OutcomeUnknownError(f"{what}: the answer does not have a result for each record")
        return [
            PutResult(error=one.ErrorCode) if one.ErrorCode else PutResult(one.SequenceNumber, one.ShardId)
            for one in results
        ]

    def _error(self, status: int, answer: bytes, what: str) -> Exception:
        """The error for a status other than 200. Kinesis's own answers are JSON with the code in `__type`."""
        try:
            error = _decode_error(answer)
        except msgspec.MsgspecError:
            error = _Error(f"HTTP {status}")
        # The code may have a namespace before it and a URL after it.
        code = error.type.rpartition("#")[2].partition(":")[0] or f"HTTP {status}"
        if code == "ResourceNotFoundException":
            return missing_stream(self.stream)
        if is_throttle(code) or status == 429:
            return NotAcceptedError(f"{what}: {code}", throttled=True)
        if code in _RETRYABLE:
            return NotAcceptedError(f"{what}: {code}")
        if status >= 500:
            return OutcomeUnknownError(f"{what}: {code}")
        # Any other 4xx repeats itself: a missing permission, or an invalid request.
        return AwsAccessError(f"{what}: AWS refused ({code}: {error.message or ''}); check credentials and policy")


def is_throttle(code: str | None) -> bool:
    """Whether the error code means that a limit was exceeded."""
    return code in _THROTTLES


def kinesis_client(timeout_seconds: float) -> KinesisClient:
    """A boto3 client for all calls except PutRecords. Raises ConfigurationError if no region is configured."""
    return aws.client("kinesis", connections=2, read_timeout=timeout_seconds)


def missing_stream(stream: str) -> AwsAccessError:
    """The error for a stream that does not exist, with the remedy."""
    return AwsAccessError(
        f"stream '{stream}' does not exist in region {aws.region() or '(none)'}: check stream.name, AWS_REGION and "
        "AWS_ENDPOINT_URL; `movement local up` creates it on this machine, "
        f"`aws kinesis create-stream --stream-name {stream} --shard-count 4` on AWS"
    )
