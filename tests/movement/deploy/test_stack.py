"""`movement deploy stack` and `deploy conf`: their requests fit AWS's models, and errors name the cause."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest
import yaml
from botocore import xform_name
from botocore.session import get_session
from botocore.stub import ANY, Stubber
from botocore.validate import validate_parameters
from click.testing import Result
from typer.testing import CliRunner

from jobs.common.errors import AwsAccessError, ConfigurationError, TerminalError
from jobs.common.findings import Answer
from movement.cli.deploy import app
from movement.deploy import stack, upload
from movement.deploy.calls import Call
from movement.packaging.release import Manifest
from tests.helpers.paths import ROOT
from tests.helpers.templates import NAMES

ASKED = ["stack", "--artifacts", "s3://some-artifacts/movement", "--release", "0.1.0-5f0c2a91"]
UPLOADED = [name for name in NAMES if name not in stack.STANDALONE]
BUCKET = ["--parameter", "BucketName=a-lake"]
OUTPUTS = [
    {"OutputKey": "Lake", "OutputValue": "s3://a-lake/lake"},
    {"OutputKey": "Database", "OutputValue": "uber_movement"},
    {"OutputKey": "StreamName", "OutputValue": "uber-movement-stream"},
    {"OutputKey": "Release", "OutputValue": "s3://some-artifacts/movement/0.1.0-5f0c2a91"},
    {"OutputKey": "ApplicationId", "OutputValue": "00f1abc2def3"},
    {"OutputKey": "Dashboard", "OutputValue": "uber-movement-stream"},
]


class Aws:
    """Scripted CloudFormation and S3: a call that is not scripted or not valid fails the test."""

    def __init__(self, scripted: ExitStack) -> None:
        keys = {"region_name": "eu-west-3", "aws_access_key_id": "k", "aws_secret_access_key": "s"}
        self._clients: dict[str, Any] = {name: boto3.client(name, **keys) for name in ("cloudformation", "s3", "sts")}
        self._stubs = {name: scripted.enter_context(Stubber(each)) for name, each in self._clients.items()}

    def client(self, service: str) -> Any:
        return self._clients[service]

    def uploads(self) -> None:
        self._stubs["sts"].add_response("get_caller_identity", {"Account": "111122223333"})
        for _ in UPLOADED:
            asked = {"Bucket": "some-artifacts", "Key": ANY, "ContentType": "application/yaml", "Body": ANY}
            asked["ExpectedBucketOwner"] = "111122223333"
            self._stubs["s3"].add_response("put_object", {}, asked)

    def stack(self, status: str | None, **more: Any) -> None:
        if status is None:
            self._stubs["cloudformation"].add_client_error(
                "describe_stacks", "ValidationError", "Stack with id movement-lake does not exist", 400
            )
            return
        there = {"StackName": "movement-lake", "CreationTime": "2026-11-24T00:00:00Z", "StackStatus": status, **more}
        self._stubs["cloudformation"].add_response(
            "describe_stacks", {"Stacks": [there]}, {"StackName": "movement-lake"}
        )

    def change_set(self, kind: str, parameters: Any, described: dict[str, Any], *, nested: bool | None = None) -> None:
        stub = self._stubs["cloudformation"]
        asked = {
            "StackName": "movement-lake",
            "ChangeSetName": ANY,
            "ChangeSetType": kind,
            "TemplateURL": ANY,
            "Parameters": parameters,
            "Capabilities": ["CAPABILITY_IAM"],
            "IncludeNestedStacks": kind == "UPDATE" if nested is None else nested,
        }
        stub.add_response("create_change_set", {}, asked)
        stub.add_response("describe_change_set", {"Status": "CREATE_IN_PROGRESS"})
        stub.add_response("describe_change_set", described)

    def answers(self, operation: str, answer: dict[str, Any]) -> None:
        self._stubs["cloudformation"].add_response(operation, answer)

    def all_asked(self) -> None:
        for stub in self._stubs.values():
            stub.assert_no_pending_responses()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setattr(stack, "POLL_SECONDS", 0.0)
    with ExitStack() as scripted:
        found = Aws(scripted)
        monkeypatch.setattr(stack, "client", found.client)
        monkeypatch.setattr(upload, "client", found.client)
        yield found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


CHANGES = {
    "Status": "CREATE_COMPLETE",
    "Changes": [
        {
            "Type": "Resource",
            "ResourceChange": {"Action": "Add", "LogicalResourceId": "Storage", "ResourceType": "AWS::S3::Bucket"},
        }
    ],
}


def test_a_new_stack_is_created_by_a_change_set_and_its_outputs_are_shown(aws: Aws, tmp_path: Path) -> None:
    aws.uploads()
    aws.stack(None)
    aws.change_set("CREATE", ANY, CHANGES)
    aws.answers("execute_change_set", {})
    aws.stack("CREATE_IN_PROGRESS")
    aws.stack("CREATE_COMPLETE")
    aws.stack("CREATE_COMPLETE", Outputs=OUTPUTS)

    done = run(*ASKED, *BUCKET, "--yes", "--json", str(tmp_path / "out.json"))

    assert done.exit_code == 0, done.output
    aws.all_asked()
    assert "Add Storage AWS::S3::Bucket" in done.output
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["outputs"]["Lake"] == "s3://a-lake/lake"


def test_the_folder_of_a_release_is_uploaded_with_its_checksums(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the checksums a later `movement deploy glue` takes the files for another release's."""
    (tmp_path / "stream_job.py").write_text("pass")
    artifact = {"sha256": hashlib.sha256(b"pass").hexdigest(), "bytes": 4}
    manifest = {"release": "0.2.0-9e107d9d", "version": "0.2.0", "spark": "4.1.1", "environments": {}}
    fields = {field.name for field in dataclasses.fields(Manifest)}
    manifest = {name: manifest.get(name, "") for name in fields} | {"artifacts": {"stream_job.py": artifact}}
    manifest["environments"] = {}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    done = run("stack", "--artifacts", "s3://some-artifacts/movement", "--release", str(tmp_path), *BUCKET, "--dry-run")

    assert done.exit_code == 0, done.output
    requests = [each["parameters"] for each in json.loads(done.stdout)["requests"]]
    assert [each["Key"] for each in requests[:2]] == [
        "movement/0.2.0-9e107d9d/stream_job.py",
        "movement/0.2.0-9e107d9d/manifest.json",
    ]
    assert requests[0]["Metadata"] == {"sha256": artifact["sha256"]}
    given = {each["ParameterKey"]: each["ParameterValue"] for each in requests[-2]["Parameters"]}
    assert (given["Release"], given["ReleasesPrefix"]) == ("movement/0.2.0-9e107d9d", "movement/")


