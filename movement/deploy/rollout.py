"""Rolls a job out on any platform: check, upload, leave or replace a running job, start, wait.

Safe to repeat: files that exist are not uploaded again, and a job that runs under the name is found. If two run
nevertheless, the lease on the checkpoint stops the second (docs/adr/0006).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jobs.common.errors import TerminalError, TransientError
from movement.deploy import upload
from movement.deploy.calls import Call
from movement.deploy.job import Job

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

    def check(self, job: Job) -> None:
        """Raises ConfigurationError if the application or cluster does not fit the job."""

    def find_run(self, job: Job) -> Run | None:
        """The job's run that has not ended; None if all have ended."""
        ...

    def start(self, job: Job, replacing: bool) -> Run:
        """Creates or updates the job, and starts a run."""
        ...

    def stop(self, job: Job, run: Run) -> None:
        """Asks a run to end."""

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
    step: Callable[[str], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Rolls the job out; returns once it runs, or without `wait` once it is started.

    `step` is called with the name of each step. Raises ConfigurationError before any change, TerminalError if the run
    ends before it reads the stream, TransientError if it does neither within `deploy.wait_seconds`.
    """
    step(f"looking at {platform.title}")
    platform.check(job)
    sent = upload.send(job.uploads, lambda key, new: step(f"{'uploaded' if new else 'exists'}: {key}"))
    deadline = clock() + job.settings.deploy.wait_seconds
    before = platform.find_run(job)
    if before is not None and before.state not in platform.ending:
        if not replace:
            return Outcome(before, sent, left=True, replaced=None)
        step(f"stopping {before.id}")
        platform.stop(job, before)
    if before is not None:
        while (before := platform.refresh(job, before)).state not in platform.ended:
            _pause(before, deadline, clock, pause, "has not ended")
            step(f"stopping {before.id}: {before.state}")
    step("starting")
    run = platform.start(job, before is not None)
    while wait and (run := platform.refresh(job, run)).state not in platform.running:
        if run.state in platform.ended:
            raise TerminalError(f"{platform.title}: {run.id} ended as {run.state}: {run.detail or 'no reason given'}")
        _pause(run, deadline, clock, pause, "does not run")
        step(f"{run.id}: {run.state}")
    return Outcome(run, sent, left=False, replaced=before.id if before else None)


def _pause(run: Run, deadline: float, clock: Callable[[], float], pause: Callable[[float], None], what: str) -> None:
    if clock() > deadline:
        raise TransientError(f"{run.id} {what} ({run.state}) after deploy.wait_seconds; it was not changed")
    pause(POLL_SECONDS)
