"""AWS Glue: creates or updates a `gluestreaming` job, and runs it.

https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html
https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-etl-glue-arguments.html
https://docs.aws.amazon.com/glue/latest/dg/glue-streaming-maintenance.html
https://docs.aws.amazon.com/glue/latest/dg/monitor-continuous-logging.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from jobs.common.aws import client, error_code, translate_aws_errors
from movement.deploy.calls import Call
from movement.deploy.job import Job, job_role
from movement.deploy.rollout import Run
from movement.deploy.spark_conf import with_own
from movement.packaging.release import GLUE_ENVIRONMENT

SERVICE = "glue"
GOING = {"STARTING", "RUNNING", "STOPPING", "WAITING"}
# Glue lists the newest runs first; a run that has not ended is among these.
RUNS_SEARCHED = 200
# The log groups of a job without a prefix of its own: JobRun.LogGroupName says so whatever the prefix.
DEFAULT_LOGS = "/aws-glue/jobs"


class Glue:
    """A streaming job of AWS Glue, `deploy.glue.job_name`."""

    title = "AWS Glue"
    running = frozenset({"RUNNING"})
    ending = frozenset({"STOPPING"})
    ended = frozenset({"STOPPED", "SUCCEEDED", "FAILED", "TIMEOUT", "ERROR", "EXPIRED"})

    def requests(self, job: Job, replace: bool) -> list[Call]:
        stop = batch_stop(job, "RUNNING-JOB-RUN")
        found = Call(stop.service, stop.operation, stop.parameters, when="a run of the job is going")
        return [*([found] if replace else []), create_job(job), update_job(job), start_job_run(job)]

    def check(self, job: Job) -> list[str]:
        start_job_run(job).check()
        create_job(job).check()
        return []

    def role(self, job: Job) -> str:
        return job_role(job)

    def find_run(self, job: Job) -> Run | None:
        name = job.settings.deploy.glue.job_name
        with translate_aws_errors(f"look at the runs of {name}"):
            pages = client("glue").get_paginator("get_job_runs")
            try:
                for page in pages.paginate(JobName=name, PaginationConfig={"MaxItems": RUNS_SEARCHED}):
                    for run in page["JobRuns"]:
                        if run["JobRunState"] in GOING:
                            return _run(run)
            except ClientError as error:
                if error_code(error) != "EntityNotFoundException":
                    raise
        return None

    def start(self, job: Job) -> Run:
        (update_job(job) if _exists(job) else create_job(job)).send()
        return Run(start_job_run(job).send()["JobRunId"], "STARTING")

    def stop(self, job: Job, run: Run) -> None:
        batch_stop(job, run.id).send()

    def refresh(self, job: Job, run: Run) -> Run:
        return _run(_get_run(job, run))

    def links(self, job: Job, run: Run) -> list[tuple[str, str]]:
        name = job.settings.deploy.glue.job_name
        which = f"--job-name {name} --run-id {run.id}"
        group = _log_group(job, run)
        console = f"https://{job.region}.console.aws.amazon.com/gluestudio/home?region={job.region}"
        return [
            ("console", f"{console}#/job/{name}/run/{run.id}"),
            ("logs", f"aws logs tail --follow {group}/error --log-stream-name-prefix {run.id}"),
            ("state", f"aws glue get-job-run {which}"),
            ("stop", f"aws glue batch-stop-job-run --job-name {name} --job-run-ids {run.id}"),
        ]


def definition(job: Job) -> dict[str, Any]:
    """The job's definition: the part that CreateJob and UpdateJob have in common."""
    deploy = job.settings.deploy
    arguments = {
        "--job-language": "python",
        "--python-virtual-env": job.artifact(GLUE_ENVIRONMENT),
        "--datalake-formats": "delta",
        "--TempDir": f"{deploy.artifacts}/glue-temporary/",  # otherwise Glue creates a bucket, which may be public
        "--custom-logGroup-prefix": log_prefix(job),
        "--enable-metrics": "true",
        "--enable-observability-metrics": "true",
        "--enable-continuous-cloudwatch-log": "true",
        **dict(zip(job.arguments[::2], job.arguments[1::2], strict=True)),
    }
    conf = with_own(job, {})
    if conf:  # Glue takes one --conf; the others follow in its value
        arguments["--conf"] = " --conf ".join(f"{key}={value}" for key, value in conf.items())
    found: dict[str, Any] = {
        "Description": f"movement-lake {job.manifest.release}: Kinesis to the lake",
        "Role": job_role(job),
        "Command": {"Name": "gluestreaming", "ScriptLocation": job.script, "PythonVersion": "3"},
        "GlueVersion": deploy.glue_version,
        "WorkerType": deploy.glue.worker_type,
        "NumberOfWorkers": deploy.glue.workers,
        "Timeout": deploy.glue.timeout_minutes,
        "MaintenanceWindow": deploy.glue.maintenance_window,
        "MaxRetries": deploy.glue.max_retries,
        "ExecutionProperty": {"MaxConcurrentRuns": 1},
        "DefaultArguments": arguments,
    }
    if deploy.glue.security_configuration is not None:
        found["SecurityConfiguration"] = deploy.glue.security_configuration
    return found


