"""Memory of a task does not grow with what it writes: not with large records, rejected ones or many partitions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


@pytest.mark.spark  # no Spark, but half a minute
@pytest.mark.parametrize("case", ["10 MB", "many partitions"])
def test_a_task_of_many_times_its_memory_stays_within_bounds(case: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.helpers.memory_probe", case, "600", str(tmp_path / "lake")],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=300,
    )
    grown, read, _ = map(int, found.stdout.split())
    assert read >= 600
    # Rows that wait, a row group being sorted, a block in its forms: bytes, texts, columns, lines. 120 and 210 seen.
    assert grown < 300, f"{case}: {grown} MB more for {read} MB of records"
