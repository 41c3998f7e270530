"""`movement deploy` on the embedded AWS's EMR, EMR Serverless and Glue; its requests fit botocore's models."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters
from typer.testing import CliRunner

from jobs.common.aws import client
from jobs.common.errors import AwsAccessError, ConfigurationError, MovementError, TerminalError, TransientError
from jobs.common.findings import Answer
from jobs.settings.settings import load_settings
from local.glue_states import set_state
from movement.cli.main import app
from movement.deploy import emr as emr_module
from movement.deploy import rollout
from movement.deploy.calls import Call
from movement.deploy.emr import Emr, add_steps, stop_steps
from movement.deploy.emr_serverless import EmrServerless, start_job_run
from movement.deploy.glue import Glue
from movement.deploy.job import Job, plan
from movement.deploy.rollout import Run, halt, roll_out
from movement.packaging import release as release_module
from movement.packaging.release import package, read_manifest
from tests.helpers.emr_clusters import start_cluster
from tests.helpers.paths import ROOT

ROLE = "arn:aws:iam::123456789012:role/movement-job"
PLATFORMS = {"emr-serverless": EmrServerless(), "emr": Emr(), "glue": Glue()}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with environments of a few bytes."""
    folder = tmp_path_factory.mktemp("package") / "release"
    with pytest.MonkeyPatch.context() as patch:

        def small(archive: Path, *_others: object) -> dict[str, str]:
            archive.write_bytes(archive.name.encode())
            return {}

        patch.setattr(release_module, "build_environment", small)
        emr, glue = (release_module.Target(python, "x86_64", "/usr/bin/python3") for python in ("3.11", "3.13"))
        package(folder, {"environment.tar.gz": emr, "glue-environment.tar.gz": glue}, level=6, step=lambda _: None)
    return folder


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


def overrides(*more: str) -> list[str]:
    return [
        "lake=s3://a-lake/movement",
        "deploy.artifacts=s3://a-bucket/movement",
        f"deploy.role_arn={ROLE}",
        "deploy.emr_serverless.application_id=00abc",
        "deploy.emr.cluster_id=j-ABC",
        *more,
    ]


def of(release: Path, *more: str, config: str = "emr.yaml") -> Job:
    return plan(release, config, overrides(*more))


def deploy(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["deploy", *arguments], catch_exceptions=True)


