"""A task's memory stays bounded with large records, rejected records and many partitions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


@pytest.mark.nightly
@pytest.mark.spark  # without Spark, but takes half a minute
@pytest.mark.parametrize("case", ["10 MB", "many partitions"])
def test_a_task_stays_within_its_memory_limit(case: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.helpers.memory_probe", case, "600", str(tmp_path / "lake")],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=300,
    )
    grown, read, _ = map(int, found.stdout.split())
    assert read >= 600
    # Buffered rows, a row group being sorted, a block as bytes, text, columns and lines. Measured: 120 and 210 MB.
    assert grown < 300, f"{case}: {grown} MB more for {read} MB of records"
