"""The job runner: Glue's states, Glue's arguments, one run at a time, a log for each run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest

from jobs.settings.settings import Settings
from local import server
from local.events import ensure_queue
from local.job_runner import JobRunner, ensure_job, glue_arguments, spark_submit

pytestmark = pytest.mark.aws

SCRIPT = """
import json, os, pathlib, sys, time
pathlib.Path(sys.argv[0]).with_name("arguments.json").write_text(json.dumps(sys.argv[1:]))
print("endpoint", os.environ["AWS_ENDPOINT_URL"], os.environ.get("EXTRA"))
gate = pathlib.Path(sys.argv[0]).with_name("gate")
while "--wait" in sys.argv and not gate.exists():
    time.sleep(0.01)
if "--fail" in sys.argv:
    sys.exit("the input is broken")
"""


class Job:
    """A Glue job whose script is `SCRIPT`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.states: list[tuple[str, str]] = []
        script = folder / "job.py"
        script.write_text(SCRIPT)
        ensure_job(name, str(script), {"--config": "a.yaml", "--table": "default"})
        self.runner = JobRunner(
            name, [sys.executable], folder / "logs", {"EXTRA": "x"}, lambda run, state: self.states.append((run, state))
        )

    def start(self, **arguments: str) -> str:
        named = {f"--{name}": value for name, value in arguments.items()}
        return str(boto3.client("glue").start_job_run(JobName=self.name, Arguments=named)["JobRunId"])

    def described(self, run: str) -> Any:
        return boto3.client("glue").get_job_run(JobName=self.name, RunId=run)["JobRun"]


@pytest.fixture
def job(aws_here: server.RunningServer, named: Callable[..., Settings], tmp_path: Path) -> Job:
    return Job(named().stream.name, tmp_path)


def test_a_run_is_starting_then_running_then_succeeded(job: Job, aws_here: server.RunningServer) -> None:
    run = job.start()
    assert job.described(run)["JobRunState"] == "STARTING"
    assert job.described(run)["JobRunState"] == "STARTING"  # looking at it changes nothing
    assert "CompletedOn" not in job.described(run)
    (done,) = job.runner.run_pending()
    assert (done.run, done.state, done.error) == (run, "SUCCEEDED", None)
    assert job.states == [(run, "RUNNING"), (run, "SUCCEEDED")]
    described = job.described(run)
    assert described["JobRunState"] == "SUCCEEDED"
    assert described["CompletedOn"] >= described["StartedOn"]
    assert f"endpoint {aws_here.endpoint} x" in done.log.read_text()
    assert job.runner.run_pending() == []


def test_arguments_are_passed_as_glue_passes_them(job: Job) -> None:
    run = job.start(table="delivery", empty="")
    job.runner.run_pending()
    passed = json.loads((job.folder / "arguments.json").read_text())
    named = dict(zip(passed[::2], passed[1::2], strict=True))
    assert named == {
        "--config": "a.yaml",
        "--table": "delivery",
        "--empty": "",
        "--JOB_NAME": job.name,
        "--JOB_ID": f"j_{job.name}",
        "--JOB_RUN_ID": run,
    }


def test_the_runs_own_argument_wins_over_the_jobs_default() -> None:
    job = {"Name": "job", "DefaultArguments": {"--a": "1", "--b": "2"}}
    assert glue_arguments(job, {"Id": "jr_1", "Arguments": {"--b": "3"}})[:4] == ["--a", "1", "--b", "3"]


def test_a_failed_run_has_its_error(job: Job) -> None:
    queue = ensure_queue(f"{job.name}-events")
    events = boto3.client("events")
    pattern = {"source": ["aws.glue"], "detail-type": ["Glue Job State Change"], "detail": {"jobName": [job.name]}}
    events.put_rule(Name=job.name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=job.name, Targets=[{"Id": "all", "Arn": queue.arn}])
    run = job.start(fail="1")
    (done,) = job.runner.run_pending()
    assert done.state == "FAILED"
    assert done.error == "exit code 1: the input is broken"
    assert job.described(run)["ErrorMessage"] == "exit code 1: the input is broken"
    (message,) = boto3.client("sqs").receive_message(QueueUrl=queue.url)["Messages"]
    assert json.loads(message["Body"])["detail"] == {
        "accountId": "123456789012",
        "jobName": job.name,
        "severity": "ERROR",
        "state": "FAILED",
        "jobRunId": run,
        "message": "exit code 1: the input is broken",
    }


def test_a_command_that_does_not_exist_is_a_failed_run(job: Job) -> None:
    job.start()
    (done,) = JobRunner(job.name, ["no-such-spark-submit"], job.folder / "logs").run_pending()
    assert done.state == "FAILED"
    assert "no-such-spark-submit could not start" in str(done.error)


def test_a_second_run_is_refused_while_one_runs(job: Job) -> None:
    glue = boto3.client("glue")
    run = job.start(wait="1")
    with pytest.raises(glue.exceptions.ConcurrentRunsExceededException):
        job.start()
    working = Thread(target=job.runner.run_pending)
    working.start()
    while job.described(run)["JobRunState"] == "STARTING":
        pass
    assert job.described(run)["JobRunState"] == "RUNNING"
    with pytest.raises(glue.exceptions.ConcurrentRunsExceededException):
        job.start()
    (job.folder / "gate").touch()
    working.join()
    job.start()
    assert len(job.runner.run_pending()) == 1


def test_the_next_runner_fails_the_run_of_a_killed_one(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run = job.start()

    class Killed(BaseException):
        pass

    def killed(*_arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(job.runner, "_on_state", killed)
        with pytest.raises(Killed):
            job.runner.run_pending()
    assert job.described(run)["JobRunState"] == "RUNNING"
    job.runner.fail_abandoned()
    assert job.described(run)["JobRunState"] == "FAILED"
    job.start()
    assert [done.state for done in job.runner.run_pending()] == ["SUCCEEDED"]


def test_ensure_job_updates_and_keeps_the_runs(job: Job) -> None:
    run = job.start()
    job.runner.run_pending()
    ensure_job(job.name, "s3://elsewhere/job.py", {"--new": "1"})
    described = boto3.client("glue").get_job(JobName=job.name)["Job"]
    assert described["Command"]["ScriptLocation"] == "s3://elsewhere/job.py"
    assert described["DefaultArguments"] == {"--new": "1"}
    assert job.described(run)["JobRunState"] == "SUCCEEDED"


@pytest.mark.spark
def test_spark_submit_is_this_interpreters_and_finds_our_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys, pyspark, jobs.common; print('ran', sys.executable, *sys.argv[1:])")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command, environment = spark_submit()
    done = subprocess.run(
        [*command, str(script), "--KEY", "a value"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"ran {sys.executable} --KEY a value" in done.stdout, done.stderr
