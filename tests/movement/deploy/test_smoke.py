"""`movement deploy smoke`: the runs on AWS, as the embedded AWS takes them, and the proofs that need no Spark."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import stream_tables
from jobs.common.aws import client
from jobs.common.errors import ConfigurationError, TerminalError, TransientError
from jobs.common.findings import Finding
from jobs.lake.smoke_findings import FINDINGS, decode_findings, encode_findings, smoke_folder
from jobs.lake.store import lake_at
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from jobs.stream.smoke import SmokeRun
from local.glue_states import set_state
from movement.cli.main import app
from movement.deploy import smoke
from movement.deploy.job import Job, plan
from movement.deploy.local_submit import submit_arguments
from movement.packaging.release import MANIFEST, Artifact, Environment, Manifest
from tests.helpers.emr_clusters import start_cluster
from tests.helpers.lakes import make_lake

ROLE = "arn:aws:iam::123456789012:role/movement-job"
_numbers = itertools.count(1)
PASSED = [Finding("put-if-absent", "pass", "the second of two writes was refused")]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of files of a few bytes."""
    folder = tmp_path_factory.mktemp("release")
    artifacts = {}
    for name in (smoke.SCRIPT, "environment.tar.gz", "glue-environment.tar.gz", "conf/emr.yaml", "m-py3-none-any.whl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
        artifacts[name] = Artifact(hashlib.sha256(name.encode()).hexdigest(), len(name))
    environment = Environment("3.13", "x86_64", "/usr/bin/python3.13", {})
    environments = {"environment.tar.gz": environment, "glue-environment.tar.gz": environment}
    manifest = Manifest("0.1.0-5f0c2a91", "0.1.0", "4.1.1", 0, environments, artifacts)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest)))
    return folder


def no_spark() -> SparkSession:
    raise TerminalError("Spark did not start: no space left on device")


def proven(settings: Settings, run: str) -> dict[str, Finding]:
    found = SmokeRun(settings, run, threading.Event()).do(no_spark)
    return {each.name: each for each in found}


@pytest.mark.aws
def test_without_spark_the_other_proofs_are_made_and_nothing_but_the_findings_is_left(
    embedded_aws: object, tmp_path: Path
) -> None:
    settings = make_lake(tmp_path, "observe.metrics=cloudwatch")
    GlueCatalog(client("glue"), settings.database, settings.lake).ensure_tables(
        stream_tables(load_contract(settings.contract), "parquet")
    )
    found = proven(settings, "abc")

    assert {name: each.status for name, each in found.items()} == {
        "driver: Python": "pass",
        "put-if-absent": "pass",
        "If-Match": "pass",
        "write raw/": "pass",
        "write processed/": "pass",
        "write quarantine/": "pass",
        "catalog": "pass",
        "metric": "pass",
        "Spark": "fail",
        "clean up": "pass",
    }
    assert found["Spark"].found == "Spark did not start: no space left on device"
    lake = lake_at(settings.lake)
    assert [path for path, _ in lake.list("")] == [f"_checkpoints/_smoke/abc/{FINDINGS}"]
    assert decode_findings(lake.get(f"_checkpoints/_smoke/abc/{FINDINGS}") or b"") == list(found.values())


