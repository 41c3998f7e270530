"""Creates or updates the CloudFormation stack by a change set, and reads settings from its outputs.

A change is always a change set that can be shown first. The change set of a stack that does not exist yet shows the
nested stacks, not their resources: CloudFormation cannot resolve the outputs of nested stacks that do not exist.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets.html
https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/759
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.common.aws import client, error_code, read_object, region, translate_aws_errors
from jobs.common.errors import AwsAccessError, ConfigurationError, MovementError, TerminalError
from jobs.common.findings import unknown
from jobs.settings.config_files import find_configuration, read_yaml
from movement.deploy.calls import Call
from movement.deploy.emr import cluster_role
from movement.deploy.role_access import release_access
from movement.deploy.upload import CALLER, address, caller_account, release_uri, send, uploads
from movement.packaging.release import MANIFEST, read_manifest

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient

TEMPLATES = Path(__file__).parents[2] / "infra" / "cloudformation"
ROOT = "root"
# Stacks of their own, which root.yaml does not contain.
STANDALONE = {"artifacts"}
POLL_SECONDS = 5.0
# The state of a stack without resources: it is created, not updated.
UNMADE = {"REVIEW_IN_PROGRESS"}
# The states after a failed creation: CloudFormation takes neither an update nor another creation.
DEAD = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}
CLUSTER = "AWS::EMR::Cluster"
NESTED = "AWS::CloudFormation::Stack"
MANIFEST_SHA = "ManifestSha256"  # the root's parameter
OF_THE_RELEASE = "release"  # its value here: the hash of the folder's manifest
# CloudFormation's reasons for a change set without changes.
NO_CHANGES = ("didn't contain changes", "No updates are to be performed")
# By output of the root stack: the key of the settings.
SETTINGS = {
    "Lake": "lake",
    "Database": "database",
    "StreamName": "stream.name",
    "Release": "deploy.artifacts",
    "StreamingRoleArn": "deploy.role_arn",
    "JobRunRoleArn": "deploy.role_arn",
    "StreamingJobName": "deploy.glue.job_name",
    "StreamingSecurityConfiguration": "deploy.glue.security_configuration",
    "StreamingWorkers": "deploy.glue.workers",
    "ApplicationId": "deploy.emr_serverless.application_id",
    "ClusterId": "deploy.emr.cluster_id",
}

Notice = Callable[[str], None]


class Deployment:
    """One deployment of the stack. Raises ConfigurationError for wrong arguments, before any request.

    `release`: the folder of a packaged release, which is uploaded, or the name of one that is uploaded already.
    """

    def __init__(self, name: str, artifacts: str, release: str, parameters: Iterable[str]) -> None:
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._-]+)*)/?", artifacts)
        if not found:
            raise ConfigurationError(f"--artifacts {artifacts}: not of the form s3://bucket/prefix")
        self._release_uploads: list[Call] = []
        self._manifest_sha: str | None = None
        if "/" in release or Path(release).is_dir():
            manifest = read_manifest(Path(release))
            uri = release_uri(artifacts.rstrip("/"), manifest.release)
            self._manifest_sha = hashlib.sha256((Path(release) / MANIFEST).read_bytes()).hexdigest()
            self._release_uploads, release = uploads(Path(release), manifest, uri), manifest.release
        elif not re.fullmatch(r"[A-Za-z0-9._-]+", release):
            raise ConfigurationError(f"--release {release}: letters, digits, dots and dashes are allowed")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,127}", name):
            raise ConfigurationError(f"--name {name}: a letter, then letters, digits and dashes, 128 at most")
        self._region = region()
        if self._region is None:
            raise ConfigurationError("no AWS region: set AWS_REGION, or a region in the AWS profile")
        self._name = name
        self._bucket = found[1]
        folder = found[2].strip("/")
        self._files = templates()
        digest = hashlib.sha256(b"".join(self._files[file] for file in sorted(self._files))).hexdigest()[:12]
        self._templates = f"{folder}/templates/{digest}".lstrip("/")
        release_folder = f"{folder}/{release}".lstrip("/")
        self._own = {
            "ArtifactsBucket": self._bucket,
            "Release": release_folder,
            "ReleasesPrefix": f"{folder}/" if folder else "",
            "Templates": self._templates,
        }
        self._given = {**_parameters(parameters, set(self._own)), **self._own}
        if self._given.get(MANIFEST_SHA) == OF_THE_RELEASE:
            if self._manifest_sha is None:
                raise ConfigurationError(
                    f"--parameter {MANIFEST_SHA}={OF_THE_RELEASE}: needs the release's folder, --release DIR: a hash "
                    "that is read from S3 proves nothing about the files there"
                )
            self._given[MANIFEST_SHA] = self._manifest_sha
        # After `plan`: whether the changes end an EMR cluster, and so the job on it; and whether they make another one.
        self.ends_cluster = self.replaces_cluster = False
        self._cluster_id: str | None = None
        self._change_set = f"movement-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"

    def requests(self) -> list[dict[str, Any]]:
        """The requests of a first deployment, for --dry-run. An update differs in ChangeSetType."""
        puts = [
            {"service": "s3", "operation": "PutObject", "parameters": {**request, "Body": f"<{TEMPLATES / file}.yaml>"}}
            for file, request in self._uploads(CALLER)
        ]
        puts = [*(call.describe() for call in self._release_uploads), *puts]
        create = self._create_change_set(update=False, known=set())
        execute = {"StackName": self._name, "ChangeSetName": self._change_set}
        return [
            *puts,
            {"service": "cloudformation", "operation": "CreateChangeSet", "parameters": create},
            {"service": "cloudformation", "operation": "ExecuteChangeSet", "parameters": execute},
        ]

    def upload(self, notice: Notice = lambda _text: None) -> None:
        """Uploads the release, if its folder was given, and the templates.

        The templates' folder is named by their content, so that nothing is overwritten.
        """
        send(self._release_uploads, lambda key, new: notice(f"{'uploaded' if new else 'exists'}: {key}"))
        s3, owner = client("s3"), caller_account()
        for file, request in self._uploads(owner):
            with translate_aws_errors(f"upload {file}.yaml to s3://{self._bucket}/{self._templates}"):
                s3.put_object(**request, Body=self._files[file])

    def plan(self) -> list[str]:
        """Creates the change set; returns a line for each change, none if the stack is up to date.

        Raises TerminalError with CloudFormation's reason if it refuses the templates.
        """
        cloudformation = client("cloudformation")
        there = find_stack(cloudformation, self._name)
        if there is not None and there["StackStatus"] in DEAD:
            raise TerminalError(
                f"stack {self._name} is {there['StackStatus']}: its creation or deletion failed, and CloudFormation "
                f"changes it no more. Delete it (aws cloudformation delete-stack --stack-name {self._name}), and run "
                "the command again"
            )
        update = there is not None and there["StackStatus"] not in UNMADE
        before = {each["ParameterKey"]: each.get("ParameterValue") for each in (there or {}).get("Parameters", [])}
        known = set(before) if update else set()
        self._cluster_id = _outputs(there or {}).get("ClusterId")
        if before.get(MANIFEST_SHA) and MANIFEST_SHA not in self._given and before["Release"] != self._own["Release"]:
            if self._manifest_sha is None:
                raise ConfigurationError(
                    f"stack {self._name} has {MANIFEST_SHA} of the release {before['Release']}: nodes would not take "
                    f"{self._own['Release']}. Give the release's folder, --release DIR, or --parameter "
                    f"{MANIFEST_SHA}=, which `movement package` printed for it. The change replaces the cluster and so "
                    "ends its job: then run `movement deploy conf` and `movement deploy emr`"
                )
            self._given[MANIFEST_SHA] = self._manifest_sha
        described = self._make_change_set(cloudformation, self._create_change_set(update, known))
        if update and _refused(described):
            # A nested stack that this update adds has no outputs yet either: then without the nested stacks' resources.
            self.discard()
            request = {**self._create_change_set(update, known), "IncludeNestedStacks": False}
            again = self._make_change_set(cloudformation, request)
            described = described if _refused(again) else again
        if described["Status"] == "FAILED":
            self.discard()
            if not _refused(described):
                return []
            reason = described.get("StatusReason", "")
            raise TerminalError(f"stack {self._name}: CloudFormation refuses the change set: {reason}")
        return list(self._all_changes(cloudformation, described))

    def _all_changes(self, cloudformation: CloudFormationClient, described: Any, within: str = "") -> Iterator[str]:
        """A line for each change, with those of nested stacks: each has a change set of its own."""
        for each in described["Changes"]:
            change = each["ResourceChange"]
            yield _change(change, within)
            if change["ResourceType"] == CLUSTER and (
                change["Action"] == "Remove" or change.get("Replacement") in ("True", "Conditional")
            ):
                self.ends_cluster = True
                self.replaces_cluster |= change["Action"] != "Remove"
            if change.get("ChangeSetId"):
                nested = self._wait_for_change_set(cloudformation, ChangeSetName=change["ChangeSetId"])
                yield from self._all_changes(cloudformation, nested, f"{within}{change['LogicalResourceId']}.")

    def check_role(self) -> None:
        """Raises AwsAccessError unless IAM says that the role of the present cluster's nodes may read the release."""
        try:
            cluster = Call("emr", "DescribeCluster", {"ClusterId": self._cluster_id or ""}).send()["Cluster"]
            access = release_access(cluster_role(cluster), self._release_files())
        except MovementError as error:
            access = unknown(str(error))
        if access.status == "pass":
            return
        doubt = "" if access.status == "fail" else "it is unknown whether the nodes' role may read it: "
        raise AwsAccessError(
            f"release {self._own['Release']}: {doubt}{access.found}. Nothing was changed. If you know that the role of "
            "the new cluster's nodes may read it, run the command with --unchecked"
        )

    def _release_files(self) -> list[str]:
        """The addresses of the release's files."""
        if self._release_uploads:
            return [address(call) for call in self._release_uploads]
        folder, owner = self._own["Release"], caller_account()
        key = f"{folder}/{MANIFEST}"
        with translate_aws_errors(f"read s3://{self._bucket}/{key}"):
            content, _ = read_object(client("s3"), Bucket=self._bucket, Key=key, ExpectedBucketOwner=owner)
        names = [*json.loads(content)["artifacts"], MANIFEST]
        return [f"s3://{self._bucket}/{folder}/{name}" for name in names]

    def discard(self) -> None:
        """Deletes the change set; the stack stays as it is."""
        with translate_aws_errors(f"delete the change set {self._change_set}"):
            client("cloudformation").delete_change_set(StackName=self._name, ChangeSetName=self._change_set)

    def execute(self, notice: Notice = lambda _text: None) -> None:
        """Makes the changes and waits until they are done. Raises TerminalError with the first failure's reason."""
        cloudformation = client("cloudformation")
        with translate_aws_errors(f"change the stack {self._name}"):
            cloudformation.execute_change_set(StackName=self._name, ChangeSetName=self._change_set)
        while True:
            there = find_stack(cloudformation, self._name)
            status = str(there["StackStatus"]) if there else "gone"
            notice(f"{self._name}: {status}")
            if not status.endswith("_IN_PROGRESS"):
                break
            time.sleep(POLL_SECONDS)
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise TerminalError(f"stack {self._name} is {status}: {self._reason(cloudformation)}")

    def outputs(self) -> dict[str, str]:
        """The stack's outputs."""
        return stack_outputs(self._name)

    def _uploads(self, owner: str) -> list[tuple[str, dict[str, Any]]]:
        common = {"Bucket": self._bucket, "ContentType": "application/yaml", "ExpectedBucketOwner": owner}
        return [(file, {**common, "Key": f"{self._templates}/{file}.yaml"}) for file in sorted(self._files)]

    def _create_change_set(self, update: bool, known: set[str]) -> dict[str, Any]:
        host = "amazonaws.com.cn" if str(self._region).startswith("cn-") else "amazonaws.com"
        parameters: list[dict[str, Any]] = [
            {"ParameterKey": key, "ParameterValue": value} for key, value in self._given.items()
        ]
        kept = sorted((known & declared_parameters()) - self._given.keys())
        parameters += [{"ParameterKey": key, "UsePreviousValue": True} for key in kept]
        return {
            "StackName": self._name,
            "ChangeSetName": self._change_set,
            "ChangeSetType": "UPDATE" if update else "CREATE",
            "TemplateURL": f"https://{self._bucket}.s3.{self._region}.{host}/{self._templates}/{ROOT}.yaml",
            "Parameters": parameters,
            "Capabilities": ["CAPABILITY_IAM"],
            "IncludeNestedStacks": update,
        }

    def _make_change_set(self, cloudformation: CloudFormationClient, request: dict[str, Any]) -> Any:
        with translate_aws_errors(f"make a change set of the stack {self._name}"):
            cloudformation.create_change_set(**request)
        return self._wait_for_change_set(cloudformation, StackName=self._name, ChangeSetName=self._change_set)

    def _wait_for_change_set(self, cloudformation: CloudFormationClient, **asked: Any) -> Any:
        """Waits until a change set is created or refused; returns it with all pages of its changes."""
        while True:
            with translate_aws_errors(f"look at the change set {asked['ChangeSetName']}"):
                described: Any = cloudformation.describe_change_set(**asked)
                if described["Status"] in ("CREATE_COMPLETE", "FAILED"):
                    token = described.get("NextToken")
                    while token:
                        page: Any = cloudformation.describe_change_set(**asked, NextToken=token)
                        described["Changes"] += page["Changes"]
                        token = page.get("NextToken")
                    return described
            time.sleep(POLL_SECONDS)

    def _reason(self, cloudformation: CloudFormationClient) -> str:
        """The first failure, in the nested stack in which it happened."""
        stack, names = self._name, list[str]()
        while True:
            with translate_aws_errors(f"look at the events of the stack {stack}"):
                pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack)
                events = [event for page in pages for event in page["StackEvents"]]
            failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
            if not failed:
                return f"{'.'.join(names)}: its events name no failed resource".lstrip(": ")
            first = failed[-1]  # events come newest first, and the first failure is the cause
            names.append(first["LogicalResourceId"])
            nested = first.get("PhysicalResourceId", "")
            if first.get("ResourceType") != NESTED or not nested or nested == stack:
                return f"{'.'.join(names)}: {first.get('ResourceStatusReason', 'no reason given')}"
            stack = nested


