"""Log lines on standard error: as text, or as one JSON object a line for a log that programs search.

A message may contain a path, and a path may contain text of a record. Both forms therefore escape control characters.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal

from jobs.common.terminal_text import printable


class TextLines(logging.Formatter):
    """A line of text for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class JsonLines(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …}`, with the record's attribute `fields` added."""

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


def log_to_stderr(log_format: Literal["text", "json"] = "text") -> None:
    """Sets up logging to standard error. A second call with `json` changes the format of the existing handlers."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("botocore").setLevel(logging.WARNING)  # at INFO it logs each client's source of credentials
    if log_format == "json":
        for existing in logging.getLogger().handlers:
            existing.setFormatter(JsonLines())