@pytest.mark.aws
def test_a_store_that_ignores_conditions_fails(
    embedded_aws: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_lake(tmp_path)
    from botocore.client import BaseClient

    send = BaseClient._make_api_call  # type: ignore[attr-defined]

    def without_conditions(self: Any, operation: str, parameters: Any) -> Any:
        dropped = {name: value for name, value in parameters.items() if name not in ("IfNoneMatch", "IfMatch")}
        return send(self, operation, dropped)

    monkeypatch.setattr(BaseClient, "_make_api_call", without_conditions)
    found = proven(settings, "abc")

    assert (found["put-if-absent"].status, found["If-Match"].status) == ("fail", "fail")
    assert "ignores If-None-Match" in found["put-if-absent"].found


@pytest.mark.parametrize(("lake", "run"), [("/data/lake", "abc"), ("s3://a-lake/lake", "../abc")])
def test_a_run_needs_a_lake_on_s3_and_a_plain_name(lake: str, run: str) -> None:
    with pytest.raises(ConfigurationError):
        SmokeRun(Settings.model_validate({"lake": lake}), run, threading.Event())


def test_a_settings_file_is_passed_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aws.yaml").write_text("lake: s3://b/lake\n")
    monkeypatch.chdir(tmp_path)

    assert submit_arguments("aws.yaml", ["a=1"], "r") == [
        *("--config", str(tmp_path / "aws.yaml"), "--set", "a=1", "--run", "r")
    ]
    assert submit_arguments(None, [], "r") == ["--run", "r"]


@pytest.fixture
def account(embedded_aws: object, tmp_path: Path) -> list[str]:
    settings = make_lake(tmp_path)
    bucket = f"smoke-artifacts-{next(_numbers)}"
    client("s3").create_bucket(Bucket=bucket)
    return [
        f"lake={settings.lake}",
        f"stream.name={settings.stream.name}",
        f"database={settings.database}",
        f"deploy.artifacts=s3://{bucket}/movement",
        f"deploy.role_arn={ROLE}",
    ]


def smoke_of(folder: Path, platform: str, account: list[str], *more: str) -> tuple[Job, smoke.RemoteRun]:
    overrides = [*account, *more]
    if platform == "emr-serverless":
        application = client("emr-serverless").create_application(
            name="movement", releaseLabel="emr-spark-8.1.0", type="SPARK"
        )
        overrides.append(f"deploy.emr_serverless.application_id={application['applicationId']}")
    if platform == "emr":
        cluster = start_cluster()
        overrides.append(f"deploy.emr.cluster_id={cluster}")
    job = smoke.smoke_job(plan(folder, "emr.yaml", overrides), "abc")
    return job, smoke.RemoteRun(smoke.platform_of(job.settings), job)


@pytest.mark.aws
@pytest.mark.parametrize("platform", ["emr-serverless", "emr", "glue"])
def test_a_run_is_started_its_findings_are_read_and_it_is_cleaned_up(
    platform: str,
    release: Path,
    account: list[str],
) -> None:
    job, running = smoke_of(release, platform, account)
    lake = lake_at(smoke_folder(job.settings.lake, "abc"))
    pauses = itertools.count(1)

    def pause(_: float) -> None:  # the job on the platform writes its findings
        if next(pauses) == 1:
            lake.put(FINDINGS, io.BytesIO(encode_findings(PASSED)))

    clock = itertools.count(0.0, 10.0)
    found = smoke.run_smoke(running, job.settings, "abc", pause=pause, clock=lambda: next(clock))

    assert found == PASSED
    assert list(lake.list("")) == []
    assert job.script.endswith("/jobs/smoke_job.py")
    assert job.arguments[-2:] == ("--run", "abc")
    if platform == "emr-serverless":
        which = job.settings.deploy.emr_serverless.application_id
        (run,) = client("emr-serverless").list_job_runs(applicationId=which)["jobRuns"]
        assert (run["name"], run["state"]) == ("movement-stream-smoke", "CANCELLED")
    if platform == "emr":
        steps = client("emr").list_steps(ClusterId=job.settings.deploy.emr.cluster_id)["Steps"]
        assert ("movement-stream-smoke", "CANCELLED") in [(step["Name"], step["Status"]["State"]) for step in steps]
    if platform == "glue":
        assert not any("-smoke-" in each["Name"] for each in client("glue").get_jobs()["Jobs"])


@pytest.mark.aws
def test_a_run_that_ends_without_findings_is_an_error_with_the_reason_and_the_log(
    release: Path,
    account: list[str],
) -> None:
    job, running = smoke_of(release, "glue", account)
    name = job.settings.deploy.glue.job_name

    def pause(_: float) -> None:
        (run,) = client("glue").get_job_runs(JobName=name)["JobRuns"]
        set_state(client("glue"), "job-run", job=name, run=run["Id"], state="FAILED", error="AccessDenied: script")

    with pytest.raises(
        TerminalError, match=r"ended as FAILED without findings: AccessDenied: script; log: (?!.*-smoke-)"
    ):
        smoke.run_smoke(running, job.settings, "abc", pause=pause)
    assert not any("-smoke-" in each["Name"] for each in client("glue").get_jobs()["Jobs"])


@pytest.mark.aws
def test_a_run_that_hangs_is_ended(release: Path, account: list[str]) -> None:
    job, running = smoke_of(release, "emr-serverless", account, "deploy.wait_seconds=30")
    clock = itertools.count(0.0, 10.0)

    with pytest.raises(TransientError, match="without findings"):
        smoke.run_smoke(running, job.settings, "abc", pause=lambda _: None, clock=lambda: next(clock))
    which = job.settings.deploy.emr_serverless.application_id
    (run,) = client("emr-serverless").list_job_runs(applicationId=which)["jobRuns"]
    assert run["state"] == "CANCELLED"


@pytest.mark.aws
def test_the_test_record_is_one_that_the_job_puts_into_quarantine(account: list[str]) -> None:
    settings = Settings.model_validate({"stream": {"name": account[1].partition("=")[2]}})
    smoke.put_record(settings, "abc")

    kinesis = client("kinesis")
    shards = kinesis.list_shards(StreamName=settings.stream.name)["Shards"]
    iterators = [
        kinesis.get_shard_iterator(
            StreamName=settings.stream.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        for shard in shards
    ]
    records = [each for one in iterators for each in kinesis.get_records(ShardIterator=one)["Records"]]
    assert [json.loads(each["Data"]) for each in records] == [{"movement_smoke": "abc"}]


def test_the_requests_fit_the_models_and_never_start_a_second_streaming_job(
    release: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    common = ["lake=s3://a-lake/movement", "deploy.artifacts=s3://artifacts/movement", f"deploy.role_arn={ROLE}"]
    seen = {}
    for name, key in (
        ("emr-serverless", "emr_serverless.application_id=00abc"),
        ("emr", "emr.cluster_id=j-A"),
        ("glue", ""),
    ):
        sets = [part for each in [*common, *([f"deploy.{key}"] if key else [])] for part in ("--set", each)]
        done = CliRunner().invoke(app, ["deploy", "smoke", "--dry-run", "--release", str(release), *sets])
        assert done.exit_code == 0, (done.output, done.exception)
        calls = json.loads(done.stdout)["requests"]
        seen[name] = [call for call in calls if call["operation"] != "PutObject"]

    assert [call["operation"] for each in seen.values() for call in each] == [
        "StartJobRun",
        "AddJobFlowSteps",
        "CreateJob",
        "StartJobRun",
    ]
    (serverless,), (emr,), (create, _) = (seen[name] for name in ("emr-serverless", "emr", "glue"))
    assert serverless["parameters"]["mode"] == "BATCH"
    assert serverless["parameters"]["executionTimeoutMinutes"] == 15
    assert "retryPolicy" not in serverless["parameters"]
    assert "spark.yarn.maxAppAttempts=1" in emr["parameters"]["Steps"][0]["HadoopJarStep"]["Args"]
    assert (create["parameters"]["Command"]["Name"], create["parameters"]["MaxRetries"]) == ("glueetl", 0)
    assert "MaintenanceWindow" not in create["parameters"]
    arguments = create["parameters"]["DefaultArguments"]
    assert arguments["--run"]
    assert arguments["--custom-logGroup-prefix"].endswith("/uber-movement-streaming"), "no log group is left behind"
