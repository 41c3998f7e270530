"""Whether a role may read a release, as IAM's policy simulator answers; scripted, because the embedded AWS has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from movement.deploy import role_access
from movement.deploy.role_access import release_access
from tests.helpers.call_recorder import ACCOUNT
from tests.helpers.fake_iam import FakeIamSimulator
from tests.helpers.policies import ROOT_PARAMETERS
from tests.helpers.templates import Stack

ROLE = f"arn:aws:iam::{ACCOUNT}:role/movement-stream"
KEY = "arn:aws:kms:eu-west-3:123456789012:key/1234abcd"
FILES = ["s3://artifacts/movement/0.2.0-9e107d9d/jobs/stream_job.py", "s3://artifacts/movement/0.2.0-9e107d9d/x.gz"]
ARNS = [f"arn:aws:s3:::{uri.removeprefix('s3://')}" for uri in FILES]


class Aws:
    """Scripted S3, IAM and KMS: a call that is not scripted, or does not fit the model, fails the test."""

    def __init__(self, scripted: ExitStack) -> None:
        keys = {"region_name": "eu-west-3", "aws_access_key_id": "k", "aws_secret_access_key": "s"}
        self._clients: dict[str, Any] = {name: boto3.client(name, **keys) for name in ("s3", "iam", "kms")}
        self.stubs = {name: scripted.enter_context(Stubber(each)) for name, each in self._clients.items()}

    def client(self, service: str, **_: Any) -> Any:
        return self._clients[service]

    def files(self, **head: Any) -> None:
        for _ in FILES:
            self.stubs["s3"].add_response("head_object", head, {"Bucket": "artifacts", "Key": ANY})

    def decides(self, action: str, resources: list[str], results: list[dict[str, Any]]) -> None:
        asked = {"PolicySourceArn": ROLE, "ActionNames": [action], "ResourceArns": resources, "ContextEntries": ANY}
        answer = {"EvaluationResults": results, "IsTruncated": False}
        self.stubs["iam"].add_response("simulate_principal_policy", answer, asked)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with ExitStack() as scripted:
        found = Aws(scripted)
        monkeypatch.setattr(role_access, "client", found.client)
        yield found
        for stub in found.stubs.values():
            stub.assert_no_pending_responses()


def together(decisions: dict[str, str], action: str = "s3:GetObject") -> list[dict[str, Any]]:
    """IAM's answer of today: one result, with the decision for each resource within."""
    specific = [{"EvalResourceName": arn, "EvalResourceDecision": decided} for arn, decided in decisions.items()]
    worst = "allowed" if set(decisions.values()) == {"allowed"} else "implicitDeny"
    pattern = "arn:${Partition}:s3:::${BucketName}/${KeyName}"
    result = {"EvalActionName": action, "EvalResourceName": pattern, "EvalDecision": worst}
    return [{**result, "ResourceSpecificResults": specific}]


def test_a_role_whose_policy_allows_every_file_passes(aws: Aws) -> None:
    aws.files()
    aws.decides("s3:GetObject", ARNS, together(dict.fromkeys(ARNS, "allowed")))
    assert release_access(ROLE, FILES).status == "pass"


def test_a_file_that_the_role_may_not_read_is_named(aws: Aws) -> None:
    aws.files()
    aws.decides("s3:GetObject", ARNS, together({ARNS[0]: "allowed", ARNS[1]: "implicitDeny"}))
    found = release_access(ROLE, FILES)
    assert found.status == "fail"
    assert FILES[1] in found.found
    assert FILES[0] not in found.found


def test_an_answer_of_one_result_a_resource_is_understood_too(aws: Aws) -> None:
    aws.files()
    results = [{"EvalActionName": "s3:GetObject", "EvalResourceName": arn, "EvalDecision": "allowed"} for arn in ARNS]
    aws.decides("s3:GetObject", ARNS, results)
    assert release_access(ROLE, FILES).status == "pass"


