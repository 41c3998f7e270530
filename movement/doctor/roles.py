"""Roles: may the role make every call that the tests recorded of its component?

The calls are in `role_permissions.yaml`, which a test holds equal to infra/cloudformation/access.yaml, and another test
holds that equal to the recorded calls. What IAM's simulator takes into account is in `movement.deploy.iam_simulator`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from jobs.common.errors import ConfigurationError
from jobs.common.findings import Answer, failed, passed, unknown
from local.resources import lake_location
from movement.deploy.emr import node_role
from movement.deploy.iam_simulator import simulate
from movement.doctor.checks import Account
from movement.doctor.platforms import cluster, glue_job

JOB = "stream-job"
SHOWN = 3
_NO_ROLE = "deploy.role_arn is not set, and no cluster or Glue job names a role"
_DATA = Path(__file__).with_name("role_permissions.yaml")
# A name below a folder, in place of a pattern's `*`.
_SAMPLE = "movement-doctor"


@dataclass(frozen=True)
class Permission:
    """Actions, each on each of the resources (ARNs), in requests with these context keys."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    context: tuple[tuple[str, str], ...] = ()


@lru_cache
def recorded() -> dict[str, list[dict[str, Any]]]:
    """By component: its statements, with placeholders such as `{bucket}`."""
    content: dict[str, list[dict[str, Any]]] = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return content


def parse_roles(given: Iterable[str]) -> dict[str, str]:
    """`--role COMPONENT=ARN`, parsed. Raises ConfigurationError."""
    found = {}
    for each in given:
        component, _, arn = each.partition("=")
        if component not in recorded() or ":role/" not in arn:
            raise ConfigurationError(f"--role {each}: not COMPONENT=ROLE-ARN with one of {', '.join(recorded())}")
        found[component] = arn
    return found


def job_role(account: Account) -> str | None:
    """The ARN of the streaming job's role; None if nothing names it.

    By --role, the cluster's instance profile, `deploy.role_arn` or the Glue job, the first that there is.
    """
    if JOB in account.roles:
        return account.roles[JOB]
    if account.settings.deploy.emr.cluster_id and not account.settings.deploy.emr_serverless.application_id:
        return node_role(account.client("iam"), cluster(account) or {})
    if account.settings.deploy.role_arn:
        return account.settings.deploy.role_arn
    role = (glue_job(account) or {}).get("Role")
    return None if role is None else str(role) if ":role/" in str(role) else _role_arn(account, str(role))


def _role_arn(account: Account, name: str) -> str:
    return str(account.client("iam").get_role(RoleName=name.rpartition("/")[2])["Role"]["Arn"])


def check_role(account: Account, component: str) -> Answer:
    """Whether the component's role may make all of its recorded calls."""
    role = job_role(account) if component == JOB else account.roles[component]
    if role is None:
        return unknown(_NO_ROLE)
    if not account.settings.lake.startswith("s3://"):
        return unknown("the lake is a local folder")
    stream_key = account.stream.get("KeyId") if account.stream.get("EncryptionType") == "KMS" else None
    names = names_of(account) | {"key:kinesis": _arn_of_key(account, stream_key), "key:s3": _lake_key(account)}
    wanted = [
        permission
        for permission in permissions(component, names)
        if permission.actions != ("cloudwatch:PutMetricData",) or account.settings.observe.metrics == "cloudwatch"
    ]
    return check_permissions(
        account, role, wanted, f"attach the {component} policy of infra/cloudformation/access.yaml to it"
    )


def check_trust(account: Account) -> Answer:
    """Whether the platform may assume the job's role: the trust policy names it, by conditions that it fulfils.

    For EMR Serverless `aws:SourceAccount` and `aws:SourceArn` are documented. No text says that Glue or EC2 sends them.
    https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/security-iam-runtime-role.html
    """
    role = job_role(account)
    if role is None:
        return unknown(_NO_ROLE)
    deploy = account.settings.deploy
    service = "emr-serverless" if deploy.emr_serverless.application_id else "ec2" if deploy.emr.cluster_id else "glue"
    document = account.client("iam").get_role(RoleName=role.rpartition("/")[2])["Role"]["AssumeRolePolicyDocument"]
    conditions = trusting(document, service)
    if conditions is None:
        return failed(
            f"{role} does not trust {service}.amazonaws.com", f"add {service}.amazonaws.com to its trust policy"
        )
    if conditions and service != "emr-serverless":
        return unknown(
            f"{role} trusts {service}.amazonaws.com if it sends {', '.join(conditions)}, which AWS does not document",
            "remove the condition if the job cannot start",
        )
    return passed(f"{role} trusts {service}.amazonaws.com{', by ' + ', '.join(conditions) if conditions else ''}")