def templates() -> dict[str, bytes]:
    """The root template and each nested one, by name. Raises ConfigurationError if there are none."""
    files = [file for file in sorted(TEMPLATES.glob("*.yaml")) if file.stem not in STANDALONE]
    found = {file.stem: file.read_bytes() for file in files}
    if ROOT not in found:
        raise ConfigurationError(f"{TEMPLATES}: no templates; run `movement deploy stack` from a clone of the project")
    return found


def declared_parameters() -> set[str]:
    """The parameters of the root template."""
    section = re.search(r"(?ms)^Parameters:\n(.*?)^\S", templates()[ROOT].decode("utf-8"))
    return set(re.findall(r"(?m)^  ([A-Za-z0-9]+):$", section[1])) if section else set()


def _parameters(given: Iterable[str], own: set[str]) -> dict[str, str]:
    """Parses `NAME=VALUE`, and checks the names against the root template."""
    found: dict[str, str] = {}
    allowed = declared_parameters() - own
    for each in given:
        name, separator, value = each.partition("=")
        if not separator or name not in allowed:
            raise ConfigurationError(f"--parameter {each}: not NAME=VALUE with one of {', '.join(sorted(allowed))}")
        found[name] = value
    return found


def _refused(described: Mapping[str, Any]) -> bool:
    """Whether CloudFormation refused a change set for another reason than that nothing changes."""
    reason = described.get("StatusReason", "")
    return described["Status"] == "FAILED" and not any(text in reason for text in NO_CHANGES)