def test_an_update_keeps_the_values_that_are_not_given(aws: Aws) -> None:
    there = [
        {"ParameterKey": "BucketName", "ParameterValue": "a-lake"},
        {"ParameterKey": "Gone", "ParameterValue": "1"},
    ]
    aws.uploads()
    aws.stack("UPDATE_COMPLETE", Parameters=there)
    expected = [
        {"ParameterKey": "StreamName", "ParameterValue": "s"},
        {"ParameterKey": "ArtifactsBucket", "ParameterValue": "some-artifacts"},
        {"ParameterKey": "Release", "ParameterValue": "movement/0.1.0-5f0c2a91"},
        {"ParameterKey": "ReleasesPrefix", "ParameterValue": "movement/"},
        {"ParameterKey": "Templates", "ParameterValue": ANY},
        {"ParameterKey": "BucketName", "UsePreviousValue": True},
    ]
    reason = "The submitted information didn't contain changes."
    aws.change_set("UPDATE", expected, {"Status": "FAILED", "StatusReason": reason})
    aws.answers("delete_change_set", {})
    aws.stack("UPDATE_COMPLETE", Outputs=OUTPUTS)

    done = run(*ASKED, "--parameter", "StreamName=s")

    assert done.exit_code == 0, done.output
    assert "is up to date" in done.output
    aws.all_asked()


def test_a_new_release_with_the_old_ones_hash_is_refused_before_a_change_set_is_made(aws: Aws) -> None:
    aws.uploads()
    parameters = {"ManifestSha256": "0" * 64, "Release": "movement/an-older-one"}
    there = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    aws.stack("UPDATE_COMPLETE", Parameters=there)

    done = run(*ASKED, *BUCKET, "--yes")

    assert isinstance(done.exception, ConfigurationError)
    assert "--parameter ManifestSha256=" in str(done.exception)
    assert "ends its job" in str(done.exception)
    aws.all_asked()


