"""The live page of `movement serve`: its routes, and the data behind them.

`/` is the page without data, so it answers at once even if the lake does not. `report/data.json` holds what the page
shows, except the packed numbers: `report/blobs/…` serves those one by one. A key, if one is required, is the password
of HTTP Basic, which every browser can ask for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from jobs.common.errors import MovementError
from jobs.lake.store import lake_at
from jobs.schema.table import TableContract, load_contract
from jobs.settings.settings import Settings
from movement.report.content import gold_meta, pipeline_meta, tables_meta
from movement.report.gold import GoldTables
from movement.report.gold_tables import gold_tables, has_map
from movement.report.page import policy, render_live
from movement.report.pipeline import PipelineReader

log = logging.getLogger(__name__)

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_encode = msgspec.json.Encoder().encode


class LivePage:
    """The page's data, read at most once in `report.refresh_seconds` for all browsers together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._pipelines: PipelineReader | None = None
        self._contract: TableContract | None = None
        self._due_at = float("-inf")
        self._answer: dict[str, Any] = {}
        self._gold: dict[str, Any] | None = None
        self._blobs: dict[str, bytes] = {}

    def data(self, known: str | None) -> dict[str, Any]:
        """The page's JSON. If the lake cannot be read, the answer says so under `problem`.

        `known`: the version of the gold tables that the page has already; if it is current, `cities` is null.
        """
        with self._lock:
            started = time.monotonic()
            if started >= self._due_at:
                self._answer = self._read()
                spent = time.monotonic() - started
                # A lake that is slow to read is read less often, so that an open page does not keep S3 busy.
                pause = max(self._settings.report.refresh_seconds, 10 * spent)
                self._answer["refresh_seconds"] = pause
                self._due_at = started + spent + pause
            answer, gold = dict(self._answer), self._gold
        if gold is not None and known == gold["version"]:
            gold = gold | {"cities": None}
        return answer | {"gold": gold}

    def blob(self, version: str, name: str) -> bytes | None:
        """A blob of this version of the gold tables; None if the version is not current or has no such blob."""
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
            self._contract = self._contract or load_contract(settings.contract)
            answer["map"] = has_map(self._contract)
            answer["pipeline"] = pipeline_meta(self._pipelines.read())
            answer["tables"] = tables_meta(gold_tables(settings.lake, self._contract))
            if answer["map"]:
                self._read_gold()
        except MovementError as error:
            # The error may name roles and buckets of the account, so it goes to the log and not to the browser.
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


def router(settings: Settings, may_read: Callable[[Request], bool]) -> APIRouter:
    """The page's routes. `may_read` decides whether a request shows a key, if one is required."""
    page = LivePage(settings)

    def check_password(request: Request) -> None:
        if not may_read(request):
            raise HTTPException(
                401, "a key is required, as the password", {"WWW-Authenticate": 'Basic realm="movement"'}
            )

    routes = APIRouter(include_in_schema=False, dependencies=[Depends(check_password)])

    @routes.get("/")
    def index() -> Response:
        rules = f"{policy(live=True)}; frame-ancestors 'none'"
        return Response(
            render_live(), headers=_HEADERS | {"Content-Security-Policy": rules}, media_type="text/html; charset=utf-8"
        )

    # Not async: FastAPI runs these on threads, so the event loop can take records meanwhile.
    @routes.get("/report/data.json")
    def data(known: Annotated[str | None, "a version"] = None) -> Response:
        return Response(_encode(page.data(known)), headers=_HEADERS, media_type="application/json")

    @routes.get("/report/blobs/{version}/{name}")
    def blob(version: str, name: str) -> Response:
        found = page.blob(version, name)
        if found is None:
            raise HTTPException(404, "the tables have changed: request report/data.json again")
        return Response(found, headers=_HEADERS, media_type="application/octet-stream")

    return routes