def test_a_resource_that_iam_leaves_out_is_not_taken_for_allowed(aws: Aws) -> None:
    aws.files()
    aws.decides("s3:GetObject", ARNS, together({ARNS[0]: "allowed"}))
    assert release_access(ROLE, FILES).status == "fail"


class FakeBucket:
    """A bucket whose objects all exist, encrypted with the stack's key of artifacts."""

    def head_object(self, **_: Any) -> dict[str, Any]:
        return {"SSEKMSKeyId": ROOT_PARAMETERS["ArtifactsKeyArn"]}


def test_the_stacks_role_may_read_the_release_after_the_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conditions of the policy, too, are met by the context that the simulator is given."""
    root = Stack("root", {**ROOT_PARAMETERS, "Release": "movement/0.1.0-5f0c2a91"})
    document = root.nested("Access").properties("StreamJobPolicy")["PolicyDocument"]
    listed = [
        {**part, **{key: [part[key]] for key in ("Action", "Resource") if isinstance(part[key], str)}}
        for part in document["Statement"]
    ]
    fakes = {"iam": FakeIamSimulator({ROLE: listed}), "s3": FakeBucket()}
    monkeypatch.setattr(role_access, "client", lambda service, **_: fakes[service])
    folder = f"s3://{ROOT_PARAMETERS['ArtifactsBucket']}/movement/0.2.0-9e107d9d"

    assert release_access(ROLE, [f"{folder}/jobs/stream_job.py", f"{folder}/environment.tar.gz"]).status == "pass"
    assert release_access(ROLE, [f"{folder.replace('movement', 'other')}/jobs/stream_job.py"]).status == "fail"


def test_a_condition_on_a_key_that_nobody_knows_makes_the_answer_unknown(aws: Aws) -> None:
    aws.files()
    results = together(dict.fromkeys(ARNS, "implicitDeny"))
    results[0]["ResourceSpecificResults"][0]["MissingContextValues"] = ["aws:SourceVpce"]
    aws.decides("s3:GetObject", ARNS, results)
    found = release_access(ROLE, FILES)
    assert (found.status, "aws:SourceVpce" in found.found) == ("unknown", True)


def test_the_bucket_s_own_key_needs_a_permission_as_well(aws: Aws) -> None:
    aws.files(SSEKMSKeyId=KEY, ServerSideEncryption="aws:kms")
    aws.decides("s3:GetObject", ARNS, together(dict.fromkeys(ARNS, "allowed")))
    aws.decides("kms:Decrypt", [KEY], together({KEY: "implicitDeny"}, "kms:Decrypt"))
    aws.stubs["kms"].add_response("describe_key", {"KeyMetadata": {"KeyId": "1234abcd", "KeyManager": "CUSTOMER"}})
    found = release_access(ROLE, FILES)
    assert (found.status, f"kms:Decrypt on {KEY}" in found.found) == ("fail", True)


def test_the_key_that_aws_manages_needs_none(aws: Aws) -> None:
    aws.files(SSEKMSKeyId=KEY, ServerSideEncryption="aws:kms")
    aws.decides("s3:GetObject", ARNS, together(dict.fromkeys(ARNS, "allowed")))
    aws.decides("kms:Decrypt", [KEY], together({KEY: "implicitDeny"}, "kms:Decrypt"))
    aws.stubs["kms"].add_response("describe_key", {"KeyMetadata": {"KeyId": "1234abcd", "KeyManager": "AWS"}})
    assert release_access(ROLE, FILES).status == "pass"


def test_a_missing_file_fails_and_a_refusal_of_iam_is_unknown(aws: Aws) -> None:
    aws.stubs["s3"].add_client_error("head_object", "404", "Not Found", 404)
    missing = release_access(ROLE, FILES)
    assert (missing.status, f"{FILES[0]} does not exist" in missing.found) == ("fail", True)

    aws.files()
    aws.stubs["iam"].add_client_error("simulate_principal_policy", "AccessDenied", "not authorized", 403)
    refused = release_access(ROLE, FILES)
    assert refused.status == "unknown"
    assert "iam:SimulatePrincipalPolicy" in refused.found