def trusting(document: Mapping[str, Any], service: str) -> list[str] | None:
    """The condition keys under which a trust policy lets a service assume the role; None if it does not."""
    for statement in _listed(document["Statement"]):
        principals = statement.get("Principal", {})
        services = _listed(principals.get("Service", ())) if isinstance(principals, Mapping) else []
        actions = _listed(statement.get("Action", ()))
        named = any(each.removesuffix(".cn") == f"{service}.amazonaws.com" for each in services)
        if statement["Effect"] == "Allow" and named and "sts:AssumeRole" in actions:
            return sorted({key for each in statement.get("Condition", {}).values() for key in each})
    return None


def _listed(value: Any) -> list[Any]:
    """A policy's element that may be one value or a list of them."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def names_of(account: Account) -> dict[str, str]:
    """The values of the placeholders, without keys."""
    bucket, prefix = lake_location(account.settings.lake)
    return {
        "partition": account.partition,
        "region": account.region,
        "account": account.number,
        "bucket": str(bucket),
        "prefix": prefix.rstrip("/"),
        "database": account.settings.database,
        "stream": account.settings.stream.name,
        "namespace": account.settings.observe.namespace,
    }


def permissions(component: str, names: Mapping[str, str | None]) -> Iterator[Permission]:
    """A component's permissions with real names. A statement about a key that is not in use is left out."""
    for statement in recorded()[component]:
        context = {key: str(value).format_map(names) for key, value in statement.get("context", {}).items()}
        service = context.get("kms:ViaService", "").partition(".")[0]
        key = names.get(f"key:{service}")
        if service and key is None:
            continue
        filled = {**names, "key": key}
        # A lake without a folder has no empty one in its addresses.
        resources = (text.format_map(filled).replace("//", "/") for text in statement["resources"])
        yield Permission(
            tuple(statement["actions"]),
            tuple(text if text == "*" else text.replace("*", _SAMPLE) for text in resources),
            tuple(context.items()),
        )


def _lake_key(account: Account) -> str | None:
    return _arn_of_key(account, account.lake_key)


def _arn_of_key(account: Account, key: Any) -> str | None:
    """The ARN of a customer's key. None for AWS's own keys: their policies let every principal of the account use them.

    https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#aws-managed-cmk
    """
    if key is None:
        return None
    found = account.client("kms").describe_key(KeyId=key)["KeyMetadata"]
    return str(found["Arn"]) if found["KeyManager"] == "CUSTOMER" else None


def check_permissions(account: Account, role: str, wanted: Iterable[Permission], remedy: str) -> Answer:
    """Whether IAM's simulator allows a role every permission."""
    denied, missing, count = [], set(), 0
    for permission in wanted:
        context = {"aws:ResourceAccount": account.number, "aws:SecureTransport": "true", **dict(permission.context)}
        found = simulate(account.client("iam"), role, permission.actions, permission.resources, context)
        for action, resource, decision, keys, by_organization in found:
            count += 1
            if decision != "allowed":
                denied.append(f"{action} on {resource}{' (by the organization)' if by_organization else ''}")
                missing |= set(keys)
    if not count:
        return unknown(f"IAM's simulator answered nothing about {role}")
    if denied and missing:
        return unknown(
            f"{role}: a condition needs {', '.join(sorted(missing))}, which doctor does not know: {_some(denied)}",
            "movement deploy smoke proves the role",
        )
    if denied:
        return failed(f"{role} may not: {_some(denied)}", remedy)
    return passed(f"{role} may make all {count} calls")


def _some(denied: list[str]) -> str:
    """The first of the refused calls, and how many more there are."""
    unique = list(dict.fromkeys(denied))
    more = len(unique) - SHOWN
    return ", ".join(unique[:SHOWN]) + (f", and {more:,} more" if more > 0 else "")
