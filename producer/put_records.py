"""One PutRecords request: a batch in, an outcome for each record out. From: `queue`. Next: Kinesis.

boto3 finds the endpoint and the credentials, botocore signs and sends, msgspec builds the body and reads the answer:
`client.put_records` itself spends most of its time on turning 500 dictionaries into a body and 500 results into
dictionaries (see benchmarks/producer.py). Nothing is retried here: only the caller knows which records are left, and
in what order they must go.
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
from producer.record_encoder import Record

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html and its list of errors.
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
# The clock is off, or credentials have just been rotated: botocore signs anew at the next attempt.
_WORTH_ANOTHER_TRY = frozenset({"RequestExpired", "RequestTimeout", "RequestTimeoutException", "RequestTimeTooSkewed"})


class NotAcceptedError(TransientError):
    """A request failed as a whole and surely none of its records is on the stream. `throttled`: there were too many."""

    def __init__(self, message: str, throttled: bool = False) -> None:
        super().__init__(message)
        self.throttled = throttled


class OutcomeUnknownError(TransientError):
    """A request failed so that its records may or may not be on the stream: sent again, they may be there twice."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """Where Kinesis put a record; for one that it did not take, `error` is AWS's code and the rest is None."""

    sequence_number: str | None = None
    shard_id: str | None = None
    error: str | None = None


class PutClient(Protocol):
    """What sends a batch; tests put a faulty one in its place."""

    def put(self, records: Sequence[Record]) -> list[PutResult] | None:
        """Sends at most 500 records. Returns where each was put, or None for "all were accepted".

        Raises NotAcceptedError, OutcomeUnknownError, or AwsAccessError where trying again is of no use.
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
    Records: Sequence[Record]


class _Error(msgspec.Struct):
    type: str = msgspec.field(name="__type", default="")
    message: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answer).decode
_HEADERS = {
    "Content-Type": "application/x-amz-json-1.1",
    "X-Amz-Target": "Kinesis_20131202.PutRecords",
    "User-Agent": f"movement-lake boto3/{boto3.__version__}",
}
_CONNECT_SECONDS = 5


class SignedPost:
    """Posts bodies to Kinesis, signed; finds region, endpoint, credentials, proxies and certificates as boto3 does."""

    def __init__(self, connections: int, timeout_seconds: float) -> None:
        client = kinesis_client(timeout_seconds)
        self._url = client.meta.endpoint_url.rstrip("/") + "/"
        self._region = client.meta.region_name
        # Refreshes itself where the credentials are temporary.
        self._credentials = boto3.Session().get_credentials()
        self._session = URLLib3Session(
            verify=botocore.session.get_session().get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(self._url),
            # The stubs are narrower than botocore, which takes what urllib3 takes.
            timeout=cast(Any, (_CONNECT_SECONDS, timeout_seconds)),
            max_pool_connections=connections,
            # As boto3's clients have it: head and body are two writes, and Nagle would hold the second back 40 ms.
            socket_options=cast(Any, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]),
        )

    def __call__(self, body: bytes) -> tuple[int, bytes]:
        """The answer's status and body. Raises botocore's errors."""
        if self._credentials is None:
            raise NoCredentialsError
        request = AWSRequest("POST", self._url, dict(_HEADERS), body)
        SigV4Auth(self._credentials.get_frozen_credentials(), "kinesis", self._region).add_auth(request)
        response = self._session.send(request.prepare())
        return response.status_code, response.content


class PutRecordsClient:
    """PutRecords to one stream; usable from several threads.

    `detailed` answers with a `PutResult` for every record even where all were accepted (the HTTP API reports them).
    """

    def __init__(
        self, stream: str, *, connections: int = 4, timeout_seconds: float = 10, detailed: bool = False
    ) -> None:
        self.stream = stream
        self._detailed = detailed
        self._post = SignedPost(connections, timeout_seconds)

    def put(self, records: Sequence[Record]) -> list[PutResult] | None:
        """See `PutClient.put`."""
        what = f"put {len(records)} records to stream '{self.stream}'"
        try:
            status, answer = self._post(_encode(_Body(self.stream, records)))
        except NoCredentialsError as error:
            with aws.translate_aws_errors(what):
                raise error
        except ConnectionError as error:
            # botocore's, for a connection that was never made.
            raise NotAcceptedError(f"{what}: {error}") from error
        except BotoCoreError as error:
            raise OutcomeUnknownError(f"{what}: {error}") from error
        if status != 200:
            raise self._refusal(status, answer, what)
        return self._read(answer, len(records), what)

    def _read(self, body: bytes, count: int, what: str) -> list[PutResult] | None:
        # Nearly every answer: as many sequence numbers as records, and no error. Any doubt is for the decoder.
        if not self._detailed and b'"ErrorCode"' not in body and body.count(b'"SequenceNumber"') == count:
            return None
        try:
            results = _decode(body).Records
        except msgspec.MsgspecError as error:
            raise OutcomeUnknownError(f"{what}: the answer is not PutRecords' ({error})") from error
        if len(results) != count or any(found.ErrorCode is None and not found.SequenceNumber for found in results):
            raise OutcomeUnknownError(f"{what}: the answer does not say what became of each record")
        return [
            PutResult(error=found.ErrorCode) if found.ErrorCode else PutResult(found.SequenceNumber, found.ShardId)
            for found in results
        ]

    def _refusal(self, status: int, answer: bytes, what: str) -> Exception:
        """The error for an answer other than 200, whose body is JSON with `__type` where Kinesis itself answers."""
        try:
            error = msgspec.json.decode(answer, type=_Error)
        except msgspec.MsgspecError:
            error = _Error(f"HTTP {status}")
        # The code may carry a name space before and a URL after it.
        code = error.type.rpartition("#")[2].partition(":")[0] or f"HTTP {status}"
        if code == "ResourceNotFoundException":
            return missing_stream(self.stream)
        if is_throttle(code) or status == 429:
            return NotAcceptedError(f"{what}: {code}", throttled=True)
        if code in _WORTH_ANOTHER_TRY:
            return NotAcceptedError(f"{what}: {code}")
        if status >= 500:
            return OutcomeUnknownError(f"{what}: {code}")
        # A 4xx that is no throttle stays one when repeated: no permission, or a request that is invalid.
        return AwsAccessError(f"{what}: AWS refused ({code}: {error.message or ''}); check credentials and policy")


def is_throttle(code: str | None) -> bool:
    """Whether AWS's error code says "too much", rather than "failed"."""
    return code in _THROTTLES


def kinesis_client(timeout_seconds: float) -> KinesisClient:
    """boto3's client, for everything but PutRecords. Raises ConfigurationError where there is no region."""
    return aws.client("kinesis", connections=2, read_timeout=timeout_seconds)


def missing_stream(stream: str) -> AwsAccessError:
    """The error for a stream that is not there, with what to do about it."""
    return AwsAccessError(
        f"stream '{stream}' does not exist in region {aws.region() or '(none)'}: check stream.name, AWS_REGION and "
        "AWS_ENDPOINT_URL; `movement local up` creates it on this machine, "
        f"`aws kinesis create-stream --stream-name {stream} --shard-count 4` on AWS"
    )
