"""Log lines, as text or as JSON, an object each, for a log that programs search (`observe.log_format: json`).

Messages name paths, and paths hold text of records: what could make a terminal do something is escaped in both.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from jobs.common.terminal_text import printable
from jobs.settings.sections import ObserveSettings

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class TextLines(logging.Formatter):
    """A line of text for people."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class JsonLines(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …}`, and the fields of a line that has some."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": printable(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = printable(self.formatException(record.exc_info))
        return printable(json.dumps(line, ensure_ascii=False, default=str))


def log_to_stderr(settings: ObserveSettings | None = None) -> None:
    """Our logging on standard error, in the form that the settings say; called again, it changes the form."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it says where it found credentials, for every client
    if settings is not None and settings.log_format == "json":
        for each in logging.getLogger().handlers:
            each.setFormatter(JsonLines())