def _change(change: Mapping[str, Any], within: str) -> str:
    replaced = {"True": " (REPLACED)", "Conditional": " (MAY BE REPLACED)"}.get(change.get("Replacement", ""), "")
    return f"{change['Action']} {within}{change['LogicalResourceId']} {change['ResourceType']}{replaced}"


def find_stack(cloudformation: CloudFormationClient, name: str) -> Any:
    """A stack's description; None if it does not exist."""
    with translate_aws_errors(f"look at the stack {name}"):
        try:
            return cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if error_code(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise


def stack_outputs(name: str) -> dict[str, str]:
    """A stack's outputs by name. Raises AwsAccessError if it does not exist."""
    there = find_stack(client("cloudformation"), name)
    if there is None:
        raise AwsAccessError(f"stack {name}: does not exist; check the name, the region and the account")
    return _outputs(there)


def _outputs(there: Mapping[str, Any]) -> dict[str, str]:
    return {each["OutputKey"]: each["OutputValue"] for each in there.get("Outputs", [])}


def settings_of(outputs: Mapping[str, str]) -> dict[str, Any]:
    """The settings from a stack's outputs, nested as in a settings file, on top of the platform's file in conf/.

    Raises ConfigurationError if the stack is not from our templates.
    """
    missing = {"Lake", "Database", "StreamName"} - outputs.keys()
    if missing:
        raise ConfigurationError(
            f"the stack has no output {', '.join(sorted(missing))}: was it created from root.yaml?"
        )
    # The written file replaces the platform's, so it begins with it.
    on_emr, on_glue = outputs.keys() & {"ApplicationId", "ClusterId"}, "StreamingJobName" in outputs
    platform = "emr.yaml" if on_emr else "glue.yaml" if on_glue else None
    settings: dict[str, Any] = read_yaml(find_configuration(platform)) if platform else {}
    for output, key in SETTINGS.items():
        if output in outputs:
            *sections, last = key.split(".")
            section = settings
            for each in sections:
                section = section.setdefault(each, {})
            section[last] = outputs[output]
            if output == "Release":  # the setting is the folder of all releases, the output one release in it
                section[last] = outputs[output].rpartition("/")[0]
            if output == "StreamingWorkers":
                section[last] = int(outputs[output])
    return settings
