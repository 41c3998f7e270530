"""The HTTP API: `POST /uber_movement` → Kinesis. From: whoever posts. Next: `group_commit`.

A request is answered with success only once Kinesis has accepted its records. What a body holds never reaches a
log: only counts, reasons and the fields' names do.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from jobs.common.errors import AwsAccessError, ConfigurationError
from jobs.schema.rejections import MISSING_FIELD, Rejection
from jobs.schema.table import TableContract, load_contract
from jobs.settings.settings import Settings
from producer.api_batcher import ApiBatcher, OverloadedError
from producer.api_docs import DESCRIPTION, post_documentation
from producer.api_metrics import Metrics
from producer.put_records import PutClient, PutRecordsClient, PutResult, kinesis_client
from producer.record_encoder import Record, RecordEncoder
from producer.stream_info import max_record_bytes, shard_map

# A secret is no setting: it comes from the environment. Several, separated by commas, allow for a change of keys.
API_KEY_VARIABLE = "MOVEMENT_API_KEY"
# How `movement serve --workers` hands its settings to the processes that uvicorn starts.
SETTINGS_VARIABLE = "MOVEMENT_API_SETTINGS"
RETRY_AFTER_SECONDS = "1"

_encode = msgspec.json.Encoder().encode
# A number with a fraction keeps its own text: 1.50 goes to the stream as 1.50.
_decode = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode("ascii"))).decode


class _Refused(Exception):
    """Ends a request with this status; `content` goes to the client as JSON."""

    def __init__(self, status: int, content: dict[str, Any], **headers: str) -> None:
        super().__init__(f"{status}")
        self.status, self.content = status, content
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _refused(status: int, error: str, **headers: str) -> _Refused:
    return _Refused(status, {"success": False, "error": error}, **headers)


class Ingest:
    """What `POST /uber_movement` does, apart from HTTP's frame."""

    def __init__(self, contract: TableContract, settings: Settings, record_bytes: int, commit: ApiBatcher) -> None:
        self._settings = settings.api
        self._encoder = RecordEncoder(contract, record_bytes)
        self._commit = commit
        self.metrics = Metrics(commit)

    async def post(self, request: Request, partial: bool) -> dict[str, Any]:
        """Reads, checks and puts the body's records. Raises _Refused with the status to answer."""
        content = self._parse(await self._body(request))
        given = content if isinstance(content, list) else [content]
        if not given:
            raise _refused(422, "the list is empty")
        records, rejected = self._check(given)
        if rejected and not (partial and records):
            too_large = all(one["errors"][0]["reason"] == "too_large" for one in rejected)
            raise _Refused(
                413 if too_large else 422,
                {
                    "success": False,
                    "error": f"{len(rejected)} of {len(given)} records were rejected; none was sent",
                    "rejected": rejected,
                },
            )
        return await self._put(records, len(given), rejected)

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.max_body_bytes
        too_large = _refused(413, f"the body is larger than {limit} bytes")
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise too_large
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise too_large
        return bytes(body)

    def _parse(self, body: bytes) -> Any:
        try:
            return _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _refused(400, "the body is not JSON in UTF-8") from None

    def _check(self, given: list[Any]) -> tuple[list[tuple[int, Record]], list[dict[str, Any]]]:
        records: list[tuple[int, Record]] = []
        rejected: list[dict[str, Any]] = []
        for index, one in enumerate(given):
            if not isinstance(one, dict):
                rejected.append(_complaint(index, [Rejection("not_an_object")]))
                continue
            complaints = self._encoder.rejections(one)
            if not complaints:
                encoded = self._encoder.encode(one)
                if isinstance(encoded, Record):
                    records.append((index, encoded))
                    continue
                complaints = [encoded]
            rejected.append(_complaint(index, complaints))
        for one in rejected:
            self.metrics.rejected.labels(one["errors"][0]["reason"]).inc()
        return records, rejected

    async def _put(
        self, records: list[tuple[int, Record]], count: int, rejected: list[dict[str, Any]]
    ) -> dict[str, Any]:
        if len(records) > self._settings.max_pending_records:
            raise _refused(
                413, f"more than {self._settings.max_pending_records} records; send them in several requests"
            )
        try:
            placed = await self._commit.put([record for _, record in records], self._settings.timeout_seconds)
        except OverloadedError as error:
            raise _refused(429, str(error), Retry_After=RETRY_AFTER_SECONDS) from error
        except AwsAccessError:
            # The reason names the account's insides, so it is for the log and /healthz, not for the client.
            raise _refused(503, "the stream does not take records now", Retry_After="30") from None
        answer: list[dict[str, str | None] | None] = [None] * count
        accepted = 0
        for (index, _), where in zip(records, placed, strict=True):
            if where is not None:
                accepted += 1
                answer[index] = _where(where)
        result: dict[str, Any] = {"success": accepted == len(records), "accepted": accepted, "records": answer}
        if rejected:
            result["rejected"] = rejected
        if accepted < len(records):
            result["error"] = (
                f"{len(records) - accepted} records were not accepted in time; those without a place may be sent again"
            )
            raise _Refused(503, result, Retry_After=RETRY_AFTER_SECONDS)
        return result