@pytest.mark.parametrize("option", [[], ["--replace-cluster"]])
def test_a_change_that_ends_the_cluster_is_made_only_if_asked_for(
    aws: Aws, option: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster is in a nested stack, whose change set names it."""
    nested = {"Action": "Modify", "LogicalResourceId": "Emr", "ResourceType": stack.NESTED, "ChangeSetId": "arn:nested"}
    cluster = {
        "Action": "Modify",
        "LogicalResourceId": "Cluster",
        "ResourceType": stack.CLUSTER,
        "Replacement": "Conditional",
    }

    def described(change: dict[str, str]) -> dict[str, Any]:
        return {"Status": "CREATE_COMPLETE", "Changes": [{"Type": "Resource", "ResourceChange": change}]}

    monkeypatch.setattr(stack.Deployment, "check_role", lambda _: None)
    aws.uploads()
    aws.stack("UPDATE_COMPLETE", Parameters=[])
    aws.change_set("UPDATE", ANY, described(nested))
    aws.answers("describe_change_set", described(cluster))
    if option:
        aws.answers("execute_change_set", {})
        for _ in range(2):
            aws.stack("UPDATE_COMPLETE", Outputs=OUTPUTS)
    else:
        aws.answers("delete_change_set", {})

    done = run(*ASKED, *BUCKET, "--yes", *option)

    aws.all_asked()
    assert "Modify Emr.Cluster AWS::EMR::Cluster (MAY BE REPLACED)" in done.output
    if option:
        assert "deploy emr --config movement.yaml" in done.output
    else:
        assert isinstance(done.exception, TerminalError)
        assert "Nothing was changed" in str(done.exception)


@pytest.mark.parametrize("status", ["pass", "fail", "unknown"])
@pytest.mark.parametrize("option", [[], ["--unchecked"]])
def test_a_cluster_is_replaced_only_if_its_role_may_read_the_release(
    aws: Aws, status: Literal["pass", "fail", "unknown"], option: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def access(role: str, files: list[str]) -> Answer:
        asked.append((role, files))
        return Answer(status, f"{role} may not read it")

    def read_object(_s3: object, *, Key: str, **_place: str) -> tuple[bytes, str]:
        assert Key == "movement/0.1.0-5f0c2a91/manifest.json"
        return b'{"artifacts": {"environment.tar.gz": {}}}', "etag"

    def sent(call: Call) -> Any:
        assert (call.operation, call.parameters) == ("DescribeCluster", {"ClusterId": "j-1"})
        return {"Cluster": {"Id": "j-1"}}

    monkeypatch.setattr(stack, "release_access", access)
    monkeypatch.setattr(stack, "read_object", read_object)
    monkeypatch.setattr(stack, "cluster_role", lambda cluster: f"arn:aws:iam::1:role/of-{cluster['Id']}")
    monkeypatch.setattr(stack, "caller_account", lambda: "111122223333")
    monkeypatch.setattr(Call, "send", sent)
    change = {"Action": "Modify", "LogicalResourceId": "C", "ResourceType": stack.CLUSTER, "Replacement": "True"}
    described = {"Status": "CREATE_COMPLETE", "Changes": [{"Type": "Resource", "ResourceChange": change}]}
    aws.uploads()
    monkeypatch.setattr(stack, "caller_account", lambda: "111122223333")
    aws.stack("UPDATE_COMPLETE", Parameters=[], Outputs=[{"OutputKey": "ClusterId", "OutputValue": "j-1"}])
    aws.change_set("UPDATE", ANY, described)
    made = status == "pass" or bool(option)
    if made:
        aws.answers("execute_change_set", {})
        for _ in range(2):
            aws.stack("UPDATE_COMPLETE", Outputs=OUTPUTS)
    else:
        aws.answers("delete_change_set", {})

    done = run(*ASKED, *BUCKET, "--yes", "--replace-cluster", *option)

    folder = "s3://some-artifacts/movement/0.1.0-5f0c2a91"
    files = [f"{folder}/environment.tar.gz", f"{folder}/manifest.json"]
    assert asked == ([] if option else [("arn:aws:iam::1:role/of-j-1", files)])
    if not made:
        assert isinstance(done.exception, AwsAccessError)
        assert "Nothing was changed" in str(done.exception)
        assert ("it is unknown whether" in str(done.exception)) == (status == "unknown")


@pytest.mark.parametrize("given", [[], ["--parameter", "ManifestSha256=release"]])
def test_the_hash_of_a_releases_folder_is_filled_in(
    aws: Aws, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an update of a stack that has one, and wherever it is asked for."""
    manifest = Manifest("0.1.0-5f0c2a91", "0.1.0", "4.1.1", 0, {}, {})
    (tmp_path / "manifest.json").write_text(json.dumps(dataclasses.asdict(manifest)))
    wanted = hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    monkeypatch.setattr(stack, "send", lambda *_: [])
    parameters = {"ManifestSha256": "" if given else "0" * 64, "Release": "movement/an-older-one"}
    aws.uploads()
    aws.stack("UPDATE_COMPLETE", Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()])
    sent: list[Any] = []

    def create(_: Any, __: Any, request: dict[str, Any]) -> Any:
        sent.extend(request["Parameters"])
        return {"Status": "FAILED", "StatusReason": stack.NO_CHANGES[0]}

    monkeypatch.setattr(stack.Deployment, "_make_change_set", create)
    aws.answers("delete_change_set", {})
    aws.stack("UPDATE_COMPLETE", Outputs=OUTPUTS)

    done = run("stack", "--artifacts", "s3://some-artifacts/movement", "--release", str(tmp_path), *BUCKET, *given)

    assert done.exit_code == 0, (done.output, done.exception)
    assert {"ParameterKey": "ManifestSha256", "ParameterValue": wanted} in sent


