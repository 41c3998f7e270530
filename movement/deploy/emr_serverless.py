"""EMR Serverless: a job run in mode STREAMING, which the service restarts when it fails.

https://docs.aws.amazon.com/emr-serverless/latest/APIReference/API_StartJobRun.html
https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/interworker-encryption.html
https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/jobs-spark.html
"""

from __future__ import annotations

import re

from jobs.common.errors import ConfigurationError
from movement.deploy.calls import Call
from movement.deploy.job import Job, job_role
from movement.deploy.rollout import Run
from movement.deploy.spark_conf import options, python_conf, with_own
from movement.packaging.release import EMR_ENVIRONMENT

SERVICE = "emr-serverless"
GOING = ["SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "QUEUED", "CANCELLING"]
# Of the driver and of each executor, if spark_conf says nothing else.
WORKER_VCPU = 4
# By EMR's name of a processor: the name in wheels.
PROCESSORS = {"X86_64": "x86_64", "ARM64": "aarch64"}


class EmrServerless:
    """An application of EMR Serverless, `deploy.emr_serverless.application_id`."""

    title = "EMR Serverless"
    running = frozenset({"RUNNING"})
    ending = frozenset({"CANCELLING"})
    ended = frozenset({"SUCCESS", "FAILED", "CANCELLED"})

    def requests(self, job: Job, replace: bool) -> list[Call]:
        cancel = _call(job, "CancelJobRun", jobRunId="RUNNING-JOB-RUN")
        found = Call(cancel.service, cancel.operation, cancel.parameters, when="a run of this name is going")
        return [*([found] if replace else []), start_job_run(job)]

    def check(self, job: Job) -> list[str]:
        found = _call(job, "GetApplication").send()["application"]
        check_release(job, found["releaseLabel"], f"application {found['applicationId']}")
        processor = PROCESSORS.get(found.get("architecture") or "X86_64")
        built = job.processor(EMR_ENVIRONMENT)
        if processor != built:
            raise ConfigurationError(
                f"application {found['applicationId']} runs on {processor}, the release's environment is for {built}; "
                f"build it with `movement package --platform {processor}`"
            )

        executors = job.settings.deploy.emr_serverless.executors
        most, needed = found.get("maximumCapacity", {}).get("cpu", ""), WORKER_VCPU * (executors + 1)
        if most and float(most.partition(" ")[0]) < needed:
            raise ConfigurationError(
                f"deploy.emr_serverless.executors: {executors}: driver and executors need {needed} vCPU; application "
                f"{found['applicationId']} may use {most}; lower the number, or raise the application's capacity "
                "(of a stack: MaximumVcpu and MaximumMemoryGb)"
            )
        return []

    def role(self, job: Job) -> str:
        return job_role(job)

    def find_run(self, job: Job) -> Run | None:
        call = _call(job, "ListJobRuns", states=GOING, mode="STREAMING", maxResults=50)
        while True:
            answer = call.send()
            for run in answer["jobRuns"]:
                if run.get("name") == job.settings.deploy.job_name:
                    return Run(run["id"], run["state"], run.get("stateDetails", ""))
            if not answer.get("nextToken"):
                return None
            call = Call(call.service, call.operation, {**call.parameters, "nextToken": answer["nextToken"]})

    def start(self, job: Job) -> Run:
        return Run(start_job_run(job).send()["jobRunId"], "SUBMITTED")

    def stop(self, job: Job, run: Run) -> None:
        _call(job, "CancelJobRun", jobRunId=run.id).send()

    def refresh(self, job: Job, run: Run) -> Run:
        found = _call(job, "GetJobRun", jobRunId=run.id).send()["jobRun"]
        return Run(run.id, found["state"], found.get("stateDetails", ""))

    def links(self, job: Job, run: Run) -> list[tuple[str, str]]:
        which = f"--application-id {_application(job)} --job-run-id {run.id}"
        return [
            ("logs", f"aws logs tail --follow {job.settings.deploy.emr_serverless.log_group}"),
            ("Spark UI", f"aws emr-serverless get-dashboard-for-job-run {which} --query url --output text"),
            ("state", f"aws emr-serverless get-job-run {which}"),
            ("stop", f"aws emr-serverless cancel-job-run {which}"),
        ]


def start_job_run(job: Job) -> Call:
    """The request that starts the job."""
    deploy = job.settings.deploy
    conf = {
        "spark.archives": f"{job.artifact(EMR_ENVIRONMENT)}#environment",
        **python_conf(job, "./environment/bin/python", "spark.emr-serverless.driverEnv"),
        "spark.ssl.internode.enabled": "true",
        # A fixed number: executors that leave between two batches are missing in the next one, and cost their start.
        "spark.dynamicAllocation.enabled": "false",
        "spark.executor.instances": str(deploy.emr_serverless.executors),
    }
    logs = {
        "enabled": True,
        "logGroupName": deploy.emr_serverless.log_group,
        "logStreamNamePrefix": deploy.job_name,
        "logTypes": {"SPARK_DRIVER": ["STDERR", "STDOUT"], "SPARK_EXECUTOR": ["STDERR"]},
    }
    return _call(
        job,
        "StartJobRun",
        name=deploy.job_name,
        mode="STREAMING",
        executionRoleArn=job_role(job),
        executionTimeoutMinutes=0,  # no timeout
        retryPolicy={"maxFailedAttemptsPerHour": deploy.emr_serverless.max_failed_attempts_per_hour},
        jobDriver={
            "sparkSubmit": {
                "entryPoint": job.script,
                "entryPointArguments": [*job.arguments, *job.for_start],
                "sparkSubmitParameters": _one_line(with_own(job, conf)),
            }
        },
        configurationOverrides={"monitoringConfiguration": {"cloudWatchLoggingConfiguration": logs}},
        tags={"movement-lake-release": job.manifest.release},
    )


def _one_line(conf: dict[str, str]) -> str:
    """The submit's options as one text. AWS does not document how to quote in it, so nothing that needs quotes."""
    for key, value in conf.items():
        if re.search(r"[\s'\"\\]", value):
            raise ConfigurationError(
                f"deploy.spark_conf: {key}: '{value}' has a space, a quote or a backslash; "
                "put it into the application's runtime configuration instead"
            )
    return " ".join(options(conf))


def check_release(job: Job, found: str, what: str) -> None:
    """Raises ConfigurationError if an EMR application or cluster has another release than the settings."""
    if found != job.settings.deploy.emr_release:
        raise ConfigurationError(
            f"{what} has release {found}, deploy.emr_release says {job.settings.deploy.emr_release}: "
            "the job is tested on that release only"
        )


def _application(job: Job) -> str:
    application = job.settings.deploy.emr_serverless.application_id
    if application is None:
        raise ConfigurationError(
            "deploy.emr_serverless.application_id: not set; the job runs in this application: "
            "--set deploy.emr_serverless.application_id=00…"
        )
    return application


def _call(job: Job, operation: str, **parameters: object) -> Call:
    return Call(SERVICE, operation, {"applicationId": _application(job), **parameters})
