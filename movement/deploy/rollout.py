"""Rolls a job out on any platform: check, upload, leave or replace a running job, start, wait. Or stops it.

Before a running job is stopped, IAM must say that the job's role may read the new release: a run that may not read its
own code fails at once, and the old run would be gone.

Safe to repeat: files that exist are not uploaded again, and a job that runs under the name is found. If two run
nevertheless, the lease on the checkpoint stops the second (docs/adr/0006).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jobs.common.errors import AwsAccessError, ConfigurationError, MovementError, TerminalError, TransientError
from jobs.common.findings import unknown
from movement.deploy import upload
from movement.deploy.calls import Call
from movement.deploy.job import Job
from movement.deploy.role_access import release_access

POLL_SECONDS = 3.0


@dataclass(frozen=True)
class Run:
    """A run of the job. `state` is the platform's own word, `detail` its explanation."""

    id: str
    state: str
    detail: str = ""


class Platform(Protocol):
    """A platform for the job. Each method raises AwsAccessError or TransientError if AWS refuses or fails."""

    title: str
    running: frozenset[str]  # states in which the job reads the stream
    ending: frozenset[str]  # states of a run that was told to end
    ended: frozenset[str]  # final states

    def requests(self, job: Job, replace: bool) -> list[Call]:
        """The requests that change something, in order, for --dry-run."""
        ...

    def check(self, job: Job) -> list[str]:
        """What AWS did not tell, a sentence each. ConfigurationError if application or cluster do not fit the job."""
        ...

    def role(self, job: Job) -> str:
        """The ARN of the role that reads the release."""
        ...

    def find_run(self, job: Job) -> Run | None:
        """The job's run that has not ended; None if all have ended."""
        ...

    def start(self, job: Job) -> Run:
        """Creates or updates the job, and starts a run."""
        ...

    def stop(self, job: Job, run: Run) -> None:
        """Asks a run to end; nothing of it may go on once it has ended."""

    def refresh(self, job: Job, run: Run) -> Run:
        """The current state of the run."""
        ...

    def links(self, job: Job, run: Run) -> list[tuple[str, str]]:
        """(what, address or command): the logs, the state, and how to stop the run."""
        ...


@dataclass(frozen=True)
class Outcome:
    """The result of a deployment. `left`: the job was running already and was not changed."""

    run: Run
    uploaded: list[str]
    left: bool
    replaced: str | None


def roll_out(
    platform: Platform,
    job: Job,
    *,
    replace: bool,
    wait: bool,
    unchecked: bool = False,
    step: Callable[[str], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Rolls the job out; returns once it runs, or without `wait` once it is started.

    `step` is called with the name of each step. Raises ConfigurationError before any change, AwsAccessError before a
    job is stopped if its role may not read the release or, unless `unchecked`, AWS does not tell; TerminalError if the
    run ends before it reads the stream, TransientError if it does neither within `deploy.wait_seconds`.
    """
    step(f"looking at {platform.title}")
    for unseen in platform.check(job):
        step(unseen)
    sent = upload.send(job.uploads, lambda key, new: step(f"{'uploaded' if new else 'exists'}: {key}"))
    deadline = clock() + job.settings.deploy.wait_seconds
    before = platform.find_run(job)
    going = None if before is None or before.state in platform.ending else before
    if going and not replace and job.for_start:
        raise ConfigurationError(
            f"{' '.join(job.for_start)}: {going.id} runs already ({going.state}), and the option is for the start of a "
            "run: add --replace, or leave the option out"
        )
    if going and not replace:
        return Outcome(going, sent, left=True, replaced=None)
    if not unchecked:
        step("asking IAM whether the job's role may read the release")
        _check_role(platform, job, going, step)
    if going:
        step(f"stopping {going.id}")
        platform.stop(job, going)
    if before is not None:
        _wait_for_end(platform, job, before, deadline, step, pause, clock)
    step("starting")
    run = platform.start(job)
    while wait and (run := platform.refresh(job, run)).state not in platform.running:
        if run.state in platform.ended:
            raise TerminalError(f"{platform.title}: {run.id} ended as {run.state}: {run.detail or 'no reason given'}")
        _pause(run, deadline, clock, pause, "does not run")
        step(f"{run.id}: {run.state}")
    return Outcome(run, sent, left=False, replaced=before.id if before else None)


def halt(
    platform: Platform,
    job: Job,
    *,
    step: Callable[[str], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Run | None:
    """Stops the job's run and returns it once it has ended; None if no run was going.

    Raises AwsAccessError, or TransientError if the run has not ended within `deploy.wait_seconds`.
    """
    step(f"looking at {platform.title}")
    run = platform.find_run(job)
    if run is None:
        return None
    if run.state not in platform.ending:
        step(f"stopping {run.id}")
        platform.stop(job, run)
    return _wait_for_end(platform, job, run, clock() + job.settings.deploy.wait_seconds, step, pause, clock)


def _wait_for_end(
    platform: Platform,
    job: Job,
    run: Run,
    deadline: float,
    step: Callable[[str], None],
    pause: Callable[[float], None],
    clock: Callable[[], float],
) -> Run:
    while (run := platform.refresh(job, run)).state not in platform.ended:
        _pause(run, deadline, clock, pause, "has not ended")
        step(f"stopping {run.id}: {run.state}")
    return run


def _check_role(platform: Platform, job: Job, going: Run | None, step: Callable[[str], None]) -> None:
    """Raises AwsAccessError if the role may not read the release, or if that is unknown and a run would be stopped."""
    try:
        access = release_access(platform.role(job), job.files)
    except MovementError as error:
        access = unknown(str(error))
    if access.status == "pass":
        return
    kept = f"; {going.id} was not stopped" if going else ""
    if access.status == "fail":
        raise AwsAccessError(f"release {job.manifest.release}: {access.found}{kept}")
    if going:
        raise AwsAccessError(
            f"release {job.manifest.release}: it is unknown whether the job's role may read it: {access.found}{kept}. "
            "If you know that it may, run the command with --unchecked"
        )
    step(f"not checked whether the job's role may read the release: {access.found}")


def _pause(run: Run, deadline: float, clock: Callable[[], float], pause: Callable[[float], None], what: str) -> None:
    if clock() > deadline:
        raise TransientError(f"{run.id} {what} ({run.state}) after deploy.wait_seconds; it was not changed")
    pause(POLL_SECONDS)
