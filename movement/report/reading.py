"""Reads a lake into `model.ReportData`, for `movement report`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from jobs.lake.store import lake_at
from jobs.settings.settings import Settings
from movement.report.gold import GoldTables
from movement.report.model import ReportData
from movement.report.pipeline import PipelineReader


def read_report(settings: Settings, on_step: Callable[[str], None] = lambda _: None) -> ReportData:
    """Reads the page's data. Raises AwsAccessError, TransientError or TerminalError, naming the file or table."""
    on_step("reading the ledger")
    pipeline = PipelineReader(lake_at(settings.lake), settings.report.max_batches).read()
    on_step("reading the gold tables")
    gold = GoldTables(settings.lake).read(settings.report.max_rows)
    return ReportData(datetime.now(UTC), settings.stream.name, settings.lake, settings.database, gold, pipeline)
