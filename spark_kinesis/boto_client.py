"""`StreamClient` with botocore. msgspec decodes the answers of GetRecords, because botocore's parser is slow.

botocore finds credentials, region and endpoint, signs, and keeps the connections. Only the body of a successful
GetRecords is taken from it before it is parsed (event `before-parse.kinesis.GetRecords`). The records go to `reader`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import botocore.loaders
import botocore.session
import msgspec
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials, create_assume_role_refresher
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError

from spark_kinesis.client import Page, Record, RecordHeader, Shard, StreamSummary
from spark_kinesis.errors import (
    ExpiredIteratorError,
    FutureTimeError,
    PositionGoneError,
    SourceConfigurationError,
    SourceError,
    StreamAccessError,
    StreamNotFoundError,
    ThrottledError,
    TransientSourceError,
)
from spark_kinesis.offset import Kind, Position
from spark_kinesis.options import KinesisOptions

_THROTTLES = {
    "KMSThrottlingException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
}
_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_MISSING = "ResourceNotFoundException"
_ITERATOR_TYPES = {
    Kind.TRIM_HORIZON: "TRIM_HORIZON",
    Kind.AT_TIMESTAMP: "AT_TIMESTAMP",
    Kind.AFTER: "AFTER_SEQUENCE_NUMBER",
}


# The front ends' clocks differ by less than this.
_CLOCK_SKEW = 60
# Nearly 10 MB of payloads, in base64: the next record may not have fitted into the answer.
_FULL_BODY = 12_000_000


class _Answer(msgspec.Struct, rename="pascal"):
    records: list[Record]
    millis_behind_latest: int | None = None
    next_shard_iterator: str | None = None


class _HeadersAnswer(msgspec.Struct, rename="pascal"):
    records: list[RecordHeader]
    millis_behind_latest: int | None = None
    next_shard_iterator: str | None = None


decode_records = msgspec.json.Decoder(_Answer).decode
decode_headers = msgspec.json.Decoder(_HeadersAnswer).decode


def _keep_the_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Passes on a successful answer's body unparsed. botocore parses an error's body."""
    if response_dict["status_code"] == 200:
        customized_response_dict["Body"] = response_dict["body"]
        response_dict["body"] = b"{}"