def log_prefix(job: Job) -> str:
    """What the names of the job's log groups begin with. The stack makes the groups, with a key and an end."""
    return f"/aws-glue/movement-lake/{job.settings.deploy.glue.job_name}"


def _log_group(job: Job, run: Run) -> str:
    """What the names of the run's log groups begin with, without a slash at the end.

    With a security configuration that encrypts logs, the name holds role and configuration, and the run has it.
    """
    found = _get_run(job, run).get("LogGroupName", "").rstrip("/")
    return found if found not in ("", DEFAULT_LOGS) else log_prefix(job)


def create_job(job: Job) -> Call:
    """The request that creates the job."""
    tags = {"movement-lake-release": job.manifest.release}
    parameters = {"Name": job.settings.deploy.glue.job_name, **definition(job), "Tags": tags}
    return Call(SERVICE, "CreateJob", parameters, when="the job does not exist")


def update_job(job: Job) -> Call:
    """The request that updates an existing job: it replaces the whole definition."""
    parameters = {"JobName": job.settings.deploy.glue.job_name, "JobUpdate": definition(job)}
    return Call(SERVICE, "UpdateJob", parameters, when="the job exists")


def start_job_run(job: Job) -> Call:
    """The request that starts a run. A run's arguments replace the job's, so they are passed whole."""
    parameters: dict[str, Any] = {"JobName": job.settings.deploy.glue.job_name}
    if job.for_start:
        own = dict(zip(job.for_start[::2], job.for_start[1::2], strict=True))
        parameters["Arguments"] = {**definition(job)["DefaultArguments"], **own}
    return Call(SERVICE, "StartJobRun", parameters)


def batch_stop(job: Job, run: str) -> Call:
    """The request that stops a run."""
    return Call(SERVICE, "BatchStopJobRun", {"JobName": job.settings.deploy.glue.job_name, "JobRunIds": [run]})


def _exists(job: Job) -> bool:
    name = job.settings.deploy.glue.job_name
    with translate_aws_errors(f"look for the job {name}"):
        try:
            client("glue").get_job(JobName=name)
        except ClientError as error:
            if error_code(error) != "EntityNotFoundException":
                raise
            return False
    return True


def _get_run(job: Job, run: Run) -> dict[str, Any]:
    call = Call(SERVICE, "GetJobRun", {"JobName": job.settings.deploy.glue.job_name, "RunId": run.id})
    return dict(call.send()["JobRun"])


def _run(run: Mapping[str, Any]) -> Run:
    return Run(run["Id"], run["JobRunState"], run.get("ErrorMessage", ""))
