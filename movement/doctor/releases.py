"""The release in S3: complete, for the platform's Python and processor, and readable by the job's role."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from jobs.common.aws import read_object
from jobs.common.findings import Answer, failed, passed, unknown
from movement.deploy.emr import cluster_processors, other_processor
from movement.deploy.emr_serverless import PROCESSORS
from movement.deploy.role_access import release_access
from movement.doctor.checks import Account
from movement.doctor.platforms import application, cluster, glue_job, pythons
from movement.doctor.roles import job_role
from movement.packaging.release import EMR_ENVIRONMENT, GLUE_ENVIRONMENT, MANIFEST

_NOT_SET = "deploy.artifacts is not set"


def release_folder(account: Account) -> tuple[str, str] | None:
    """The release's bucket and folder: --release, the Glue job's, or the newest in `deploy.artifacts`; None: none.

    A release is complete with its manifest, which is uploaded last.
    """
    return account.once("release", lambda: _find_release(account))


def _find_release(account: Account) -> tuple[str, str] | None:
    artifacts = account.settings.deploy.artifacts
    if artifacts is None:
        return None
    bucket, _, prefix = artifacts.removeprefix("s3://").partition("/")
    if account.release is not None:
        return bucket, f"{prefix}/{account.release}".lstrip("/")
    script = (glue_job(account) or {}).get("Command", {}).get("ScriptLocation", "")
    if found := re.fullmatch(r"s3://([^/]+)/(.+)/jobs/[^/]+", script):
        return found[1], found[2]
    newest = None
    pages = (
        account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/".lstrip("/"))
    )
    for page in pages:
        for each in page.get("Contents", ()):
            if each["Key"].endswith(f"/{MANIFEST}") and (
                newest is None or each["LastModified"] > newest["LastModified"]
            ):
                newest = each
    return (bucket, newest["Key"].removesuffix(f"/{MANIFEST}")) if newest else None


def _manifest(account: Account, bucket: str, folder: str) -> dict[str, Any]:
    s3, key = account.client("s3"), f"{folder}/{MANIFEST}"
    content = account.once("manifest", lambda: read_object(s3, Bucket=bucket, Key=key)[0])
    return dict(json.loads(content))


def check_release(account: Account) -> Answer:
    """Whether every file of the manifest is there with its size. The checksums were checked at the upload."""
    place = release_folder(account)
    if place is None:
        return unknown(_none(account), "movement package, then movement deploy")
    bucket, folder = place
    manifest = _manifest(account, bucket, folder)
    listed = account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{folder}/")
    sizes = {each["Key"]: each["Size"] for page in listed for each in page.get("Contents", ())}
    wrong = [name for name, each in manifest["artifacts"].items() if sizes.get(f"{folder}/{name}") != each["bytes"]]
    if wrong:
        return failed(
            f"s3://{bucket}/{folder}: {wrong[0]} is missing or has another size"
            + (f", and {len(wrong) - 1:,} files more" if len(wrong) > 1 else ""),
            "delete the folder and deploy the release again",
        )
    return passed(f"s3://{bucket}/{folder}: {len(manifest['artifacts'])} files, as the manifest says")


def check_python(account: Account) -> Answer:
    """Whether the release's environment is for a Python and a processor that the platform has."""
    place = release_folder(account)
    if place is None:
        return unknown(_none(account))
    on_emr = account.settings.deploy.emr_serverless.application_id or account.settings.deploy.emr.cluster_id
    name = EMR_ENVIRONMENT if on_emr else GLUE_ENVIRONMENT
    environment = _manifest(account, *place)["environments"].get(name)
    if environment is None:
        return failed(f"{place[1]} has no {name}", "movement package builds one")
    text = f"{name}: Python {environment['python']} on {environment['processor']}, {environment['interpreter']}"
    if environment["python"] not in pythons(account):
        return failed(
            text, f"movement package --python {pythons(account)[-1]}: the platform has {', '.join(pythons(account))}"
        )
    found = application(account)
    processor = "x86_64" if not on_emr else PROCESSORS.get((found or {}).get("architecture") or "X86_64")
    if (found is not None or not on_emr) and environment["processor"] != processor:
        return failed(text, f"movement package --platform {processor}: the platform runs on {processor}")
    nodes = cluster(account)
    if found is None and nodes is not None:
        processors = cluster_processors(account.client("emr"), account.client("ec2"), nodes)
        other = other_processor(processors, environment["processor"])
        if other is not None:
            kind, processor = other
            return failed(
                f"{text}; {kind} of the cluster runs on {processor}", f"movement package --platform {processor}"
            )
        if not processors:
            return unknown(f"{text}; the cluster has no instances to compare it with")
    return passed(text)


def check_release_readable(account: Account) -> Answer:
    """Whether the job's role may read every file of the release. Without that the job never starts."""
    place, role = release_folder(account), job_role(account)
    if place is None:
        return unknown(_none(account))
    if role is None:
        return unknown("deploy.role_arn is not set, and no cluster or Glue job names a role")
    bucket, folder = place
    names = [*_manifest(account, bucket, folder)["artifacts"], MANIFEST]
    access = release_access(role, [f"s3://{bucket}/{folder}/{name}" for name in names])
    remedy = f"allow it s3:GetObject on arn:{account.partition}:s3:::{bucket}/{folder}/*, and kms:Decrypt on its key"
    return replace(access, remedy=remedy if access.status == "fail" else "")


def _none(account: Account) -> str:
    artifacts = account.settings.deploy.artifacts
    return _NOT_SET if artifacts is None else f"no release in {artifacts}"
