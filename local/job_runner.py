"""A local Glue job service: runs a started job run with spark-submit on this machine.

moto's StartJobRun only makes a run in state STARTING; `JobRunner.run_pending` runs the job's script, its
arguments as Glue passes them (`--KEY value`), and reports RUNNING, then SUCCEEDED or FAILED, to moto, and a
`Glue Job State Change` event to EventBridge. What it printed is in a log file for each run.
Source: https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-etl-glue-arguments.html
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jobs.common import aws
from jobs.common.errors import ConfigurationError
from local.events import put_glue_event
from local.glue_states import set_state

StateChange = Callable[[str, str], None]

if TYPE_CHECKING:
    from types_boto3_glue.type_defs import JobRunTypeDef


@dataclass(frozen=True)
class JobRun:
    """A run that has ended. `state`: SUCCEEDED or FAILED; `error`: the last line of its log if it failed."""

    job: str
    run: str
    state: str
    seconds: float
    log: Path
    error: str | None = None


def ensure_job(name: str, script: str, arguments: dict[str, str], max_concurrent_runs: int = 1) -> None:
    """Creates or updates the Glue job.

    `arguments`: its default arguments; keys start with `--`. With one concurrent run, StartJobRun during a run is a
    ConcurrentRunsExceededException.
    """
    glue = aws.client("glue")
    wanted: dict[str, Any] = {
        "Role": "arn:aws:iam::123456789012:role/embedded",
        "Command": {"Name": "glueetl", "ScriptLocation": script, "PythonVersion": "3"},
        "DefaultArguments": arguments,
        "ExecutionProperty": {"MaxConcurrentRuns": max_concurrent_runs},
        "GlueVersion": "6.0",
    }
    with aws.translate_aws_errors(f"create the job {name}"):
        if name in glue.list_jobs()["JobNames"]:
            glue.update_job(JobName=name, JobUpdate=cast(Any, wanted))
        else:
            glue.create_job(Name=name, **wanted)


class JobRunner:
    """Executes the runs of one Glue job, one after the other.

    submit, environment  the command before the script, and its environment: see `spark_submit`
    logs                 the folder of the runs' logs
    on_state             called with (run id, state) at each change
    """

    def __init__(
        self,
        job: str,
        submit: Sequence[str],
        logs: Path,
        environment: dict[str, str] | None = None,
        on_state: StateChange = lambda _run, _state: None,
    ):
        self.job = job
        self._submit = list(submit)
        self._logs = logs
        self._environment = environment or {}
        self._on_state = on_state
        self._glue = aws.client("glue")
        self._events = aws.client("events")

    def run_pending(self) -> list[JobRun]:
        """Executes the runs that are STARTING, oldest first, and returns them; failed runs are not raised."""
        return [self._run(run) for run in self._runs() if run["JobRunState"] == "STARTING"]

    def fail_abandoned(self) -> None:
        """Sets runs that are RUNNING to FAILED, because their runner was killed.

        Only the job's single runner may call it, before it executes a run.
        """
        for run in self._runs():
            if run["JobRunState"] == "RUNNING":
                self._state(run["Id"], "FAILED", "the job runner was killed")

    def _runs(self) -> list[JobRunTypeDef]:
        """The job's runs, oldest first."""
        pages = self._glue.get_paginator("get_job_runs").paginate(JobName=self.job)
        return sorted((run for page in pages for run in page["JobRuns"]), key=lambda run: run["StartedOn"])

    def _run(self, run: Mapping[str, Any]) -> JobRun:
        job = self._glue.get_job(JobName=self.job)["Job"]
        command = [*self._submit, job["Command"]["ScriptLocation"], *glue_arguments(job, run)]
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{self.job}-{run['Id']}.log"
        self._state(run["Id"], "RUNNING")
        started = time.monotonic()
        error: str | None
        try:
            with log.open("wb") as output:
                code = subprocess.run(  # noqa: S603 (the command is the caller's and the job's own)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self._environment},
                    check=False,
                ).returncode
            error = None if code == 0 else f"exit code {code}: {last_line(log)}"
        except OSError as failure:
            error = f"{command[0]} could not start: {failure}"
        except BaseException:
            self._state(run["Id"], "FAILED", "the job runner was stopped")
            raise
        state = "FAILED" if error else "SUCCEEDED"
        self._state(run["Id"], state, error)
        return JobRun(self.job, run["Id"], state, time.monotonic() - started, log, error)

    def _state(self, run: str, state: str, error: str | None = None) -> None:
        set_state(self._glue, "job-run", job=self.job, run=run, state=state, error=error)
        self._on_state(run, state)
        if state != "RUNNING":  # Glue only sends events for the end of runs
            detail = {
                "jobName": self.job,
                "severity": "ERROR" if error else "INFO",
                "state": state,
                "jobRunId": run,
                "message": error or "Job run succeeded",
            }
            put_glue_event(self._events, "Glue Job State Change", detail)


def spark_submit() -> tuple[list[str], dict[str, str]]:
    """The command and the environment of this interpreter's spark-submit, with this repository on the Python path.

    Without that environment spark-submit would use the Spark and the Python that PATH finds. Raises ConfigurationError
    if pyspark is not installed.
    """
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise ConfigurationError("the batch job needs pyspark: pip install 'movement-lake[spark]'")
    home = Path(found.origin).parent
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    environment = {
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONPATH": path,
    }
    return [str(home / "bin" / "spark-submit")], environment


def glue_arguments(job: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """A run's command line: the job's default arguments, overridden by the run's, then the arguments that Glue adds."""
    named = {**job.get("DefaultArguments", {}), **run.get("Arguments", {})}
    own = {"--JOB_ID": f"j_{job['Name']}", "--JOB_RUN_ID": run["Id"], "--JOB_NAME": job["Name"]}
    return [part for key, value in {**named, **own}.items() for part in (key, value)]


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it wrote nothing"
