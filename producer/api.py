"""The HTTP API `POST /uber_movement`: reads and checks JSON records and passes them to `api_batcher`.

The answer is a success only once Kinesis has accepted the records. No content of a body is ever logged: only counts,
reasons and the names of fields.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import AsyncIterator
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
from producer.api_metrics import ApiMetrics
from producer.put_records import PutRecordsClient, kinesis_client
from producer.record_encoder import PutRecordsEntry, RecordEncoder
from producer.stream_info import max_record_bytes, shard_map

# Secrets are not settings. Several keys, separated by commas, allow key rotation.
API_KEY_VARIABLE = "MOVEMENT_API_KEY"
# `movement serve --workers` passes its settings to uvicorn's processes in this variable.
SETTINGS_VARIABLE = "MOVEMENT_API_SETTINGS"
RETRY_AFTER_SECONDS = "1"

_encode = msgspec.json.Encoder().encode
# A number with a fraction keeps its text: 1.50 stays 1.50.
_decode = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode("ascii"))).decode


class _HttpError(Exception):
    """Ends the request with this status and the JSON `content`."""

    def __init__(self, status: int, content: dict[str, Any], **headers: str) -> None:
        super().__init__(f"{status}")
        self.status, self.content = status, content
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _http_error(status: int, error: str, **headers: str) -> _HttpError:
    return _HttpError(status, {"success": False, "error": error}, **headers)


class Ingest:
    """Handles `POST /uber_movement`: body, checks and the answer's content."""

    def __init__(self, contract: TableContract, settings: Settings, record_bytes: int, batcher: ApiBatcher) -> None:
        self._settings = settings.api
        self._encoder = RecordEncoder(contract, record_bytes)
        self.batcher = batcher
        self.metrics = ApiMetrics(batcher)

    async def post(self, request: Request, partial: bool) -> dict[str, Any]:
        """Puts the body's record, or list of records, and returns the answer. Raises _HttpError for a status but 200.

        With `partial` the valid records of a list are put even if others are rejected.
        """
        content = self._parse(await self._body(request))
        given = content if isinstance(content, list) else [content]
        if not given:
            raise _http_error(422, "the list is empty")
        records, rejected = self._check(given)
        if rejected and not (partial and records):
            too_large = all(one["errors"][0]["reason"] == "too_large" for one in rejected)
            raise _HttpError(
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
        too_large = _http_error(413, f"the body is larger than {limit} bytes")
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
            raise _http_error(400, "the body is not JSON in UTF-8") from None

    def _check(self, given: list[Any]) -> tuple[list[tuple[int, PutRecordsEntry]], list[dict[str, Any]]]:
        records: list[tuple[int, PutRecordsEntry]] = []
        rejected: list[dict[str, Any]] = []
        for index, one in enumerate(given):
            if not isinstance(one, dict):
                rejected.append(_rejected_record(index, [Rejection("not_an_object")]))
                continue
            rejections = self._encoder.rejections(one)
            if not rejections:
                encoded = self._encoder.encode(one)
                if isinstance(encoded, PutRecordsEntry):
                    records.append((index, encoded))
                    continue
                rejections = [encoded]
            rejected.append(_rejected_record(index, rejections))
        for one in rejected:
            self.metrics.rejected.labels(one["errors"][0]["reason"]).inc()
        return records, rejected

    async def _put(
        self, records: list[tuple[int, PutRecordsEntry]], count: int, rejected: list[dict[str, Any]]
    ) -> dict[str, Any]:
        if len(records) > self._settings.max_pending_records:
            raise _http_error(
                413, f"more than {self._settings.max_pending_records} records; send them in several requests"
            )
        try:
            results = await self.batcher.put([record for _, record in records], self._settings.timeout_seconds)
        except OverloadedError as error:
            raise _http_error(429, str(error), Retry_After=RETRY_AFTER_SECONDS) from error
        except AwsAccessError:
            # AWS's message contains details of the account, which the client must not see.
            raise _http_error(503, "the stream does not accept records at the moment", Retry_After="30") from None
        answer: list[dict[str, str | None] | None] = [None] * count
        accepted = 0
        for (index, _), result in zip(records, results, strict=True):
            if result is not None:
                accepted += 1
                answer[index] = {"sequence_number": result.sequence_number, "shard_id": result.shard_id}
        content: dict[str, Any] = {"success": accepted == len(records), "accepted": accepted, "records": answer}
        if rejected:
            content["rejected"] = rejected
        if accepted < len(records):
            content["error"] = (
                f"{len(records) - accepted} records were not accepted in time; their entry is null, send them again"
            )
            raise _HttpError(503, content, Retry_After=RETRY_AFTER_SECONDS)
        return content


def _rejected_record(index: int, rejections: list[Rejection]) -> dict[str, Any]:
    return {
        "index": index,
        "errors": [
            {"reason": one.reason, "field": one.field}
            | ({"value": one.value} if one.reason != MISSING_FIELD and one.value is not None else {})
            for one in rejections
        ],
    }


def create_app(settings: Settings) -> FastAPI:
    """The application. Its startup raises AwsAccessError if the stream does not exist."""
    contract = load_contract(settings.contract)
    keys = api_keys()
    state: dict[str, Ingest] = {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        state["ingest"] = ingest = _connect(settings, contract)
        yield
        await ingest.batcher.stop()

    app = FastAPI(title="movement-lake ingest", description=DESCRIPTION, lifespan=lifespan)

    def authorise(request: Request) -> None:
        if not is_allowed(request.headers.get("x-api-key", ""), keys):
            raise _http_error(401, "the header X-API-Key is missing or wrong", WWW_Authenticate="ApiKey")

    @app.post("/uber_movement", **post_documentation(contract, bool(keys)))
    async def uber_movement(request: Request) -> Response:
        ingest = state["ingest"]
        started = time.perf_counter()
        status, headers = 200, {}
        try:
            authorise(request)
            partial = request.query_params.get("partial", "false").lower() in ("true", "1")
            content = await ingest.post(request, partial)
        except _HttpError as error:
            status, content, headers = error.status, error.content, error.headers
        ingest.metrics.requests.labels(str(status)).inc()
        ingest.metrics.seconds.observe(time.perf_counter() - started)
        return Response(_encode(content), status, headers, media_type="application/json")

    @app.get("/healthz", summary="Whether records are accepted now")
    async def healthz() -> Response:
        batcher = state["ingest"].batcher
        error = batcher.last_error
        content = {
            "status": "ok" if error is None else "failing",
            "stream": settings.stream.name,
            "waiting_records": batcher.pending_records,
            "last_error": type(error).__name__ if error is not None else None,
        }
        return Response(_encode(content), 200 if error is None else 503, media_type="application/json")

    @app.get("/metrics", summary="Counters for Prometheus")
    async def metrics() -> Response:
        text, content_type = state["ingest"].metrics.exposition()
        return Response(text, headers={"content-type": content_type})

    return app


def _connect(settings: Settings, contract: TableContract) -> Ingest:
    stream, producer, api = settings.stream.name, settings.producer, settings.api
    client = kinesis_client(producer.request_timeout_seconds)
    record_bytes = max_record_bytes(client, stream)
    batcher = ApiBatcher(
        PutRecordsClient(
            stream,
            connections=producer.max_in_flight,
            timeout_seconds=producer.request_timeout_seconds,
            detailed=True,
        ),
        max_in_flight=producer.max_in_flight,
        linger_seconds=api.linger_ms / 1000,
        max_records=api.max_pending_records,
        max_bytes=api.max_pending_bytes,
        max_request_bytes=producer.max_request_bytes,
        keep_order=producer.keep_order,
        find_shards=lambda: shard_map(client, stream),
    )
    return Ingest(contract, settings, record_bytes, batcher)


def api_keys() -> list[bytes]:
    """The keys of MOVEMENT_API_KEY. An empty list: no key is required."""
    return [key.strip().encode() for key in os.environ.get(API_KEY_VARIABLE, "").split(",") if key.strip()]


def is_allowed(given: str, keys: list[bytes]) -> bool:
    """Whether `given` is one of `keys`, or no key is required."""
    # Compares with every key in constant time, so that the duration reveals nothing about a guess.
    return not keys or bool(sum(hmac.compare_digest(given.encode(), key) for key in keys))


def settings_from_environment() -> Settings:
    """The settings that `movement serve` passed to this worker process."""
    passed = os.environ.get(SETTINGS_VARIABLE)
    if not passed:
        raise ConfigurationError(f"{SETTINGS_VARIABLE} is not set; start the API with `movement serve`")
    return Settings.model_validate_json(passed)