def test_the_hash_is_not_taken_from_s3(aws: Aws) -> None:
    done = run(*ASKED, *BUCKET, "--parameter", "ManifestSha256=release")
    assert isinstance(done.exception, ConfigurationError)
    assert "needs the release's folder, --release DIR" in str(done.exception)


def test_without_a_yes_nothing_is_changed(aws: Aws) -> None:
    aws.uploads()
    aws.stack(None)
    aws.change_set("CREATE", ANY, CHANGES)
    aws.answers("delete_change_set", {})

    done = CliRunner().invoke(app, [*ASKED, *BUCKET], input="n\n")

    assert done.exit_code == 1
    aws.all_asked()


def test_a_failed_change_names_the_resource_that_failed_first(aws: Aws) -> None:
    aws.uploads()
    aws.stack(None)
    aws.change_set("CREATE", ANY, CHANGES)
    aws.answers("execute_change_set", {})
    aws.stack("ROLLBACK_COMPLETE")
    event = {"StackId": "s", "EventId": "1", "StackName": "movement-lake", "Timestamp": "2026-11-24T00:00:00Z"}
    failures = [("Stream", "Resource creation cancelled"), ("Storage", "a-lake already exists")]
    events = [
        {**event, "LogicalResourceId": name, "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": reason}
        for name, reason in failures
    ]
    events[-1] |= {"ResourceType": "AWS::CloudFormation::Stack", "PhysicalResourceId": "arn:of:storage"}
    aws.answers("describe_stack_events", {"StackEvents": events})
    inner = {"LogicalResourceId": "Bucket", "ResourceType": "AWS::S3::Bucket", "ResourceStatusReason": "it exists"}
    aws.answers("describe_stack_events", {"StackEvents": [{**event, **inner, "ResourceStatus": "CREATE_FAILED"}]})

    with pytest.raises(TerminalError, match=r"ROLLBACK_COMPLETE: Storage\.Bucket: it exists"):
        raise run(*ASKED, *BUCKET, "--yes").exception or AssertionError
    aws.all_asked()


def test_an_update_that_adds_a_stack_is_shown_without_the_nested_resources_if_they_cannot_be_resolved(
    aws: Aws,
) -> None:
    refused = {
        "Status": "FAILED",
        "StatusReason": "Nested change set was not successfully created: Currently in FAILED",
    }
    aws.uploads()
    aws.stack("UPDATE_COMPLETE", Parameters=[])
    aws.change_set("UPDATE", ANY, refused)
    aws.answers("delete_change_set", {})
    aws.change_set("UPDATE", ANY, CHANGES, nested=False)
    aws.answers("delete_change_set", {})

    done = CliRunner().invoke(app, ASKED, input="n\n")

    assert "Add Storage AWS::S3::Bucket" in done.output
    aws.all_asked()


def test_a_change_set_that_is_refused_both_ways_says_why(aws: Aws) -> None:
    aws.uploads()
    aws.stack("UPDATE_COMPLETE", Parameters=[])
    aws.change_set("UPDATE", ANY, {"Status": "FAILED", "StatusReason": "Parameter X does not exist"})
    aws.answers("delete_change_set", {})
    aws.change_set("UPDATE", ANY, {"Status": "FAILED", "StatusReason": "another text"}, nested=False)
    aws.answers("delete_change_set", {})

    with pytest.raises(TerminalError, match="refuses the change set: Parameter X does not exist"):
        raise run(*ASKED, "--yes").exception or AssertionError
    aws.all_asked()


