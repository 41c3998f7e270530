"""One way to bring a job out, whatever the platform: check, upload, leave or replace what runs, start, wait.

Safe to repeat: uploads that are there are skipped, and a job that runs under the name is found. Should two run all
the same, the lease on the checkpoint stops the second (docs/adr/0006).
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
    """A run of the job. `state` is the platform's own word, `detail` what it says about it."""

    id: str
    state: str
    detail: str = ""


class Platform(Protocol):
    """Where the job runs. Each method raises AwsAccessError or TransientError where AWS does."""

    title: str
    running: frozenset[str]  # the states in which it reads the stream
    ending: frozenset[str]  # the states of a run that was told to end
    ended: frozenset[str]  # the states that nothing follows

    def requests(self, job: Job, replace: bool) -> list[Call]:
        """The requests that change something, in their order, for --dry-run."""
        ...

    def check(self, job: Job) -> None:
        """Raises ConfigurationError where the application or cluster does not fit the job."""

    def found(self, job: Job) -> Run | None:
        """The job's run that has not ended, if there is one."""
        ...

    def start(self, job: Job, replacing: bool) -> Run:
        """Creates or updates what the run needs, and starts it."""
        ...

    def stop(self, job: Job, run: Run) -> None:
        """Asks a run to end."""

    def look(self, job: Job, run: Run) -> Run:
        """The run as it is now."""
        ...

    def where(self, job: Job, run: Run) -> list[tuple[str, str]]:
        """(what, address or command) of where to look, to follow and to stop it."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a deployment did. `left`: a run was there, and goes on as it was."""

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
    """Brings the job out; returns once it runs, or without `wait` once it is started. `step` is told what is done.

    Raises ConfigurationError before anything is changed, TerminalError where the run ends instead of running,
    TransientError where it does neither within `deploy.wait_seconds`.
    """
    step(f"looking at {platform.title}")
    platform.check(job)
    sent = upload.send(job.uploads, lambda key, new: step(f"{'uploaded' if new else 'is there'}: {key}"))
    deadline = clock() + job.settings.deploy.wait_seconds
    before = platform.found(job)
    if before is not None and before.state not in platform.ending:
        if not replace:
            return Outcome(before, sent, left=True, replaced=None)
        step(f"stopping {before.id}")
        platform.stop(job, before)
    if before is not None:
        while (before := platform.look(job, before)).state not in platform.ended:
            _go_on(before, deadline, clock, pause, "still has not ended")
            step(f"stopping {before.id}: {before.state}")
    step("starting")
    run = platform.start(job, before is not None)
    while wait and (run := platform.look(job, run)).state not in platform.running:
        if run.state in platform.ended:
            raise TerminalError(
                f"{platform.title}: {run.id} ended as {run.state}: {run.detail or 'no reason is given'}"
            )
        _go_on(run, deadline, clock, pause, "still does not run")
        step(f"{run.id}: {run.state}")
    return Outcome(run, sent, left=False, replaced=before.id if before else None)


def _go_on(run: Run, deadline: float, clock: Callable[[], float], pause: Callable[[float], None], what: str) -> None:
    if clock() > deadline:
        raise TransientError(f"{run.id} {what} ({run.state}) after deploy.wait_seconds; it was left as it is")
    pause(POLL_SECONDS)
