"""May a role read the files of a release? IAM's policy simulator answers; the role is not assumed.

The simulator evaluates the role's policies, its permissions boundary and the organization's service control policies.
It cannot evaluate resource policies for a role, so a Deny in the bucket's or the key's policy is not seen:
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from jobs.common.aws import client, error_code, translate_aws_errors
from jobs.common.errors import AwsAccessError, MovementError

# The simulator's request has at most this many resources, so that its answer fits one page.
_RESOURCES = 100
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Access:
    """The answer: `pass`, `fail`, or `unknown` if AWS did not tell. `detail`: one sentence with the remedy."""

    verdict: Literal["pass", "fail", "unknown"]
    detail: str


def release_access(role_arn: str, uris: Sequence[str]) -> Access:
    """Whether `role_arn` may read these objects (`s3://bucket/key`) and decrypt them. All must exist.

    Sends HeadObject for each, then SimulatePrincipalPolicy. An error of AWS is the answer `unknown`, with its text.
    """
    try:
        keys = _keys(uris)
        _, partition, _, _, account, _ = role_arn.split(":", 5)
        known = {"aws:ResourceAccount": account, "aws:PrincipalAccount": account, "aws:SecureTransport": "true"}
        objects = {f"arn:{partition}:s3:::{uri.removeprefix('s3://')}": uri for uri in uris}
        decisions = simulate(role_arn, "s3:GetObject", objects, known)
        refused = sorted(objects[each] for each in objects if decisions.get(each) != "allowed")
        if refused:
            return Access(
                "fail",
                f"{role_arn} may not read {_few(refused)}: its policy needs s3:GetObject on them; `movement deploy "
                "stack` adds it to a stack of an earlier release",
            )
        for key in sorted(keys):
            host = f"s3.{key.split(':')[3]}.amazonaws.com"
            decided = simulate(role_arn, "kms:Decrypt", [key], {**known, "kms:ViaService": host})
            if decided.get(key) != "allowed" and not _is_managed_by_aws(key):
                return Access("fail", f"{role_arn} may not decrypt the release: its policy needs kms:Decrypt on {key}")
    except _MissingObjectError as error:
        return Access("fail", f"{error}: the release is not complete; upload it with `movement deploy`")
    except MovementError as error:
        return Access("unknown", f"{error} (the check needs iam:SimulatePrincipalPolicy)")
    return Access("pass", f"{role_arn} may read the release")


def simulate(role_arn: str, action: str, resources: Iterable[str], context: Mapping[str, str]) -> dict[str, str]:
    """IAM's decision for each resource's ARN: `allowed`, `implicitDeny` or `explicitDeny`.

    `context`: condition keys and their values. Raises AwsAccessError if a policy has a condition on another key, so
    that the answer would mean nothing, and AwsAccessError or TransientError if AWS does not answer.
    """
    entries = [
        {
            "ContextKeyName": key,
            "ContextKeyValues": [value],
            "ContextKeyType": "boolean" if value == "true" else "string",
        }
        for key, value in context.items()
    ]
    asked, decisions = list(resources), dict[str, str]()
    iam = client("iam", retries={"mode": "standard", "max_attempts": 3})
    with translate_aws_errors(f"simulate {action} of {role_arn}"):
        for first in range(0, len(asked), _RESOURCES):
            pages = iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=role_arn,
                ActionNames=[action],
                ResourceArns=asked[first : first + _RESOURCES],
                ContextEntries=entries,
            )
            for page in pages:
                for result in page["EvaluationResults"]:
                    decisions |= _decisions(role_arn, result)
    return decisions


def _decisions(role_arn: str, result: Mapping[str, Any]) -> dict[str, str]:
    """By resource. IAM used to send a result for each resource; now the resources are within one result."""
    found = {}
    for each in result.get("ResourceSpecificResults") or [result]:
        decided = each.get("EvalResourceDecision") or each["EvalDecision"]
        missing = each.get("MissingContextValues", [])
        if decided != "allowed" and missing:
            raise AwsAccessError(
                f"a policy of {role_arn} has conditions on {', '.join(missing)}, whose values are unknown"
            )
        found[each.get("EvalResourceName", "*")] = decided
    return found


class _MissingObjectError(Exception):
    """An object of the release does not exist."""


def _keys(uris: Iterable[str]) -> set[str]:
    """The KMS keys of the objects, by ARN. Raises _MissingObjectError."""
    from botocore.exceptions import ClientError

    found = set()
    for uri in uris:
        parts = urlsplit(uri)
        with translate_aws_errors(f"look for {uri}"):
            try:
                head = client("s3").head_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
            except ClientError as error:
                if error_code(error) in ("404", "NoSuchKey", "NotFound"):
                    raise _MissingObjectError(f"{uri} does not exist") from error
                raise
        key = head.get("SSEKMSKeyId")
        if key and key.startswith("arn:"):
            found.add(key)
    return found


def _is_managed_by_aws(key: str) -> bool:
    """Whether it is the key `aws/s3`: its own policy lets everybody in the account use it by S3."""
    with translate_aws_errors(f"look at the key {key}"):
        found = client("kms").describe_key(KeyId=key)["KeyMetadata"].get("KeyManager")
    return bool(found == "AWS")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
