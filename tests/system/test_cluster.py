"""The packaged release on a real cluster, with the archive as its only Python, while a worker dies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest

from jobs.lake.store import lake_at
from jobs.settings.settings import Settings
from movement.packaging.release import EMR_ENVIRONMENT, package
from tests.helpers.lakes import catalogued, folders, make_lake, put, raw_lines, record, record_numbers
from tests.helpers.standalone_cluster import HOME, Cluster, cluster, machine_environment, tasks_by_executor

pytestmark = [pytest.mark.spark, pytest.mark.aws, pytest.mark.nightly]

RECORDS = 800
BATCH = 200


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with a copy of the installed packages as its environment."""
    folder = tmp_path_factory.mktemp("package") / "release"
    package(folder, {EMR_ENVIRONMENT: None}, level=1, step=lambda _: None)
    return folder


def submit(release: Path, running: Cluster, settings: Settings, folder: Path) -> subprocess.Popen[bytes]:
    """Starts the job by spark-submit as in deploy mode `cluster`: the driver has the unpacked archive too."""
    with tarfile.open(release / EMR_ENVIRONMENT) as archive:
        archive.extractall(folder / "environment", filter="fully_trusted")  # noqa: S202 - our own
    shutil.copyfile(release / "jobs" / "stream_job.py", folder / "stream_job.py")
    (folder / "events").mkdir()
    endpoints = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION")}
    overrides = {
        "lake": settings.lake,
        "database": settings.database,
        "stream.name": settings.stream.name,
        "source.max_records_per_batch": str(BATCH),
        "source.options.bytesPerTask": "0",  # a task for each shard
    }
    conf = {
        "spark.executorEnv.PYSPARK_PYTHON": "./environment/bin/python",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",  # start when both executors have registered
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{folder / 'events'}",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
        "spark.ui.enabled": "false",
    }
    with (folder / "driver.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(str(HOME / "bin" / "spark-submit"), "--master", running.url),
                *("--archives", f"{release / EMR_ENVIRONMENT}#environment"),
                *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")),
                *("stream_job.py", "--config", "emr.yaml", "--until-drained", "--json", "result.json"),
                *(part for key, value in overrides.items() for part in ("--set", f"{key}={value}")),
            ],
            env=machine_environment()
            | endpoints
            | {"PYSPARK_DRIVER_PYTHON": "./environment/bin/python", "PYSPARK_PYTHON": "./environment/bin/python"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def final_batches(settings: Settings) -> int:
    return sum(1 for _ in lake_at(settings.lake).list("_ledger/"))


def busy_executor(log: Path) -> str | None:
    """An executor that runs a task, after both executors have finished one."""
    text = log.read_text(errors="replace")
    started = Counter(re.findall(r"Starting task .*,executor (\d+),", text))
    finished = Counter(re.findall(r"Finished task .* \(executor (\d+)\)", text))
    return next(iter(started - finished), None) if len(finished) == 2 else None


def test_the_packaged_job_runs_on_two_workers_and_one_that_dies_changes_nothing(
    release: Path, embedded_aws: object, tmp_path: Path
) -> None:
    settings = make_lake(tmp_path)
    put(settings, (record(n=n) for n in range(RECORDS)))

    with cluster(tmp_path, workers=2) as running:
        job = submit(release, running, settings, tmp_path)
        try:
            deadline = time.monotonic() + 300
            while (busy := busy_executor(tmp_path / "driver.log")) is None:
                assert job.poll() is None, (tmp_path / "driver.log").read_text()[-4000:]
                assert time.monotonic() < deadline, (tmp_path / "driver.log").read_text()[-4000:]
                time.sleep(0.02)
            running.kill_worker(0 if list((tmp_path / "work0").glob(f"*/{busy}")) else 1)
            before = final_batches(settings)
            assert before < RECORDS // BATCH
            assert job.wait(timeout=300) == 0, (tmp_path / "driver.log").read_text()[-4000:]
        finally:
            if job.poll() is None:
                os.killpg(job.pid, 9)
                job.wait(timeout=30)

    assert final_batches(settings) > before
    assert len(tasks_by_executor(tmp_path / "events")) == 2, "both workers have worked"
    assert record_numbers(settings) == list(range(RECORDS))
    assert len(raw_lines(settings)) == RECORDS
    assert catalogued(settings) == folders(settings)