def _where(placed: PutResult) -> dict[str, str | None]:
    return {"sequence_number": placed.sequence_number, "shard_id": placed.shard_id}


def _complaint(index: int, rejections: list[Rejection]) -> dict[str, Any]:
    return {
        "index": index,
        "errors": [
            {"reason": one.reason, "field": one.field}
            | ({"value": one.value} if one.reason != MISSING_FIELD and one.value is not None else {})
            for one in rejections
        ],
    }


def create_app(settings: Settings, *, puts: PutClient | None = None, record_bytes: int | None = None) -> FastAPI:
    """The application. The stream is looked at when it starts: AwsAccessError where it is not there.

    `puts` and `record_bytes` stand in for Kinesis in tests.
    """
    contract = load_contract(settings.contract)
    keys = api_keys()
    state: dict[str, Ingest | ApiBatcher] = {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        commit, limit = _connect(settings, puts, record_bytes)
        ingest = Ingest(contract, settings, limit, commit)
        state["ingest"], state["commit"] = ingest, commit
        yield
        await commit.stop()

    app = FastAPI(title="movement-lake ingest", description=DESCRIPTION, lifespan=lifespan)

    def authorise(request: Request) -> None:
        if not is_allowed(request.headers.get("x-api-key", ""), keys):
            raise _refused(401, "the header X-API-Key is missing or wrong", WWW_Authenticate="ApiKey")

    @app.post("/uber_movement", **post_documentation(contract, bool(keys)))
    async def uber_movement(request: Request) -> Response:
        ingest = state["ingest"]
        assert isinstance(ingest, Ingest)  # noqa: S101  (set before the first request)
        started = time.perf_counter()
        status, headers = 200, {}
        try:
            authorise(request)
            partial = request.query_params.get("partial", "false").lower() in ("true", "1")
            content = await ingest.post(request, partial)
        except _Refused as refused:
            status, content, headers = refused.status, refused.content, refused.headers
        ingest.metrics.requests.labels(str(status)).inc()
        ingest.metrics.seconds.observe(time.perf_counter() - started)
        return Response(_encode(content), status, headers, media_type="application/json")

    @app.get("/healthz", summary="Whether records are accepted now")
    async def healthz() -> Response:
        commit = state["commit"]
        assert isinstance(commit, ApiBatcher)  # noqa: S101
        error = commit.last_error
        content = {
            "status": "ok" if error is None else "failing",
            "stream": settings.stream.name,
            "waiting_records": commit.waiting_records,
            "last_error": type(error).__name__ if error is not None else None,
        }
        return Response(_encode(content), 200 if error is None else 503, media_type="application/json")

    @app.get("/metrics", summary="Counters for Prometheus")
    async def metrics() -> Response:
        ingest = state["ingest"]
        assert isinstance(ingest, Ingest)  # noqa: S101
        text, kind = ingest.metrics.exposition()
        return Response(text, headers={"content-type": kind})

    return app


def _connect(settings: Settings, puts: PutClient | None, record_bytes: int | None) -> tuple[ApiBatcher, int]:
    stream, producer, api = settings.stream.name, settings.producer, settings.api
    find_shards: Callable[[], Any] | None = None
    if puts is None:
        client = kinesis_client(producer.request_timeout_seconds)
        record_bytes = record_bytes or max_record_bytes(client, stream)
        puts = PutRecordsClient(
            stream,
            connections=producer.max_in_flight,
            timeout_seconds=producer.request_timeout_seconds,
            detailed=True,
        )
        find_shards = lambda: shard_map(client, stream)  # noqa: E731
    commit = ApiBatcher(
        puts,
        max_in_flight=producer.max_in_flight,
        linger_seconds=api.linger_ms / 1000,
        max_records=api.max_pending_records,
        max_bytes=api.max_pending_bytes,
        max_request_bytes=producer.max_request_bytes,
        keep_order=producer.keep_order,
        find_shards=find_shards,
    )
    return commit, record_bytes or 1024 * 1024


def api_keys() -> list[bytes]:
    """The keys that the environment allows; none: everybody may."""
    return [key.strip().encode() for key in os.environ.get(API_KEY_VARIABLE, "").split(",") if key.strip()]


def is_allowed(given: str, keys: list[bytes]) -> bool:
    """Whether a key is one of `keys`, or none is asked for."""
    # Every key is compared, each in constant time: how long it takes says nothing of how near a guess was.
    return not keys or bool(sum(hmac.compare_digest(given.encode(), key) for key in keys))


def settings_from_environment() -> Settings:
    """The settings that `movement serve` handed down to this worker process."""
    handed = os.environ.get(SETTINGS_VARIABLE)
    if not handed:
        raise ConfigurationError(f"{SETTINGS_VARIABLE} is not set; start the API by `movement serve`")
    return Settings.model_validate_json(handed)