@pytest.mark.parametrize("state", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_whose_creation_failed_is_not_updated_and_the_error_says_to_delete_it(aws: Aws, state: str) -> None:
    aws.uploads()
    aws.stack(state)

    with pytest.raises(TerminalError, match=f"is {state}.*delete-stack --stack-name movement-lake"):
        raise run(*ASKED, *BUCKET, "--yes").exception or AssertionError
    aws.all_asked()


def test_a_dry_run_sends_nothing_and_prints_valid_requests(aws: Aws) -> None:
    done = run(*ASKED, *BUCKET, "--dry-run")

    assert done.exit_code == 0, done.output
    requests = json.loads(done.stdout)["requests"]
    assert [each["operation"] for each in requests] == [
        *["PutObject"] * len(UPLOADED),
        "CreateChangeSet",
        "ExecuteChangeSet",
    ]
    for each in requests:
        model = get_session().get_service_model(each["service"]).operation_model(each["operation"])
        parameters = dict(each["parameters"])
        parameters |= {"ClientRequestToken": "t"} if "ClientRequestToken" in model.input_shape.members else {}
        parameters |= {"ClientToken": "t"} if "ClientToken" in model.input_shape.members else {}
        validate_parameters(parameters, model.input_shape)
        assert xform_name(each["operation"])
    created = requests[-2]["parameters"]
    folder = created["Parameters"][-1]["ParameterValue"]
    assert created["TemplateURL"] == f"https://some-artifacts.s3.eu-west-3.amazonaws.com/{folder}/root.yaml"
    assert {each["parameters"]["Key"] for each in requests[: len(UPLOADED)]} == {
        f"{folder}/{name}.yaml" for name in UPLOADED
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stack", "--artifacts", "some-artifacts", "--release", "1"], "--artifacts some-artifacts: not of the form"),
        ([*ASKED, "--parameter", "Bucket=x"], "--parameter Bucket=x: not NAME=VALUE with one of Api"),
        ([*ASKED, "--parameter", "Release=x"], "--parameter Release=x"),
        ([*ASKED, "--name", "a_b"], "--name a_b"),
    ],
)
def test_wrong_usage_stops_before_anything_is_sent(aws: Aws, arguments: list[str], said: str) -> None:
    found = run(*arguments).exception
    assert isinstance(found, ConfigurationError)
    assert said in str(found)


def test_the_outputs_become_a_settings_file(aws: Aws, tmp_path: Path) -> None:
    aws.stack("CREATE_COMPLETE", Outputs=OUTPUTS)

    done = run("conf", "--out", str(tmp_path / "movement.yaml"))

    assert done.exit_code == 0, done.output
    # The file replaces conf/emr.yaml, so it holds that file's caps and metrics too.
    assert yaml.safe_load((tmp_path / "movement.yaml").read_text()) == {
        **yaml.safe_load((ROOT / "conf" / "emr.yaml").read_text()),
        "lake": "s3://a-lake/lake",
        "database": "uber_movement",
        "stream": {"name": "uber-movement-stream"},
        "deploy": {
            "artifacts": "s3://some-artifacts/movement",
            "emr_serverless": {"application_id": "00f1abc2def3"},
        },
    }


def test_the_settings_of_a_stack_on_glue_keep_its_workers_and_the_caps() -> None:
    outputs = {each["OutputKey"]: each["OutputValue"] for each in OUTPUTS if each["OutputKey"] != "ApplicationId"}
    found = stack.settings_of({**outputs, "StreamingJobName": "streaming", "StreamingWorkers": "5"})

    assert found["deploy"]["glue"] == {"job_name": "streaming", "workers": 5}
    assert found["source"] == {"max_seconds_per_batch": 300}
    assert found["observe"] == {"metrics": "cloudwatch"}
    assert "source" not in stack.settings_of(outputs)


def test_every_output_that_becomes_a_setting_is_one_of_the_root_stack() -> None:
    from tests.helpers.templates import load

    assert stack.SETTINGS.keys() - load("root")["Outputs"].keys() == set()
    assert stack.declared_parameters() == set(load("root")["Parameters"])


def test_a_missing_stack_is_an_error(aws: Aws, tmp_path: Path) -> None:
    aws.stack(None)
    assert isinstance(run("conf", "--out", str(tmp_path / "x.yaml")).exception, AwsAccessError)
    assert not (tmp_path / "x.yaml").exists()
