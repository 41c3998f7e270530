"""EMR on EC2: a step that runs spark-submit on YARN, with the driver in the cluster.

The step runs as long as the job, so its state is the job's. YARN restarts a driver that died. Cancelling a step ends
spark-submit, but not the YARN application. So the step's script kills applications with the job's tag when it starts
and when EMR cancels it, and a stop adds a step that does the same; a kill loses nothing (docs/adr/0003). Sources:
https://docs.aws.amazon.com/emr/latest/ReleaseGuide/emr-spark-submit-step.html
https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-cancel-steps.html
https://spark.apache.org/docs/4.1.1/running-on-yarn.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jobs.common.aws import client, translate_aws_errors
from jobs.common.errors import ConfigurationError, MovementError
from movement.deploy.calls import Call
from movement.deploy.emr_serverless import PROCESSORS, check_release
from movement.deploy.job import Job
from movement.deploy.rollout import Run
from movement.deploy.spark_conf import options, python_conf, with_own
from movement.packaging.release import EMR_ENVIRONMENT

SERVICE = "emr"
GOING = ["PENDING", "CANCEL_PENDING", "RUNNING"]
USABLE = {"RUNNING", "WAITING"}
# Kills the job's applications in YARN, found by their tag, $0.
_KILL = (
    'stop() { yarn application -list -appTags "$0" -appStates SUBMITTED,ACCEPTED,RUNNING | '
    "grep -o '^application_[0-9_]*' | xargs -r -n 1 yarn application -kill; }; "
)
# Runs the command in "$@". EMR cancels a step by SIGTERM to its process and expects the process to clean up.
_RUN = _KILL + "trap 'stop; exit 143' TERM INT; stop; \"$@\" & wait $!"
# The folder in which the bootstrap action unpacks environments.
BOOTSTRAPPED = "/opt/movement"


class Emr:
    """A cluster of EMR on EC2, `deploy.emr.cluster_id`."""

    title = "EMR on EC2"
    running = frozenset({"RUNNING"})
    ending = frozenset({"CANCEL_PENDING"})
    ended = frozenset({"COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"})

    def requests(self, job: Job, replace: bool) -> list[Call]:
        condition = "a step of this name is going"
        stop = [dataclasses.replace(each, when=condition) for each in stop_steps(job, "RUNNING-STEP")]
        return [*(stop if replace else []), add_steps(job)]

    def check(self, job: Job) -> list[str]:
        found = _cluster(job, "DescribeCluster", "ClusterId").send()["Cluster"]
        check_release(job, found["ReleaseLabel"], f"cluster {found['Id']}")
        if found["Status"]["State"] not in USABLE:
            raise ConfigurationError(
                f"cluster {found['Id']} is {found['Status']['State']}; needed is RUNNING or WAITING"
            )
        try:
            with translate_aws_errors(f"look at the instances of cluster {found['Id']}"):
                processors = cluster_processors(client("emr"), client("ec2"), found)
        except MovementError as error:
            return [
                f"not checked whether the release is for the cluster's processor: {error} (the check needs "
                "ListInstanceGroups, ListInstanceFleets and ec2:DescribeInstanceTypes)"
            ]
        built = job.processor(EMR_ENVIRONMENT)
        other = other_processor(processors, built)
        if other is not None:
            kind, runs_on = other
            raise ConfigurationError(
                f"cluster {found['Id']}: {kind} runs on {runs_on}, the release's environment is for {built}; "
                f"build it with `movement package --platform {runs_on}`"
            )
        return []

    def role(self, job: Job) -> str:
        return cluster_role(_cluster(job, "DescribeCluster", "ClusterId").send()["Cluster"])

    def find_run(self, job: Job) -> Run | None:
        call = _cluster(job, "ListSteps", "ClusterId", StepStates=GOING)
        while True:
            answer = call.send()
            for step in answer["Steps"]:
                if step["Name"] == job.settings.deploy.job_name:
                    return _run(step)
            if not answer.get("Marker"):
                return None
            call = Call(call.service, call.operation, {**call.parameters, "Marker": answer["Marker"]})

    def start(self, job: Job) -> Run:
        return Run(add_steps(job).send()["StepIds"][-1], "PENDING")

    def stop(self, job: Job, run: Run) -> None:
        for call in stop_steps(job, run.id):
            call.send()

    def refresh(self, job: Job, run: Run) -> Run:
        return _run(_cluster(job, "DescribeStep", "ClusterId", StepId=run.id).send()["Step"])

    def links(self, job: Job, run: Run) -> list[tuple[str, str]]:
        cluster = job.settings.deploy.emr.cluster_id
        which = f"--cluster-id {cluster} --step-id {run.id}"
        return [
            ("logs", f"the cluster's LogUri, under {cluster}/steps/{run.id}/ and {cluster}/containers/"),
            ("state", f"aws emr describe-step {which}"),
            ("stop", f"movement deploy emr --stop --set deploy.emr.cluster_id={cluster} …"),
        ]


def cluster_role(cluster: dict[str, Any]) -> str:
    """The ARN of the role of a cluster's nodes, from DescribeCluster's answer. Raises AwsAccessError."""
    with translate_aws_errors(f"look at the role of cluster {cluster['Id']}"):
        found = node_role(client("iam"), cluster)
    if found is None:
        raise ConfigurationError(f"cluster {cluster['Id']}: it has no instance profile, and so no role to ask about")
    return found


def node_role(iam: Any, cluster: dict[str, Any]) -> str | None:
    """The ARN of the role of a cluster's nodes, from DescribeCluster's answer; None if it has no instance profile.

    Raises botocore's errors.
    """
    profile = cluster.get("Ec2InstanceAttributes", {}).get("IamInstanceProfile")
    if not profile:
        return None
    answer = iam.get_instance_profile(InstanceProfileName=profile.rpartition("/")[2])  # an ARN or a name
    return str(answer["InstanceProfile"]["Roles"][0]["Arn"])


def other_processor(processors: Mapping[str, set[str]], built: str) -> tuple[str, str] | None:
    """The first instance type, and its processor, that cannot run a release that is built for `built`; None: all can.

    `processors`: see `cluster_processors`.
    """
    for kind, names in processors.items():
        if built not in names:
            return kind, " or ".join(sorted(names))
    return None


def cluster_processors(emr: Any, ec2: Any, cluster: dict[str, Any]) -> dict[str, set[str]]:
    """By instance type that the cluster has or may get: its processors, as in the names of wheels.

    `cluster` is DescribeCluster's answer. Sends ListInstanceGroups or ListInstanceFleets, and DescribeInstanceTypes;
    raises botocore's errors.
    """
    fleets = cluster.get("InstanceCollectionType") == "INSTANCE_FLEET"
    operation, members = ("fleets", "InstanceFleets") if fleets else ("groups", "InstanceGroups")
    kinds: set[str] = set()
    for page in emr.get_paginator(f"list_instance_{operation}").paginate(ClusterId=cluster["Id"]):
        for each in page[members]:
            if each.get("Status", {}).get("State") != "TERMINATED":
                kinds |= {spec["InstanceType"] for spec in (each["InstanceTypeSpecifications"] if fleets else [each])}
    found = ec2.get_paginator("describe_instance_types").paginate(InstanceTypes=sorted(kinds)) if kinds else ()
    return {
        each["InstanceType"]: {
            PROCESSORS.get(name.upper(), name)
            for name in each["ProcessorInfo"]["SupportedArchitectures"]
            if name != "i386"  # beside x86_64, on instances that run both
        }
        for page in found
        for each in page["InstanceTypes"]
    }


def add_steps(job: Job) -> Call:
    """The request that starts the job."""
    name = job.settings.deploy.job_name
    step = _step(name, ["bash", "-c", _RUN, name, *spark_submit(job)])
    return _cluster(job, "AddJobFlowSteps", "JobFlowId", Steps=[step])


def stop_steps(job: Job, step: str) -> list[Call]:
    """The requests that end a step and the job's YARN application."""
    name = job.settings.deploy.job_name
    kill = _step(f"{name}-stop", ["bash", "-c", f"{_KILL}stop", name])
    return [
        _cluster(job, "CancelSteps", "ClusterId", StepIds=[step], StepCancellationOption="SEND_INTERRUPT"),
        _cluster(job, "AddJobFlowSteps", "JobFlowId", Steps=[kill]),
    ]