class BotoStreamClient:
    """One stream on AWS or an emulator. Thread-safe. It does not pickle: create it in the process that uses it."""

    def __init__(self, options: KinesisOptions, *, connections: int = 10) -> None:
        self._stream = options.stream
        self._target = {"StreamARN": options.stream_arn} if options.stream_arn else {"StreamName": options.stream}
        self._arn = {"StreamARN": options.stream_arn} if options.stream_arn else {}
        self._client = _boto_client(options, connections)
        self._client.meta.events.register("before-parse.kinesis.GetRecords", _keep_the_body)

    def list_shards(self) -> list[Shard]:
        found: list[Shard] = []
        request: dict[str, Any] = dict(self._target)
        while True:
            with self._translated("list shards"):
                answer = self._client.list_shards(**request)
            for shard in answer["Shards"]:
                numbers, hashes = shard["SequenceNumberRange"], shard["HashKeyRange"]
                parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
                found.append(
                    Shard(
                        shard_id=shard["ShardId"],
                        parents=tuple(parent for parent in parents if parent),
                        starting_sequence=numbers["StartingSequenceNumber"],
                        ending_sequence=numbers.get("EndingSequenceNumber"),
                        hash_keys=(int(hashes["StartingHashKey"]), int(hashes["EndingHashKey"])),
                    )
                )
            if not answer.get("NextToken"):
                return found
            # AWS: a request with NextToken may not have the stream's name, but has to have its ARN.
            request = {"NextToken": answer["NextToken"], **self._arn}

    def summary(self) -> StreamSummary:
        with self._translated("describe the stream"):
            found = self._client.describe_stream_summary(**self._target)["StreamDescriptionSummary"]
        return StreamSummary(found["RetentionPeriodHours"], found.get("StreamCreationTimestamp"))

    def iterator(self, shard_id: str, position: Position, *, inclusive: bool = False) -> str:
        request: dict[str, Any] = {"ShardId": shard_id, "ShardIteratorType": _ITERATOR_TYPES[position.kind]}
        if position.kind is Kind.AFTER:
            request["StartingSequenceNumber"] = position.sequence
            if inclusive:
                request["ShardIteratorType"] = "AT_SEQUENCE_NUMBER"
        elif position.moment is not None:
            # botocore cuts off fractions of a second; planner and readers skip what arrived before the moment.
            request["Timestamp"] = int(position.moment.timestamp())
        try:
            with self._translated(f"open shard {shard_id} at {position}", position):
                answer = self._client.get_shard_iterator(**self._target, **request)
        except StreamNotFoundError as error:
            # Some servers answer so for a sequence number that they do not know.
            self.summary()  # raises StreamNotFoundError as well if it is the stream that does not exist
            raise PositionGoneError(
                f"stream {self._stream}: the position {position} of shard {shard_id} is not in the stream"
            ) from error
        return str(answer["ShardIterator"])

    def records(self, iterator: str, limit: int) -> Page[Record]:
        return self._page(decode_records, iterator, limit)

    def headers(self, iterator: str, limit: int) -> Page[RecordHeader]:
        return self._page(decode_headers, iterator, limit)

    def _page(self, decode: Any, iterator: str, limit: int) -> Page[Any]:
        with self._translated("read records"):
            answer = self._client.get_records(ShardIterator=iterator, Limit=limit, **self._arn)
        body = answer["Body"]
        try:
            found = decode(body)
        except msgspec.MsgspecError as error:
            # A proxy's page, or a truncated answer, with status 200.
            raise TransientSourceError(
                f"stream {self._stream}: read records: status 200 with a body of {len(body)} bytes that is no "
                f"GetRecords answer: {error}"
            ) from error
        return Page(
            records=found.records,
            next_iterator=found.next_shard_iterator or None,
            millis_behind=found.millis_behind_latest or 0,
            served_at=_served_at(answer),
            body_bytes=len(body),
            full=len(found.records) >= limit or len(body) >= _FULL_BODY,
        )

    @contextmanager
    def _translated(self, what: str, position: Position | None = None) -> Iterator[None]:
        """Raises botocore's errors as the source's own; `what` is being done: `"list shards"`, at `position`."""
        where = f"stream {self._stream}: {what}"
        try:
            yield
        except ClientError as error:
            raise _translate(error, where, position) from error
        except NoCredentialsError as error:
            raise StreamAccessError(
                f"{where}: no AWS credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except EndpointConnectionError as error:
            raise TransientSourceError(f"{where}: {error}; is it running and reachable from here?") from error
        except BotoCoreError as error:
            raise TransientSourceError(f"{where}: {error}") from error


def _translate(error: ClientError, where: str, position: Position | None) -> SourceError:
    """An error that AWS answered, as one of the source's own."""
    answer = error.response.get("Error", {})
    code, message = str(answer.get("Code", "")), answer.get("Message", "")
    if code == "ExpiredIteratorException":
        return ExpiredIteratorError(f"{where}: {message}")
    if code in _THROTTLES:
        return ThrottledError(f"{where}: {code}: {message}")
    if code == "InvalidArgumentException" and _is_ahead(position, _served_at(error.response)):
        return FutureTimeError(f"{where}: {code}: {message}; the server's clock has not reached this time")
    if code == "InvalidArgumentException" or (code == _MISSING and "Shard shardId-" in message):
        return PositionGoneError(f"{where}: {code}: {message}")
    if code.startswith("KMS"):
        return SourceConfigurationError(
            f"{where}: {code}: {message}; the stream is encrypted: allow kms:Decrypt on its key"
        )
    if code in _DENIED:
        return StreamAccessError(f"{where}: AWS refused ({code}: {message}); check the role's policy")
    if code == _MISSING:
        return StreamNotFoundError(f"{where}: does not exist ({code}: {message}); check name, region and account")
    return TransientSourceError(f"{where}: {code}: {message}")


def _is_ahead(position: Position | None, now: float) -> bool:
    """Whether the position is a time that one of the server's clocks has not reached."""
    moment = position.moment if position is not None else None
    return moment is not None and moment.timestamp() > now - _CLOCK_SKEW


def _served_at(answer: Mapping[str, Any]) -> float:
    """The server's clock, in seconds since 1970."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()


@lru_cache(maxsize=1)
def _models() -> Any:
    return botocore.loaders.create_loader()


def _session() -> Any:
    """A new session sees a changed environment; AWS's models on disk are read once a process."""
    session = botocore.session.Session()
    session.register_component("data_loader", _models())
    return session


def _boto_client(options: KinesisOptions, connections: int) -> Any:
    if not options.region:
        raise SourceConfigurationError(
            "no AWS region: set AWS_REGION, a region in the AWS profile, or the option 'region'"
        )
    session = _session()
    if options.role_arn:
        session._credentials = _role_credentials(options)
    return session.create_client(
        "kinesis",
        region_name=options.region,
        endpoint_url=options.endpoint_url,
        config=Config(
            # `RetryingClient` retries.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=connections,
            connect_timeout=5,
            read_timeout=30,
            tcp_keepalive=True,
            parameter_validation=False,
            user_agent_extra="movement-lake",
        ),
    )


def _role_credentials(options: KinesisOptions) -> DeferredRefreshableCredentials:
    """Credentials of the option `roleArn`. They renew themselves, because a query outlives a session."""
    request = {"RoleArn": options.role_arn, "RoleSessionName": options.role_session_name}
    if options.role_external_id:
        request["ExternalId"] = options.role_external_id
    sts = _session().create_client("sts", region_name=options.region, endpoint_url=options.sts_endpoint_url)
    return DeferredRefreshableCredentials(
        refresh_using=create_assume_role_refresher(sts, request), method="sts-assume-role"
    )


_LOCK = threading.Lock()


@lru_cache(maxsize=8)
def _cached(options: _Hashable) -> BotoStreamClient:
    return BotoStreamClient(options.options)


class _Hashable:
    """Options as a cache key: everything that a client depends on."""

    def __init__(self, options: KinesisOptions) -> None:
        self.options = options
        self._key = (
            options.stream_arn or options.stream,
            options.region,
            options.endpoint_url,
            options.role_arn,
            options.role_session_name,
            options.role_external_id,
            options.sts_endpoint_url,
        )

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and self._key == other._key


def worker_client(options: KinesisOptions) -> BotoStreamClient:
    """The client of this process: Spark reuses Python workers, and making a client costs some 50 ms."""
    with _LOCK:
        return _cached(_Hashable(options))
