"""The log of a command that runs Spark: one file in `local.state_dir`, for our own log lines and Spark's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.settings.settings import Settings


def log_path(settings: Settings, name: str) -> Path:
    """The command's log file."""
    return Path(settings.local.state_dir).expanduser().absolute() / f"{name}.log"


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Sends our own log lines to the file while the block runs; Spark gets the same path."""
    from jobs.common.logging import TextLines

    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(TextLines())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
