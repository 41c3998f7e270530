"""Log lines as JSON, an object each, for a log that programs search (`observe.log: json`)."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from jobs.contract.observe_settings import ObserveSettings

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonLines(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …}`, and the fields of a line that has some."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to_stderr(settings: ObserveSettings | None = None) -> None:
    """Our logging on standard error, in the form that the settings say; called again, it changes the form."""
    logging.basicConfig(level=logging.INFO, format=_TEXT)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it says where it found credentials, for every client
    if settings is not None and settings.log == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