def sets(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_dry_run_prints_requests_that_the_services_models_take_and_sends_none(
    platform: str, release: Path, region: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(*_: object, **__: object) -> None:
        raise AssertionError("a request was sent")

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", sent)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    done = deploy(platform, "--release", str(release), *sets(*overrides()), "--dry-run", "--replace")

    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    model = botocore.session.get_session()
    for request in result["requests"]:
        shape = model.get_service_model(request["service"]).operation_model(request["operation"]).input_shape
        tokens = {key: "t" for key, member in shape.members.items() if member.metadata.get("idempotencyToken")}
        validate_parameters(request["parameters"] | tokens, shape)
    keys = [request["parameters"]["Key"] for request in result["requests"] if request["operation"] == "PutObject"]
    assert keys[-1] == f"movement/{result['release']}/manifest.json", "a release with a manifest is whole"
    assert {request["operation"] for request in result["requests"]} >= {"PutObject"}
    assert "123456789012" not in json.dumps(result).replace(ROLE, "")


def test_the_job_has_the_same_arguments_everywhere(release: Path, region: None) -> None:
    emr = of(release, "stream.name=mine", "sink.target_file_bytes=1048576")
    glue = of(release, "stream.name=mine", "sink.target_file_bytes=1048576", config="glue.yaml")
    serverless = start_job_run(emr).parameters["jobDriver"]["sparkSubmit"]["entryPointArguments"]
    step = add_steps(emr).parameters["Steps"][-1]["HadoopJarStep"]["Args"]
    update = PLATFORMS["glue"].requests(glue, False)[1].parameters["JobUpdate"]["DefaultArguments"]

    assert serverless == step[-len(serverless) :]
    assert serverless[::2] == ["--config", "--set", "--region"]
    assert [update[name] for name in serverless[2::2]] == serverless[3::2]
    # The job gets the settings of the command line, except deploy.*.
    found = load_settings(serverless[1], [serverless[3]])
    assert (found.lake, found.stream.name, found.sink.target_file_bytes) == ("s3://a-lake/movement", "mine", 1048576)
    assert "deploy" not in serverless[3]


def test_start_from_reaches_the_run_that_is_started_and_not_the_later_ones(release: Path, region: None) -> None:
    job = plan(release, "emr.yaml", overrides(), "ledger")
    option = ["--start-from", "ledger"]

    assert start_job_run(job).parameters["jobDriver"]["sparkSubmit"]["entryPointArguments"][-2:] == option
    assert add_steps(job).parameters["Steps"][-1]["HadoopJarStep"]["Args"][-2:] == option
    requests = {each.operation: each.parameters for each in PLATFORMS["glue"].requests(job, False)}
    assert requests["StartJobRun"]["Arguments"].pop("--start-from") == "ledger"
    assert requests["StartJobRun"]["Arguments"] == requests["UpdateJob"]["JobUpdate"]["DefaultArguments"]


def test_start_from_is_not_passed_over_if_the_job_runs_already(no_uploads: Job) -> None:
    job = replace(no_uploads, for_start=("--start-from", "stream"))
    with pytest.raises(ConfigurationError, match=r"--start-from stream: old runs already .RUNNING.*add --replace"):
        go(Scripted(["RUNNING"], ["RUNNING"]), job)


def test_the_option_start_from_is_passed_on_by_each_command(release: Path, region: None) -> None:
    for platform in PLATFORMS:
        done = deploy(platform, "--release", str(release), *sets(*overrides()), "--start-from", "stream", "--dry-run")
        assert "--start-from" in json.dumps(json.loads(done.stdout)["requests"][-1]), platform


def test_a_users_configuration_is_uploaded_under_its_hash(release: Path, region: None, tmp_path: Path) -> None:
    contract = tmp_path / "my_table.yaml"
    contract.write_text((ROOT / "conf" / "travel_times.yaml").read_text() + "# mine\n")
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"lake": "s3://mine/lake", "contract": str(contract)}))

    job = plan(release, str(config), overrides()[1:])

    named, passed = job.arguments[1], json.loads(job.arguments[3])
    assert re.fullmatch(rf"{job.uri}/conf/mine-[0-9a-f]{{8}}\.yaml", named)
    assert re.fullmatch(rf"{job.uri}/conf/my_table-[0-9a-f]{{8}}\.yaml", passed["contract"])
    assert [call.body for call in job.uploads[:2]] == [config, contract]


@pytest.mark.parametrize(
    ("platform", "changes", "told"),
    [
        ("glue", ["deploy.artifacts=null"], "deploy.artifacts: not set; releases are uploaded there"),
        ("glue", ["deploy.role_arn=null"], "deploy.role_arn: not set; the job runs as this role"),
        ("emr", ["deploy.emr.cluster_id=null"], "deploy.emr.cluster_id: not set; the job runs on this cluster"),
        ("emr-serverless", ["deploy.emr_serverless.application_id=null"], "application_id: not set; the job runs in"),
        ("emr-serverless", ["deploy.spark_conf.spark.x=a b"], "'a b' has a space"),
        ("emr", ["lake=/tmp/lake"], "not a bucket of yours"),
        ("emr", ["lake=s3://movement-lake/lake"], "not a bucket of yours"),
        ("glue", ["deploy.glue_version=5.1"], "deploy.glue_version"),
        ("glue", ["deploy.glue.maintenance_window=Someday:10"], "deploy.glue.maintenance_window"),
        ("emr", ["deploy.emr_release=emr-7.1.0"], "emr-spark-8.1.0"),
    ],
)
def test_a_missing_or_wrong_setting_is_named_before_anything_is_sent(
    platform: str, changes: list[str], told: str, release: Path, region: None
) -> None:
    done = deploy(platform, "--release", str(release), *sets(*overrides(*changes)), "--dry-run")

    assert isinstance(done.exception, ConfigurationError)
    assert told in str(done.exception)