def spark_submit(job: Job) -> list[str]:
    """The command that submits the job; it ends with the job."""
    deploy = job.settings.deploy
    archive = job.artifact(EMR_ENVIRONMENT)
    if deploy.emr.bootstrapped:
        python, archives = f"{BOOTSTRAPPED}/{job.manifest.release}/bin/python", []
    else:
        python, archives = "./environment/bin/python", ["--archives", f"{archive}#environment"]
    conf = {
        **python_conf(job, python, "spark.yarn.appMasterEnv"),
        "spark.yarn.tags": deploy.job_name,
        "spark.yarn.submit.waitAppCompletion": "true",
        "spark.yarn.maxAppAttempts": str(deploy.emr.driver_attempts),
        "spark.yarn.am.attemptFailuresValidityInterval": "1h",
        "spark.executor.failuresValidityInterval": "1h",
    }
    submit = ["spark-submit", "--master", "yarn", "--deploy-mode", "cluster", "--name", deploy.job_name]
    return [*submit, *archives, *options(with_own(job, conf)), job.script, *job.arguments, *job.for_start]


def _step(name: str, command: list[str]) -> dict[str, Any]:
    return {
        "Name": name,
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": command},
    }


def _run(step: dict[str, Any]) -> Run:
    status = step["Status"]
    reason = status.get("FailureDetails") or status.get("StateChangeReason") or {}
    return Run(step["Id"], status["State"], reason.get("Reason") or reason.get("Message") or "")


def _cluster(job: Job, operation: str, parameter: str, **parameters: object) -> Call:
    cluster = job.settings.deploy.emr.cluster_id
    if cluster is None:
        raise ConfigurationError(
            "deploy.emr.cluster_id: not set; the job runs on this cluster: --set deploy.emr.cluster_id=j-…"
        )
    return Call(SERVICE, operation, {parameter: cluster, **parameters})
