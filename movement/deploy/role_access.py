"""May a role read the files of a release? IAM's policy simulator answers (`iam_simulator`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from jobs.common.aws import client, error_code, translate_aws_errors
from jobs.common.errors import AwsAccessError, MovementError
from jobs.common.findings import Answer
from movement.deploy.iam_simulator import simulate

_SHOWN = 3  # names in a message


def release_access(role_arn: str, uris: Sequence[str]) -> Answer:
    """Whether `role_arn` may read these objects (`s3://bucket/key`) and decrypt them. All must exist.

    The answer is one sentence with the remedy. Sends HeadObject for each, then SimulatePrincipalPolicy. An error of AWS
    is the answer `unknown`, with its text.
    """
    try:
        keys = _keys(uris)
        _, partition, _, _, account, _ = role_arn.split(":", 5)
        known = {"aws:ResourceAccount": account, "aws:PrincipalAccount": account, "aws:SecureTransport": "true"}
        objects = {f"arn:{partition}:s3:::{uri.removeprefix('s3://')}": uri for uri in uris}
        decisions = _decisions(role_arn, "s3:GetObject", objects, known)
        refused = sorted(objects[each] for each in objects if decisions.get(each) != "allowed")
        if refused:
            return Answer(
                "fail",
                f"{role_arn} may not read {_few(refused)}: its policy needs s3:GetObject on them; `movement deploy "
                "stack` adds it to a stack of an earlier release",
            )
        for key in sorted(keys):
            host = f"s3.{key.split(':')[3]}.amazonaws.com"
            decided = _decisions(role_arn, "kms:Decrypt", [key], {**known, "kms:ViaService": host})
            if decided.get(key) != "allowed" and not _is_managed_by_aws(key):
                return Answer("fail", f"{role_arn} may not decrypt the release: its policy needs kms:Decrypt on {key}")
    except _MissingObjectError as error:
        return Answer("fail", f"{error}: the release is not complete; upload it with `movement deploy`")
    except MovementError as error:
        return Answer("unknown", f"{error} (the check needs iam:SimulatePrincipalPolicy)")
    return Answer("pass", f"{role_arn} may read the release")


def _decisions(role_arn: str, action: str, resources: Iterable[str], context: Mapping[str, str]) -> dict[str, str]:
    """IAM's decision for each resource's ARN.

    Raises AwsAccessError if a policy has a condition on a key without a value in `context`, so that the answer would
    mean nothing, and AwsAccessError or TransientError if AWS does not answer.
    """
    iam = client("iam", retries={"mode": "standard", "max_attempts": 3})
    with translate_aws_errors(f"simulate {action} of {role_arn}"):
        found = list(simulate(iam, role_arn, [action], resources, context))
    for each in found:
        if each.decision != "allowed" and each.missing:
            raise AwsAccessError(
                f"a policy of {role_arn} has conditions on {', '.join(each.missing)}, whose values are unknown"
            )
    return {each.resource: each.decision for each in found}


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
