"""The page as `movement serve` shows it: at `/`, asking for news while it is open.

`/` holds no data, so it is there at once whatever the lake does. `report/data.json` is all that the page shows but
the packed numbers, which `report/blobs/…` hands out one by one. Where the API asks for a key, so does this: by HTTP
Basic, which a browser knows, with the key as the password. Nothing here is on the way of a POST.
"""

from __future__ import annotations

import base64
import binascii
import logging
import threading
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from jobs.common.errors import MovementError
from jobs.lake.store import lake_at
from jobs.settings.settings import Settings
from movement.report.content import gold_meta, pipeline_meta
from movement.report.gold import GoldTables
from movement.report.page import policy, render_live
from movement.report.pipeline import PipelineReader
from producer.api import is_allowed

log = logging.getLogger(__name__)

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_encode = msgspec.json.Encoder().encode


class LivePage:
    """What the page shows, kept for `report.refresh_seconds` at least, however many browsers ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._pipelines: PipelineReader | None = None
        self._due_at = float("-inf")
        self._answer: dict[str, Any] = {}
        self._gold: dict[str, Any] | None = None
        self._blobs: dict[str, bytes] = {}

    def data(self, known: str | None) -> dict[str, Any]:
        """The page's JSON. `known`: the version of the gold tables that the page holds; their part is then left out
        (`cities` null) where it is still the same. Never raises for the lake's sake: the answer says what is wrong."""
        with self._lock:
            begun = time.monotonic()
            if begun >= self._due_at:
                self._answer = self._read()
                spent = time.monotonic() - begun
                # A lake that takes long to read is read less often: no page may keep S3 busy.
                pause = max(self._settings.report.refresh_seconds, 10 * spent)
                self._answer["refresh_seconds"] = pause
                self._due_at = begun + spent + pause
            answer, gold = dict(self._answer), self._gold
        if gold is not None and known == gold["version"]:
            gold = gold | {"cities": None}
        return answer | {"gold": gold}

    def blob(self, version: str, name: str) -> bytes | None:
        """A blob of this version of the gold tables; None where it is another's, or none."""
        with self._lock:
            if self._gold is None or self._gold["version"] != version:
                return None
            return self._blobs.get(name)

    def _read(self) -> dict[str, Any]:
        settings = self._settings
        answer: dict[str, Any] = {
            "generated": datetime.now(UTC).timestamp(),
            "stream": settings.stream.name,
            "lake": settings.lake,
            "database": settings.database,
            "live": True,
            "problem": None,
        }
        try:
            self._pipelines = self._pipelines or PipelineReader(lake_at(settings.lake), settings.report.max_batches)
            answer["pipeline"] = pipeline_meta(self._pipelines.read())
            self._read_gold()
        except MovementError as error:
            # The reason names the account's insides: it is for the log, as the API's reasons are.
            log.warning("the page cannot read %s: %s", settings.lake, error)
            answer["problem"] = {
                "title": f"{settings.lake} cannot be read ({type(error).__name__}).",
                "text": "The server's log says why.",
                "remedy": "Name the lake that `movement stream` writes to: `movement serve --set "
                "lake=s3://bucket/prefix` (or lake: in the file of --config), with credentials that may list and "
                "read it.",
            }
        return answer

    def _read_gold(self) -> None:
        tables = GoldTables(self._settings.lake)
        if self._gold is not None and tables.version() == self._gold["version"]:
            return
        gold = tables.read(self._settings.report.max_rows)
        blobs: dict[str, bytes] = {}
        self._gold = gold_meta(gold, blobs) if gold else None
        self._blobs = blobs


def router(settings: Settings, keys: list[bytes]) -> APIRouter:
    """The page's routes."""
    page = LivePage(settings)

    def allowed(request: Request) -> None:
        if not is_allowed(_password(request.headers.get("authorization", "")), keys):
            raise HTTPException(401, "a key is needed, as the password", {"WWW-Authenticate": 'Basic realm="movement"'})

    routes = APIRouter(include_in_schema=False, dependencies=[Depends(allowed)])

    @routes.get("/")
    def index() -> Response:
        rules = f"{policy(live=True)}; frame-ancestors 'none'"
        return Response(
            render_live(), headers=_HEADERS | {"Content-Security-Policy": rules}, media_type="text/html; charset=utf-8"
        )

    # Plain functions: FastAPI runs them on threads of their own, and the event loop goes on taking records.
    @routes.get("/report/data.json")
    def data(known: Annotated[str | None, "a version"] = None) -> Response:
        return Response(_encode(page.data(known)), headers=_HEADERS, media_type="application/json")

    @routes.get("/report/blobs/{version}/{name}")
    def blob(version: str, name: str) -> Response:
        found = page.blob(version, name)
        if found is None:
            raise HTTPException(404, "the tables have changed: ask for report/data.json again")
        return Response(found, headers=_HEADERS, media_type="application/octet-stream")

    return routes


def _password(authorization: str) -> str:
    """The password of an Authorization header of the kind Basic; empty where it is no such header."""
    kind, _, given = authorization.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
