"""The command `movement` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from jobs.settings.settings import Settings
from tests.helpers.paths import ROOT


def movement(*arguments: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "movement", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}


def stream_options(settings: Settings, folder: Path, *overrides: str) -> list[str]:
    """The options by which a command works on the lake and the stream of `settings`. Its log is in `folder`."""
    values = [
        f"lake={settings.lake}",
        f"database={settings.database}",
        f"stream.name={settings.stream.name}",
        f"local.state_dir={folder}",
        *overrides,
    ]
    return [part for value in values for part in ("--set", value)]
