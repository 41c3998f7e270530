"""Keeps the catalog right while the streaming job runs: at its start and every ten minutes, in a thread.

A partition, a table or the database may be dropped, or a partition pointed elsewhere, by a crawler, MSCK or a person.
`GlueCatalog.register` sees only partitions that are new to the job; this finds the others (jobs/catalog/check.py).
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from jobs.catalog.check import stream_check
from jobs.settings.settings import Settings

log = logging.getLogger(__name__)

EVERY_SECONDS = 600.0
# A check of a very large catalog takes long: the checks then take at most a fiftieth of the time, up to this pause.
PAUSE_FACTOR = 50
LONGEST_PAUSE_SECONDS = 3600.0
# How long the end of the job waits for the first check.
_END_SECONDS = 60.0


class CatalogWatch:
    """`with CatalogWatch(settings, stop):` around the query's life.

    A check that fails is a warning: the job goes on, and the next check tries again. At the end the first check is
    completed, so that short runs repair the catalog too, unless the job was told to `stop`.
    """

    def __init__(self, settings: Settings, stop: threading.Event, every_seconds: float = EVERY_SECONDS) -> None:
        self._settings, self._stop, self._every_seconds = settings, stop, every_seconds
        self._ended, self._checked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalog", daemon=True)

    def __enter__(self) -> CatalogWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        deadline = time.monotonic() + _END_SECONDS
        while error is None and not self._stop.is_set() and not self._checked.wait(0.2):
            if time.monotonic() > deadline:
                log.warning("the catalog was not compared with the lake: it takes long; run `movement catalog check`")
                return

    def _run(self) -> None:
        while not self._ended.is_set() or not self._checked.is_set():
            started = time.monotonic()
            try:
                self._repair()
            except Exception as error:  # noqa: BLE001 - a check that fails must not end the job
                log.warning("the catalog could not be compared with the lake; the next check tries again: %s", error)
            finally:
                self._checked.set()
            pause = min(PAUSE_FACTOR * (time.monotonic() - started), LONGEST_PAUSE_SECONDS)
            self._ended.wait(max(self._every_seconds, pause))

    def _repair(self) -> None:
        result = stream_check(self._settings).repair()
        for each in result.found:
            if each.missing or each.unregistered or each.elsewhere:
                log.warning(
                    "catalog, table %s: %d partitions were not registered, %d were elsewhere: repaired",
                    each.table, len(each.unregistered), len(each.elsewhere),
                )  # fmt: skip
        for partition, why in result.left.items():
            log.warning("catalog: %s could not be repaired: %s", partition, why)
