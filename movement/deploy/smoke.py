"""Starts the smoke job as the streaming job is started, waits for its findings, reads them and cleans up.

The job is in jobs/stream/smoke.py. It runs once: a batch run on EMR Serverless, a step on EMR, a job of its own on Glue
that is deleted afterwards, or spark-submit on this machine against a Spark master.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from jobs.common.aws import client, translate_aws_errors
from jobs.common.errors import TerminalError, TransientError
from jobs.common.findings import Finding
from jobs.lake.smoke_findings import FINDINGS, decode_findings, smoke_folder
from jobs.lake.store import lake_at
from jobs.settings.settings import Settings
from movement.deploy import upload
from movement.deploy.calls import Call
from movement.deploy.emr import Emr, add_steps
from movement.deploy.emr_serverless import EmrServerless, start_job_run
from movement.deploy.glue import Glue, create_job
from movement.deploy.glue import start_job_run as start_glue_run
from movement.deploy.job import Job
from movement.deploy.rollout import Platform, Run

SCRIPT = "jobs/smoke_job.py"
# The platform ends a run that hangs after this time.
MOST_MINUTES = 15
POLL_SECONDS = 3.0
# Glue forgets a run with its job, so the run has to end first.
END_SECONDS = 60.0


def platform_of(settings: Settings) -> Platform:
    """The platform that the settings name: an application, a cluster, otherwise Glue."""
    if settings.deploy.emr_serverless.application_id:
        return EmrServerless()
    return Emr() if settings.deploy.emr.cluster_id else Glue()


def new_run() -> str:
    """A name for a run's folder, and for its job."""
    return uuid.uuid4().hex[:12]


def smoke_job(job: Job, run: str) -> Job:
    """The smoke run as a job: the streaming job with another script, name and no retries."""
    deploy = job.settings.deploy
    changed = deploy.model_copy(
        update={
            "job_name": f"{deploy.job_name}-smoke",
            "emr": deploy.emr.model_copy(update={"driver_attempts": 1}),
            "glue": deploy.glue.model_copy(update={"job_name": f"{deploy.glue.job_name}-smoke-{run}"}),
        }
    )
    settings = job.settings.model_copy(update={"deploy": changed})
    return replace(job, settings=settings, entry=SCRIPT, arguments=(*job.arguments, "--run", run))


def requests(platform: Platform, job: Job) -> list[Call]:
    """The requests that start the run, in order."""
    if isinstance(platform, EmrServerless):
        call = start_job_run(job)
        once = {**call.parameters, "mode": "BATCH", "executionTimeoutMinutes": MOST_MINUTES}
        del once["retryPolicy"]
        return [replace(call, parameters=once)]
    if isinstance(platform, Emr):
        return [add_steps(job)]
    create = create_job(job)
    once = {**create.parameters, "Timeout": MOST_MINUTES, "MaxRetries": 0}
    once["Command"] = {**once["Command"], "Name": "glueetl"}  # a streaming job would be kept running
    once.pop("MaintenanceWindow", None)
    # Into the streaming job's log groups, which have an end: a group of its own would be left behind.
    once["DefaultArguments"] = {
        name: str(value).partition("-smoke-")[0] if name == "--custom-logGroup-prefix" else value
        for name, value in once["DefaultArguments"].items()
    }
    return [Call(create.service, create.operation, once), start_glue_run(job)]


class SmokeJob(Protocol):
    """A smoke run, wherever it runs."""

    title: str

    def start(self, step: Callable[[str], None]) -> str:
        """Starts the run; returns its id. `step` is called with the name of each step."""
        ...

    def state(self) -> tuple[str, bool, str]:
        """(state, whether the run has ended, the platform's explanation)."""
        ...

    def where(self) -> str:
        """Where the run's log is."""
        ...

    def clean_up(self, pause: Callable[[float], None], clock: Callable[[], float]) -> None:
        """Waits for the end of the run, or ends it, and deletes what was made for it."""


class RemoteRun:
    """A smoke run on EMR Serverless, EMR or Glue."""

    def __init__(self, platform: Platform, job: Job) -> None:
        self._platform, self._job = platform, job
        self.title = platform.title
        self._run: Run | None = None

    def start(self, step: Callable[[str], None]) -> str:
        """Checks, uploads what is missing, and starts the run; returns its id."""
        for unseen in self._platform.check(self._job):
            step(unseen)
        upload.send(self._job.uploads, lambda key, new: step(f"{'uploaded' if new else 'exists'}: {key}"))
        answer: Any = {}
        for call in requests(self._platform, self._job):
            answer = call.send()
        found = answer.get("jobRunId") or answer.get("JobRunId") or answer["StepIds"][-1]
        self._run = Run(found, "SUBMITTED")
        return str(found)

    def state(self) -> tuple[str, bool, str]:
        """(state, whether it has ended, its explanation)."""
        if self._run is None:
            return "not started", True, ""
        self._run = self._platform.refresh(self._job, self._run)
        return self._run.state, self._run.state in self._platform.ended, self._run.detail

    def where(self) -> str:
        """Where the run's log is."""
        links = dict(self._platform.links(self._job, self._run)) if self._run else {}
        own = self._job.settings.deploy.glue.job_name.rpartition("-smoke-")
        return links.get("logs", "").replace("".join(own), own[0])

    def clean_up(self, pause: Callable[[float], None], clock: Callable[[], float]) -> None:
        """Ends a run that goes on, and deletes the job on Glue."""
        if self._run is not None and not self.state()[1]:
            deadline = clock() + END_SECONDS  # it has written its findings, and needs a moment to end
            while not self.state()[1] and clock() < deadline:
                pause(POLL_SECONDS)
            if not self.state()[1]:
                self._platform.stop(self._job, self._run)
        if isinstance(self._platform, Glue):
            Call("glue", "DeleteJob", {"JobName": self._job.settings.deploy.glue.job_name}).send()


def put_record(settings: Settings, run: str) -> None:
    """Sends one record to the stream, which no contract of ours takes: the streaming job puts it into quarantine."""
    with translate_aws_errors(f"put a record on the stream {settings.stream.name}"):
        client("kinesis").put_record(
            StreamName=settings.stream.name,
            Data=json.dumps({"movement_smoke": run}).encode(),
            PartitionKey=run,
        )


def run_smoke(
    running: SmokeJob,
    settings: Settings,
    run: str,
    *,
    step: Callable[[str], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Finding]:
    """Starts a run, waits for its findings and returns them; then deletes everything that is left of it.

    Raises TerminalError if the run ends without findings, with the platform's reason and the place of the log, and
    TransientError if it writes none within `deploy.wait_seconds`.
    """
    lake = lake_at(smoke_folder(settings.lake, run))
    deadline = clock() + settings.deploy.wait_seconds
    try:
        identity = running.start(step)
        while True:
            state, ended, detail = running.state()
            content = lake.get(FINDINGS)
            if content is not None:
                return decode_findings(content)
            if ended:
                raise TerminalError(
                    f"{running.title}: {identity} ended as {state} without findings: {detail or 'no reason given'}; "
                    f"log: {running.where()}"
                )
            if clock() > deadline:
                raise TransientError(
                    f"{running.title}: {identity} is {state} after deploy.wait_seconds, without findings; on EMR a "
                    f"cluster with StepConcurrencyLevel 1 runs one step at a time; log: {running.where()}"
                )
            step(f"{identity}: {state}")
            pause(POLL_SECONDS)
    finally:
        step("cleaning up")
        try:
            running.clean_up(pause, clock)
        finally:
            lake.delete([path for path, _ in lake.list("")])
