"""The HTTP API: `POST /<name of the contract>`, or `/records`. Checks JSON records and passes them to `api_batcher`.

The answer is a success only once Kinesis has accepted the records. No content of a body is ever logged: only counts,
reasons and the names of fields.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from jobs.common.errors import AwsAccessError, ConfigurationError
from jobs.schema.table import TableContract, load_contract
from jobs.settings.settings import Settings
from producer.api_access import allowed_hosts, api_keys, is_allowed, may_read
from producer.api_batcher import ApiBatcher, OverloadedError
from producer.api_body import BodyReader
from producer.api_checks import CheckedRecords, check
from producer.api_docs import DESCRIPTION, HEALTH_RESPONSES, METRICS_RESPONSES, page, post_documentation
from producer.api_errors import HttpError, http_error
from producer.api_metrics import ApiMetrics
from producer.put_records import PutRecordsClient, kinesis_client
from producer.record_encoder import RecordEncoder
from producer.stream_info import max_record_bytes, shard_map

# `movement serve --workers` passes its settings to uvicorn's processes in this variable.
SETTINGS_VARIABLE = "MOVEMENT_API_SETTINGS"
RETRY_AFTER_SECONDS = "1"

_encode = msgspec.json.Encoder().encode
# Larger bodies are decoded and checked one at a time: 4 KB may be a thousand empty objects, which take about 10 ms.
LARGE_BYTES = 4096
# A request whose client left, or did not send it in time, is counted with nginx's status for it.
CLIENT_CLOSED = 499


class Ingest:
    """Handles a POST of records: body, checks and the answer's content."""

    def __init__(self, contract: TableContract, settings: Settings, record_bytes: int, batcher: ApiBatcher) -> None:
        self._settings = settings.api
        self._bodies = BodyReader(settings.api)
        self._large = asyncio.Lock()
        self._encoder = RecordEncoder(contract, record_bytes)
        self.batcher = batcher
        self.metrics = ApiMetrics(batcher)

    async def post(self, request: Request, partial: bool) -> dict[str, Any]:
        """Puts the body's record, or list of records, and returns the answer. Raises HttpError for a status but 200.

        With `partial` the valid records of a list are put even if others are rejected.
        """
        with self._bodies.reading() as receive:
            body = await receive(request)
            # One large body at a time is decoded and checked, so that other requests get their turn in between.
            async with self._large if len(body) > LARGE_BYTES else nullcontext():
                checked = await self._check(self._bodies.decode(body))
            del body
        if checked.rejected and not (partial and checked.records):
            raise HttpError(
                413 if checked.all_too_large else 422,
                {
                    "success": False,
                    "error": f"{checked.rejected} of {checked.count} records were rejected; none was sent",
                    **checked.rejections(),
                },
            )
        return await self._put(checked)

    async def _check(self, content: Any) -> CheckedRecords:
        given = content if isinstance(content, list) else [content]
        most = self._settings.max_pending_records
        if not given:
            raise http_error(422, "the list is empty")
        if len(given) > most:
            raise http_error(413, f"{len(given)} records in one request; at most {most} are allowed")
        checked = await check(given, self._encoder)
        for reason, count in checked.reasons.items():
            self.metrics.rejected.labels(reason).inc(count)
        return checked

    async def _put(self, checked: CheckedRecords) -> dict[str, Any]:
        records = checked.records
        try:
            results = await self.batcher.put([record for _, record in records], self._settings.timeout_seconds)
        except OverloadedError as error:
            raise http_error(429, str(error), Retry_After=RETRY_AFTER_SECONDS) from error
        except AwsAccessError:
            # AWS's message contains details of the account, which the client must not see.
            raise http_error(503, "the stream does not accept records at the moment", Retry_After="30") from None
        answer: list[dict[str, str | None] | None] = [None] * checked.count
        accepted = 0
        for (index, _), result in zip(records, results, strict=True):
            if result is not None:
                accepted += 1
                answer[index] = {"sequence_number": result.sequence_number, "shard_id": result.shard_id}
        content: dict[str, Any] = {"success": accepted == len(records), "accepted": accepted, "records": answer}
        if checked.rejected:
            content |= checked.rejections()
        if accepted < len(records):
            content["error"] = (
                f"{len(records) - accepted} records were not accepted in time; their entry is null, send them again"
            )
            raise HttpError(503, content, Retry_After=RETRY_AFTER_SECONDS)
        return content


def record_paths(contract: TableContract) -> list[str]:
    """The paths that accept records, all alike: the contract's own first."""
    # Clients of the travel times' API have used this path since before it had the contract's name.
    earlier = ["/uber_movement"] if contract.name == "travel_times" else []
    return list(dict.fromkeys([f"/{contract.name}", "/records", *earlier]))


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

    app = FastAPI(
        title="movement-lake ingest",
        description=DESCRIPTION,
        lifespan=lifespan,
        # FastAPI's pages load their scripts from another host.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(settings.api, keys), www_redirect=False)
    documentation = post_documentation(contract, bool(keys), settings.api.max_pending_records)

    async def post(request: Request) -> Response:
        ingest = state["ingest"]
        started = time.perf_counter()
        status, headers = 200, {}
        try:
            if not is_allowed(request.headers.get("x-api-key", ""), keys):
                raise http_error(401, "the header X-API-Key is missing or wrong", WWW_Authenticate="ApiKey")
            content = await ingest.post(request, _is_partial(request))
        except HttpError as error:
            status, content, headers = error.status, error.content, error.headers
        except ClientDisconnect:
            status, content = CLIENT_CLOSED, {"success": False, "error": "the body is not complete"}
        ingest.metrics.requests.labels(str(status)).inc()
        ingest.metrics.seconds.observe(time.perf_counter() - started)
        return Response(_encode(content), status, headers, media_type="application/json")

    for path in record_paths(contract):
        # Starlette's route is found first and answers. FastAPI's, which costs more for each request, documents it.
        app.add_route(path, post, methods=["POST"], include_in_schema=False)
        app.post(path, **documentation)(post)

    @app.get("/healthz", summary="Whether records are accepted now", responses=HEALTH_RESPONSES)
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

    def check_key(request: Request) -> None:
        if not may_read(request, keys):
            raise HTTPException(
                401, "a key is required: X-API-Key, or the password", {"WWW-Authenticate": 'Basic realm="movement"'}
            )

    @app.get(
        "/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse, responses=METRICS_RESPONSES
    )
    async def metrics(request: Request) -> Response:
        check_key(request)
        text, content_type = state["ingest"].metrics.exposition()
        return Response(text, headers={"content-type": content_type})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        check_key(request)
        return Response(_encode(app.openapi()), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        check_key(request)
        return Response(
            page(app.openapi()),
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
            media_type="text/html; charset=utf-8",
        )

    return app


def _is_partial(request: Request) -> bool:
    given = request.query_params.get("partial", "false")
    if given.lower() not in ("true", "false"):
        raise http_error(422, f"partial is {given[:100]!r}; send true or false")
    return given.lower() == "true"


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


def settings_from_environment() -> Settings:
    """The settings that `movement serve` passed to this worker process."""
    passed = os.environ.get(SETTINGS_VARIABLE)
    if not passed:
        raise ConfigurationError(f"{SETTINGS_VARIABLE} is not set; start the API with `movement serve`")
    return Settings.model_validate_json(passed)