def test_a_request_that_the_model_does_not_take_is_never_sent() -> None:
    with pytest.raises(ConfigurationError, match=r"glue StartJobRun: .*Nmae"):
        Call("glue", "StartJobRun", {"Nmae": "x", "JobName": "j"}).send()
    with pytest.raises(ConfigurationError, match=r"WorkerType: 'G.3X' is not one of"):
        Call("glue", "StartJobRun", {"JobName": "j", "WorkerType": "G.3X"}).check()


def test_a_bootstrapped_cluster_needs_no_archive(release: Path, region: None) -> None:
    job = of(release, "deploy.emr.bootstrapped=true", "deploy.spark_conf.spark.executor.memory=6g")
    arguments = add_steps(job).parameters["Steps"][0]["HadoopJarStep"]["Args"]

    assert "--archives" not in arguments
    python = f"/opt/movement/{job.manifest.release}/bin/python"
    assert f"spark.yarn.appMasterEnv.PYSPARK_PYTHON={python}" in arguments
    assert "spark.executor.memory=6g" in arguments


def test_emr_serverless_has_a_fixed_number_of_executors(release: Path, region: None) -> None:
    job = of(release, "deploy.emr_serverless.executors=3", "deploy.spark_conf.spark.executor.cores=2")
    text = start_job_run(job).parameters["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]

    assert "--conf spark.dynamicAllocation.enabled=false --conf spark.executor.instances=3" in text


@pytest.mark.parametrize(
    ("named", "group"),
    [
        ({}, "/aws-glue/movement-lake/uber-movement-streaming"),
        ({"LogGroupName": "/aws-glue/jobs"}, "/aws-glue/movement-lake/uber-movement-streaming"),
        ({"LogGroupName": "/aws-glue/jobs-role-configuration/"}, "/aws-glue/jobs-role-configuration"),
    ],
)
def test_glues_logs_are_where_the_run_says(
    named: dict[str, str], group: str, release: Path, region: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"JobRun": {"Id": "jr_1", "JobRunState": "RUNNING", **named}}
    monkeypatch.setattr(Call, "send", lambda call: answer if call.operation == "GetJobRun" else None)
    job = of(release, config="glue.yaml")

    logs = dict(Glue().links(job, Run("jr_1", "RUNNING")))["logs"]

    assert logs == f"aws logs tail --follow {group}/error --log-stream-name-prefix jr_1"
    arguments = Glue().requests(job, False)[1].parameters["JobUpdate"]["DefaultArguments"]
    assert arguments["--custom-logGroup-prefix"] == "/aws-glue/movement-lake/uber-movement-streaming"


def steps_of(call: Call) -> list[tuple[str, list[str]]]:
    return [(step["Name"], step["HadoopJarStep"]["Args"]) for step in call.parameters["Steps"]]


def test_a_stopped_job_is_killed_in_yarn_too(release: Path, region: None) -> None:
    cancel, add = stop_steps(of(release), "s-1")
    ((name, arguments),) = steps_of(add)

    assert (cancel.operation, cancel.parameters["StepIds"]) == ("CancelSteps", ["s-1"])
    assert name == "movement-stream-stop"
    assert "yarn application -kill" in arguments[2]
    assert arguments[3] == "movement-stream", "the tag"


@pytest.mark.nightly
def test_the_steps_script_kills_the_jobs_applications_at_its_start_and_when_it_is_cancelled(
    release: Path, region: None, tmp_path: Path
) -> None:
    ((_, arguments),) = steps_of(add_steps(of(release)))
    assert "spark.yarn.tags=movement-stream" in arguments
    log = tmp_path / "log"
    listing = "echo 'Total: 1'; echo 'application_17_0001 movement-stream SPARK'"
    for name, body in {
        "yarn": f'echo "yarn $*" >> {log}; case "$2" in -list) {listing};; esac',
        "spark-submit": f'echo "submit $# $1 $2" >> {log}; exec sleep 60',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    step = subprocess.Popen(arguments, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, start_new_session=True)
    try:
        while not log.exists() or "submit" not in log.read_text():
            time.sleep(0.05)
        step.terminate()
        assert step.wait(30) == 143
    finally:
        os.killpg(step.pid, signal.SIGKILL)

    stop = [
        "yarn application -list -appTags movement-stream -appStates SUBMITTED,ACCEPTED,RUNNING",
        "yarn application -kill application_17_0001",
    ]
    submit = f"submit {len(arguments) - 5} --master yarn"
    assert log.read_text().splitlines() == [*stop, submit, *stop]


class Scripted:
    """A platform whose runs have scripted states."""

    title = "Scripted"
    running = frozenset({"RUNNING"})
    ending = frozenset({"STOPPING"})
    ended = frozenset({"FAILED", "STOPPED"})

    def __init__(self, before: list[str], after: list[str]) -> None:
        self.before, self.after = list(before), list(after)
        self.log: list[str] = []

    def requests(self, job: Job, replace: bool) -> list[Call]:
        return []

    def check(self, job: Job) -> list[str]:
        self.log.append("check")
        return []

    def role(self, job: Job) -> str:
        return ROLE

    def find_run(self, job: Job) -> Run | None:
        return Run("old", self.before.pop(0)) if self.before else None

    def start(self, job: Job) -> Run:
        self.log.append("start")
        return Run("new", "STARTING")

    def stop(self, job: Job, run: Run) -> None:
        self.log.append(f"stop {run.id}")

    def refresh(self, job: Job, run: Run) -> Run:
        states = self.before if run.id == "old" else self.after
        return Run(run.id, states.pop(0) if len(states) > 1 else states[0], "disk full")

    def links(self, job: Job, run: Run) -> list[tuple[str, str]]:
        return []


@pytest.fixture
def no_uploads(release: Path, region: None) -> Job:
    job = of(release, "deploy.wait_seconds=30")
    return Job(job.settings, job.manifest, job.uri, job.region, job.arguments, ())


def go(platform: Scripted, job: Job, *, replace: bool = False, wait: bool = True, **more: Any) -> Any:
    clock = itertools.count(0.0, 1.0)
    return roll_out(platform, job, replace=replace, wait=wait, pause=lambda _: None, clock=lambda: next(clock), **more)


def test_a_job_that_runs_is_left_alone(no_uploads: Job) -> None:
    platform = Scripted(["RUNNING"], ["RUNNING"])

    outcome = go(platform, no_uploads)

    assert (outcome.run.id, outcome.left, platform.log) == ("old", True, ["check"])


def test_a_job_is_replaced_only_once_the_old_run_has_ended(no_uploads: Job) -> None:
    platform = Scripted(["RUNNING", "STOPPING", "STOPPING", "STOPPED"], ["STARTING", "RUNNING"])

    outcome = go(platform, no_uploads, replace=True)

    assert (outcome.run, outcome.replaced) == (Run("new", "RUNNING", "disk full"), "old")
    assert platform.log == ["check", "stop old", "start"]
    assert platform.before == ["STOPPED"], "it was seen ended"


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("fail", r"role may not read it; old was not stopped"),
        ("unknown", r"it is unknown whether .*role may not read it; old was not stopped\. .*--unchecked"),
    ],
)
def test_a_job_is_not_stopped_for_a_release_that_its_role_may_not_read(
    verdict: str, told: str, no_uploads: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(role: str, uris: list[str]) -> Answer:
        asked.append(role)
        return Answer(verdict, "the role may not read it")  # type: ignore[arg-type]

    monkeypatch.setattr(rollout, "release_access", answer)
    platform = Scripted(["RUNNING", "STOPPED"], ["RUNNING"])

    with pytest.raises(AwsAccessError, match=told):
        go(platform, no_uploads, replace=True)
    assert (platform.log, asked) == (["check"], [ROLE])

    go(Scripted(["RUNNING", "STOPPED"], ["RUNNING"]), no_uploads, replace=True, unchecked=True)
    assert asked == [ROLE], "it was not asked again"


def test_a_first_start_goes_on_with_a_note_if_iam_does_not_tell(
    no_uploads: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(rollout, "release_access", lambda *_: Answer("unknown", "IAM refused"))

    outcome = go(Scripted([], ["RUNNING"]), no_uploads, step=notes.append)

    assert outcome.run.id == "new"
    assert "not checked whether the job's role may read the release: IAM refused" in notes


def test_a_run_that_is_ending_already_is_waited_for(no_uploads: Job) -> None:
    platform = Scripted(["STOPPING", "STOPPING", "STOPPED"], ["RUNNING"])

    outcome = go(platform, no_uploads)

    assert (outcome.run.id, outcome.left, platform.log) == ("new", False, ["check", "start"])


@pytest.mark.parametrize(
    ("after", "error", "told"),
    [
        (["STARTING", "FAILED"], TerminalError, "new ended as FAILED: disk full"),
        (["STARTING"], TransientError, "new does not run .STARTING. after deploy.wait_seconds"),
    ],
)
def test_a_job_that_never_runs_is_an_error(
    after: list[str], error: type[MovementError], told: str, no_uploads: Job
) -> None:
    with pytest.raises(error, match=told):
        go(Scripted([], after), no_uploads)


def test_a_stop_waits_until_the_run_has_ended_and_starts_nothing(no_uploads: Job) -> None:
    platform = Scripted(["RUNNING", "STOPPING", "STOPPED"], ["RUNNING"])

    stopped = halt(platform, no_uploads, pause=lambda _: None)

    assert (stopped, platform.log) == (Run("old", "STOPPED", "disk full"), ["stop old"])
    assert halt(Scripted([], []), no_uploads) is None


@pytest.fixture
def account(embedded_aws: object) -> list[str]:
    """Overrides with artifacts, names, an application and a cluster for this test only."""
    number = next(_numbers)
    client("s3").create_bucket(Bucket=f"artifacts-{number}")
    application = client("emr-serverless").create_application(
        name="movement", releaseLabel="emr-spark-8.1.0", type="SPARK"
    )
    cluster = start_cluster()
    return [
        "lake=s3://a-lake/movement",
        f"deploy.artifacts=s3://artifacts-{number}/movement",
        f"deploy.role_arn={ROLE}",
        f"deploy.emr_serverless.application_id={application['applicationId']}",
        f"deploy.emr.cluster_id={cluster}",
        f"deploy.glue.job_name=streaming-{number}",
    ]


def value(account: list[str], key: str) -> str:
    return next(text.partition("=")[2] for text in account if text.startswith(f"{key}="))


def outcome(folder: Path, *arguments: str) -> dict[str, Any]:
    done = deploy(*arguments, "--json", str(folder / "out.json"))
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


@pytest.mark.aws
def test_emr_serverless_uploads_once_starts_once_and_replaces(
    release: Path, account: list[str], tmp_path: Path
) -> None:
    arguments = ["emr-serverless", "--release", str(release), *sets(*account)]
    first, again = outcome(tmp_path, *arguments), outcome(tmp_path, *arguments)
    with pytest.raises(AwsAccessError, match=r"unknown whether .* lacks this operation of iam.* was not stopped"):
        raise deploy(*arguments, "--replace").exception
    replaced = outcome(tmp_path, *arguments, "--replace", "--unchecked")

    files = len(read_manifest(release).artifacts) + 1
    assert (first["run"]["state"], first["left"], len(first["uploaded"])) == ("RUNNING", False, files)
    assert (again["run"]["id"], again["left"], again["uploaded"]) == (first["run"]["id"], True, [])
    assert replaced["replaced"] == first["run"]["id"] != replaced["run"]["id"]
    application = value(account, "deploy.emr_serverless.application_id")
    runs = client("emr-serverless").list_job_runs(applicationId=application)["jobRuns"]
    assert {run["id"]: run["state"] for run in runs} == {
        first["run"]["id"]: "CANCELLED",
        replaced["run"]["id"]: "RUNNING",
    }
    bucket = value(account, "deploy.artifacts").split("/")[2]
    entry = f"movement/{first['release']}/jobs/stream_job.py"
    body = client("s3").get_object(Bucket=bucket, Key=entry)["Body"].read()
    assert body == (release / "jobs" / "stream_job.py").read_bytes()


@pytest.mark.aws
def test_a_release_in_s3_is_never_overwritten(release: Path, account: list[str]) -> None:
    job = plan(release, "emr.yaml", account)
    key = job.uploads[0].parameters["Key"]
    client("s3").put_object(Bucket=job.uploads[0].parameters["Bucket"], Key=key, Body=b"another's")

    with pytest.raises(TerminalError, match="another file has this name"):
        roll_out(EmrServerless(), job, replace=False, wait=False)


@pytest.mark.aws
def test_an_application_of_another_release_is_refused(release: Path, account: list[str]) -> None:
    job = plan(release, "emr.yaml", [*account, "deploy.emr_release=emr-spark-8.0.0"])

    for platform in (EmrServerless(), Emr()):
        with pytest.raises(ConfigurationError, match=r"has release emr-spark-8.1.0, deploy.emr_release says"):
            roll_out(platform, job, replace=False, wait=False)
    bucket = value(account, "deploy.artifacts").split("/")[2]
    assert "Contents" not in client("s3").list_objects_v2(Bucket=bucket), "nothing was changed"


@pytest.mark.aws
def test_more_executors_than_the_application_may_have_are_refused_before_anything_is_stopped(
    release: Path, account: list[str]
) -> None:
    application = client("emr-serverless").create_application(
        name="small",
        releaseLabel="emr-spark-8.1.0",
        type="SPARK",
        maximumCapacity={"cpu": "16 vCPU", "memory": "64 GB"},
    )["applicationId"]

    def with_executors(number: int) -> Job:
        own = (f"deploy.emr_serverless.application_id={application}", f"deploy.emr_serverless.executors={number}")
        return plan(release, "emr.yaml", [*account, *own])

    EmrServerless().check(with_executors(3))
    with pytest.raises(ConfigurationError, match=r"executors: 4: driver and executors need 20 .* may use 16 vCPU"):
        EmrServerless().check(with_executors(4))


@pytest.mark.aws
def test_a_release_for_another_processor_than_the_clusters_is_refused_before_anything_is_stopped(
    release: Path, account: list[str]
) -> None:
    graviton = plan(release, "emr.yaml", [*account, f"deploy.emr.cluster_id={start_cluster('m6g.xlarge')}"])

    assert Emr().check(plan(release, "emr.yaml", account)) == []
    with pytest.raises(ConfigurationError, match=r"m6g.xlarge runs on aarch64, .* for x86_64; .* --platform aarch64"):
        roll_out(Emr(), graviton, replace=True, wait=False)


@pytest.mark.aws
def test_a_release_without_an_environment_for_emr_is_named(release: Path, account: list[str]) -> None:
    job = plan(release, "emr.yaml", account)
    for_glue = replace(job, manifest=replace(job.manifest, artifacts={}, environments={}))
    for platform in (Emr(), EmrServerless()):
        with pytest.raises(ConfigurationError, match=r"has no environment.tar.gz; build it with `movement package`"):
            platform.check(for_glue)


@pytest.mark.aws
def test_a_processor_that_aws_does_not_tell_is_said(
    release: Path, account: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, "DescribeInstanceTypes")

    monkeypatch.setattr(emr_module, "cluster_processors", refused)
    said: list[str] = []
    roll_out(Emr(), plan(release, "emr.yaml", account), replace=False, wait=False, unchecked=True, step=said.append)
    (sentence,) = [text for text in said if "processor" in text]
    assert sentence.startswith("not checked whether the release is for the cluster's processor: ")
    assert "DescribeInstanceTypes" in sentence


def test_every_type_that_a_fleet_may_use_counts() -> None:
    specs = [{"InstanceType": "m6i.xlarge"}, {"InstanceType": "m6g.xlarge"}]
    ended = {"Status": {"State": "TERMINATED"}, "InstanceTypeSpecifications": [{"InstanceType": "p5.48xlarge"}]}
    fleets = {"InstanceFleets": [{"Status": {"State": "RUNNING"}, "InstanceTypeSpecifications": specs}, ended]}
    architectures = {"m6g.xlarge": ["arm64"], "m6i.xlarge": ["i386", "x86_64"]}

    def pages(operation: str) -> Any:
        def paginate(**asked: Any) -> Any:
            if operation == "list_instance_fleets":
                return [fleets]
            assert asked == {"InstanceTypes": sorted(architectures)}
            types = [
                {"InstanceType": name, "ProcessorInfo": {"SupportedArchitectures": names}}
                for name, names in architectures.items()
            ]
            return [{"InstanceTypes": types}]

        return SimpleNamespace(paginate=paginate)

    aws = SimpleNamespace(get_paginator=pages)
    found = emr_module.cluster_processors(aws, aws, {"Id": "j-1", "InstanceCollectionType": "INSTANCE_FLEET"})
    assert found == {"m6g.xlarge": {"aarch64"}, "m6i.xlarge": {"x86_64"}}


@pytest.mark.aws
def test_the_role_on_emr_is_the_one_of_the_clusters_instance_profile(release: Path, account: list[str]) -> None:
    iam = client("iam")
    iam.create_role(RoleName="nodes", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="EMR_EC2_DefaultRole")
    iam.add_role_to_instance_profile(InstanceProfileName="EMR_EC2_DefaultRole", RoleName="nodes")

    assert Emr().role(plan(release, "emr.yaml", account)).endswith(":role/nodes")


@pytest.mark.aws
def test_emr_adds_a_step_once_and_replaces_it(release: Path, account: list[str], tmp_path: Path) -> None:
    arguments = ["emr", "--release", str(release), *sets(*account)]
    first, again = outcome(tmp_path, *arguments), outcome(tmp_path, *arguments)
    replaced = outcome(tmp_path, *arguments, "--replace", "--no-wait", "--unchecked")

    assert (first["run"]["state"], again["left"], again["run"]["id"]) == ("RUNNING", True, first["run"]["id"])
    assert replaced["replaced"] == first["run"]["id"]
    steps = client("emr").list_steps(ClusterId=value(account, "deploy.emr.cluster_id"))["Steps"]
    found = {step["Id"]: (step["Name"], step["Status"]["State"]) for step in steps}
    assert found[first["run"]["id"]] == ("movement-stream", "CANCELLED")
    assert found[replaced["run"]["id"]] == ("movement-stream", "PENDING")
    assert sorted(name for name, _ in found.values()).count("movement-stream-stop") == 1

    cluster = f"deploy.emr.cluster_id={value(account, 'deploy.emr.cluster_id')}"
    stopped = outcome(tmp_path, "emr", "--stop", *sets(cluster))
    again = outcome(tmp_path, "emr", "--stop", *sets(cluster))
    assert (stopped["stopped"]["id"], stopped["stopped"]["state"]) == (replaced["run"]["id"], "CANCELLED")
    assert again["stopped"] is None, "needs no release, and may be repeated"


@pytest.mark.aws
def test_glue_creates_the_job_updates_it_and_runs_it_once(release: Path, account: list[str], tmp_path: Path) -> None:
    name, glue = value(account, "deploy.glue.job_name"), client("glue")
    job = plan(release, "glue.yaml", account)

    def becomes_running(_: float) -> None:  # as Glue itself does it after a minute
        (latest, *_) = [run for run in glue.get_job_runs(JobName=name)["JobRuns"] if run["JobRunState"] == "STARTING"]
        set_state(glue, "job-run", job=name, run=latest["Id"], state="RUNNING", error=None)

    first = roll_out(Glue(), job, replace=False, wait=True, pause=becomes_running)
    again = roll_out(Glue(), job, replace=False, wait=True)
    changed = plan(release, "glue.yaml", [*account, "stream.name=another"])
    replaced = roll_out(Glue(), changed, replace=True, wait=True, unchecked=True, pause=becomes_running)

    assert (first.run.state, first.left) == ("RUNNING", False)
    assert (again.run.id, again.left) == (first.run.id, True)
    assert (replaced.replaced, replaced.run.state) == (first.run.id, "RUNNING")
    found = glue.get_job(JobName=name)["Job"]
    assert found["Command"]["Name"] == "gluestreaming"
    assert "--conf" not in found["DefaultArguments"]
    assert found["DefaultArguments"]["--python-virtual-env"] == f"{job.uri}/glue-environment.tar.gz"
    assert json.loads(found["DefaultArguments"]["--set"])["stream.name"] == "another"
    states = {run["Id"]: run["JobRunState"] for run in glue.get_job_runs(JobName=name)["JobRuns"]}
    assert states == {first.run.id: "STOPPED", replaced.run.id: "RUNNING"}
