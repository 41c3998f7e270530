"""One call in twenty is throttled, fails, is slow or loses its connection: the job ends with the right result."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jobs.lake.store import lake_at
from local.server import RunningServer
from tests.helpers.bad_network import KINDS, BadNetwork
from tests.helpers.job_process import FAST, Job, Producer, wait_until
from tests.helpers.lake_audit import audit, ledger
from tests.helpers.lakes import make_lake

pytestmark = [pytest.mark.spark, pytest.mark.aws, pytest.mark.nightly]
log = logging.getLogger(__name__)


def test_the_result_is_right_although_one_call_in_twenty_fails(embedded_aws: RunningServer, tmp_path: Path) -> None:
    settings = make_lake(tmp_path, *FAST)
    with BadNetwork(embedded_aws.endpoint, share=0.05) as network:
        with Producer(settings) as producer:
            job = Job(settings, tmp_path / "job.log", endpoint=network.endpoint)
            try:
                wait_until(
                    lambda: all_kinds_happened(network) and len(ledger(lake_at(settings.lake))) > 1,
                    180,
                    "every kind of fault",
                )
                assert job.process.poll() is None, job.tail()
                job.process.terminate()
                assert job.wait(90) == 0, job.tail()
            finally:
                job.lose_machine()
        last = Job(settings, tmp_path / "last.log", until_drained=True, endpoint=network.endpoint)
        assert last.wait(180) == 0, last.tail()
        last.lose_machine()
    entries = audit(settings, producer.accepted)
    log.info("%d batches, %d records; %s", len(entries), len(producer.accepted), dict(network.done))


def all_kinds_happened(network: BadNetwork) -> bool:
    """Whether each kind of fault has happened."""
    return {fault for _, fault in network.done} >= set(KINDS)
