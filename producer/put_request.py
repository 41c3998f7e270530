"""One PutRecords request: a batch in, an outcome for each record out. From: `outbox`. Next: Kinesis.

boto3 signs, finds the endpoint and pools connections; two of its event hooks replace what it is slow at, which is
building the body from 500 dictionaries and parsing 500 results (82,000 records/s without them, 248,000 with).
Nothing is retried here: only the caller knows which records are left, and in what order they must go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
import msgspec
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, NoCredentialsError, PartialCredentialsError

from jobs.contract import aws
from jobs.contract.errors import AwsAccessError, TransientError
from producer.records import Record

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html and its list of errors.
MAX_RECORDS = 500
MAX_REQUEST_BYTES = 10 * 1024 * 1024
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
class Placed:
    """Where Kinesis put a record; for one that it did not take, `error` is AWS's code and the rest is None."""

    sequence_number: str | None = None
    shard_id: str | None = None
    error: str | None = None


class Puts(Protocol):
    """What sends a batch; tests put a faulty one in its place."""

    def put(self, records: Sequence[Record]) -> list[Placed] | None:
        """Sends at most 500 records. Returns where each was put, or None for "all were accepted".

        Raises NotAcceptedError, OutcomeUnknownError, or AwsAccessError where trying again is of no use.
        """
        ...


class _Result(msgspec.Struct, gc=False):
    SequenceNumber: str | None = None
    ShardId: str | None = None
    ErrorCode: str | None = None


class _Counted(msgspec.Struct):
    Records: list[msgspec.Raw]
    FailedRecordCount: int = 0


class _Detailed(msgspec.Struct):
    Records: list[_Result]


class _Body(msgspec.Struct):
    StreamName: str
    Records: Sequence[Record]


_encode = msgspec.json.Encoder().encode
_decode_counted = msgspec.json.Decoder(_Counted).decode
_decode_detailed = msgspec.json.Decoder(_Detailed).decode
_ANSWER = "MovementAnswer"
_RECORDS = "movement_records"


class PutRequest:
    """PutRecords to one stream over a boto3 client; usable from several threads.

    `detailed` answers with a `Placed` for every record even where all were accepted (the HTTP API reports them).
    """

    def __init__(
        self,
        stream: str,
        *,
        client: Any = None,
        connections: int = 4,
        timeout_seconds: float = 10,
        detailed: bool = False,
    ) -> None:
        self.stream = stream
        self._detailed = detailed
        self._client = client or kinesis_client(connections, timeout_seconds)

    def put(self, records: Sequence[Record]) -> list[Placed] | None:
        """See `Puts.put`."""
        what = f"put {len(records)} records to stream '{self.stream}'"
        try:
            answer = self._client.put_records(StreamName=self.stream, Records=records)
        except ClientError as error:
            raise _explained(error, what, self.stream) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            with aws.explained(what):
                raise error
        except ConnectionError as error:
            # botocore's, for a connection that was never made.
            raise NotAcceptedError(f"{what}: {error}") from error
        except BotoCoreError as error:
            raise OutcomeUnknownError(f"{what}: {error}") from error
        return self._read(answer[_ANSWER], len(records), what)

    def _read(self, body: bytes, count: int, what: str) -> list[Placed] | None:
        try:
            counted = _decode_counted(body)
            if len(counted.Records) != count:
                raise OutcomeUnknownError(f"{what}: the answer is about {len(counted.Records)} records")
            if counted.FailedRecordCount == 0 and not self._detailed:
                return None
            results = _decode_detailed(body).Records
        except msgspec.MsgspecError as error:
            raise OutcomeUnknownError(f"{what}: the answer is not PutRecords' ({error})") from error
        return [
            Placed(error=found.ErrorCode) if found.ErrorCode else Placed(found.SequenceNumber, found.ShardId)
            for found in results
        ]


def is_throttle(code: str | None) -> bool:
    """Whether AWS's error code says "too much", rather than "failed"."""
    return code in _THROTTLES


def kinesis_client(connections: int, timeout_seconds: float) -> Any:
    """A boto3 Kinesis client that tries once, and whose PutRecords takes and gives what `PutRequest` uses."""
    client = aws.client(
        "kinesis",
        connections=connections,
        parameter_validation=False,
        retries={"total_max_attempts": 1, "mode": "standard"},
        read_timeout=timeout_seconds,
        # botocore puts its own together anew for every request, from two dozen parts.
        user_agent=f"movement-lake boto3/{boto3.__version__}",
    )
    client.meta.events.register("before-parameter-build.kinesis.PutRecords", _set_records_aside)
    client.meta.events.register("before-call.kinesis.PutRecords", _write_body)
    client.meta.events.register("before-parse.kinesis.PutRecords", _keep_answer)
    return client


def _set_records_aside(params: dict[str, Any], context: dict[str, Any], **_rest: Any) -> None:
    context[_RECORDS] = params.pop("Records")


def _write_body(params: dict[str, Any], context: dict[str, Any], **_rest: Any) -> None:
    # botocore has serialized the few parameters that are left; the stream's name is one of them.
    name = msgspec.json.decode(params["body"])["StreamName"]
    params["body"] = _encode(_Body(name, context.pop(_RECORDS)))


def _keep_answer(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_rest: Any) -> None:
    # An error's answer is botocore's to parse: swallowed here, its code would be lost.
    if response_dict["status_code"] == 200:
        customized_response_dict[_ANSWER] = response_dict["body"]
        response_dict["body"] = b"{}"


def _explained(error: ClientError, what: str, stream: str) -> Exception:
    code = aws.error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "ResourceNotFoundException":
        return missing_stream(stream)
    if is_throttle(code) or status == 429:
        return NotAcceptedError(f"{what}: {code}", throttled=True)
    if code in _WORTH_ANOTHER_TRY:
        return NotAcceptedError(f"{what}: {code}")
    if status >= 500:
        return OutcomeUnknownError(f"{what}: {code or status}")
    try:
        with aws.explained(what):
            raise error
    except AwsAccessError as ours:
        return ours
    except TransientError as ours:
        # A 4xx that is no throttle, such as a request that the service takes for invalid, stays one when repeated.
        return AwsAccessError(str(ours))


def missing_stream(stream: str) -> AwsAccessError:
    """The error for a stream that is not there, with what to do about it."""
    return AwsAccessError(
        f"stream '{stream}' does not exist in region {aws.region() or '(none)'}: check stream.name, AWS_REGION and "
        "AWS_ENDPOINT_URL; `movement local up` creates it on this machine, "
        f"`aws kinesis create-stream --stream-name {stream} --shard-count 4` on AWS"
    )
