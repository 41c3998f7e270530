"""The log of a command that runs Spark: one file in `local.state_dir`, for our own log lines and Spark's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.common.errors import ConfigurationError
from movement.cli.console import note

if TYPE_CHECKING:
    from jobs.settings.settings import Settings


def log_path(settings: Settings, name: str) -> Path:
    """The command's log file."""
    return Path(settings.local.state_dir).expanduser().absolute() / f"{name}.log"


class _LogFile(logging.FileHandler):
    """A log file on a disk that may become full: the command goes on, and says once that lines are missing."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Replaces logging's traceback for each line."""
        if not self._failed:
            self._failed = True
            note(f"lines are missing in {self.baseFilename}: {sys.exc_info()[1]}")


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Sends our own log lines to the file while the block runs; Spark gets the same path.

    An error that ends the block is logged with its traceback, and its message gets the log's path. Raises
    ConfigurationError if the file cannot be written.
    """
    from jobs.common.logging import TextLines

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path)
    except OSError as error:
        raise ConfigurationError(
            f"the log {path} cannot be written: {error.strerror}; set local.state_dir to a folder of your own"
        ) from error
    handler.setFormatter(TextLines())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        yield
    except Exception as error:
        logging.getLogger(__name__).exception("ended with an error")
        error.add_note(f"log: {path}")
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
