"""A job that is signalled, killed or refused while it starts: it ends as promised, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.lake.lease import Lease, leases
from jobs.lake.store import lake_at
from jobs.settings.settings import Settings
from tests.helpers.commands import environment, movement, stream_options
from tests.helpers.job_process import FAST, Producer, drain, wait_until
from tests.helpers.lake_audit import audit, ledger
from tests.helpers.lakes import make_lake
from tests.helpers.paths import ROOT
from tests.helpers.process_tree import processes_of_session

pytestmark = [pytest.mark.spark, pytest.mark.aws]


class Started:
    """`movement stream` in a session of its own, with its output in a file."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "movement", "stream", *overrides(settings, folder)],
                cwd=folder,
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_the_jvm(self) -> None:
        """Returns while Spark is starting: spark-submit's shell has become Java."""
        wait_until(lambda: "java" in self.processes().values(), 90, "a JVM")

    def processes(self) -> dict[int, str]:
        return processes_of_session(self.process.pid)

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


def overrides(settings: Settings, folder: Path) -> list[str]:
    return stream_options(settings, folder, "spark.master=local[1]")


@pytest.fixture
def starting(lake_settings: Settings, tmp_path: Path) -> Iterator[Started]:
    """The command while its JVM starts."""
    started = Started(lake_settings, tmp_path)
    try:
        started.wait_for_the_jvm()
        yield started
        wait_until(lambda: not started.processes(), 60, f"the end of {started.processes()}")
    finally:
        for process in started.processes():
            os.kill(process, signal.SIGKILL)
        started.process.wait()


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)],
    ids=["sigterm", "ctrl-c"],
)
def test_a_stop_while_spark_starts_is_held_and_no_query_is_started(
    starting: Started, lake_settings: Settings, number: signal.Signals
) -> None:
    os.killpg(starting.process.pid, number)
    assert starting.process.wait(120) == 0, starting.text()
    assert "Stopped: 0 records in 0 batches" in starting.text()
    assert "Traceback" not in starting.text()
    lake = lake_at(lake_settings.lake)
    assert list(lake.list("_checkpoints/")) == []
    assert [lease.released is not None for lease in leases(lake)] == [True]


def test_a_second_signal_while_spark_starts_ends_the_job_at_once(starting: Started) -> None:
    os.kill(starting.process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.kill(starting.process.pid, signal.SIGINT)
    assert starting.process.wait(20) == 128 + signal.SIGINT, starting.text()
    # The fixture waits until the JVM, which ignores both signals, has ended too.


@pytest.mark.nightly
def test_a_jvm_whose_parent_was_killed_while_it_started_ends_by_itself(starting: Started) -> None:
    starting.process.kill()
    starting.process.wait()


@pytest.mark.parametrize("entry_point", [["movement", "stream"], ["jobs.stream_job"]], ids=["command", "spark-submit"])
def test_a_second_job_on_the_checkpoint_is_refused_before_spark_is_started(
    lake_settings: Settings, tmp_path: Path, entry_point: list[str]
) -> None:
    with Lease(lake_at(lake_settings.lake), lake_settings.checkpoint_name):
        done = subprocess.run(
            [sys.executable, "-m", *entry_point, *overrides(lake_settings, tmp_path)],
            cwd=tmp_path,
            env=environment() | {"JAVA_HOME": "/no/java/here"},  # starting Spark would be another error
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    assert f"another job on the checkpoint {lake_settings.checkpoint} runs as process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_bucket_is_one_line_before_spark_is_started(lake_settings: Settings, tmp_path: Path) -> None:
    settings = lake_settings.model_copy(update={"lake": "s3://no-such-bucket-anywhere/lake"})
    done = movement("stream", *overrides(settings, tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert "s3://no-such-bucket-anywhere/lake" in done.stderr
    assert "does not exist" in done.stderr
    assert f"log: {tmp_path / 'stream.log'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
def test_a_sigterm_to_spark_submit_ends_the_job_after_the_batch(embedded_aws: object, tmp_path: Path) -> None:
    settings = make_lake(tmp_path, *FAST)
    output = tmp_path / "output.txt"
    with Producer(settings) as producer:
        with output.open("wb") as file:
            submit = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("spark-submit")),
                    *("--master", "local[1]", "--conf", "spark.ui.enabled=false"),
                    str(ROOT / "jobs" / "stream_job.py"),
                    *overrides(settings, tmp_path),
                    *("--set", "stream_job.trigger_seconds=0"),
                ],
                cwd=tmp_path,
                env=environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(lambda: len(ledger(lake_at(settings.lake))) > 0, 180, "the first batch")
            submit.terminate()  # the JVM alone, as YARN and Kubernetes do
            code = submit.wait(120)
            text = output.read_text(encoding="utf-8", errors="replace")
            assert code == 0, text[-3000:]
            assert "ended: StreamResult" in text
            assert "Traceback" not in text
            wait_until(lambda: not processes_of_session(submit.pid), 60, "the end of the Python process")
        finally:
            for process in processes_of_session(submit.pid):
                os.kill(process, signal.SIGKILL)
            submit.wait()
    drain(settings, tmp_path / "drain.log")
    audit(settings, producer.accepted)
    assert "deleted" not in (tmp_path / "drain.log").read_text(encoding="utf-8"), "a clean end leaves no files"
