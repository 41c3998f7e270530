"""Two jobs on one checkpoint by mistake: the second stops with a clear error, the first continues unaffected."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from jobs.lake.store import lake_at
from tests.helpers.job_process import FAST, Job, Producer, drain, wait_until
from tests.helpers.lake_audit import audit, ledger
from tests.helpers.lakes import make_lake

pytestmark = [pytest.mark.spark, pytest.mark.aws, pytest.mark.nightly]


def test_the_second_job_stops_and_the_first_continues(embedded_aws: object, tmp_path: Path) -> None:
    settings = make_lake(tmp_path, *FAST)
    lake = lake_at(settings.lake)
    with Producer(settings) as producer:
        first = Job(settings, tmp_path / "first.log")
        try:
            wait_until(lambda: len(ledger(lake)) > 0, 90, "the first job's first batch")
            second = Job(settings, tmp_path / "second.log")
            assert second.wait(90) == 1, second.tail()
            output = second.tail()
            assert f"another job on the checkpoint {settings.checkpoint} runs as process {first.process.pid}" in output
            assert "Traceback" not in output
            before = len(ledger(lake))
            wait_until(lambda: len(ledger(lake)) > before, 60, "a batch of the first job after the second ended")
            assert first.process.poll() is None, first.tail()
            first.process.send_signal(signal.SIGTERM)
            assert first.wait(60) == 0, first.tail()
        finally:
            first.lose_machine()
    drain(settings, tmp_path / "drain.log")
    audit(settings, producer.accepted)
    assert "deleted" not in (tmp_path / "drain.log").read_text(encoding="utf-8"), "a clean end leaves no files"
