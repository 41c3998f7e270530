"""The permissions of each component in access.yaml, with placeholders: the data that `movement doctor` asks IAM about.

After a change of access.yaml: python -m tests.helpers.role_permissions > movement/doctor/role_permissions.yaml
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

from tests.helpers.call_recorder import ACCOUNT, REGION
from tests.helpers.policies import ROOT_PARAMETERS
from tests.helpers.templates import Stack

HEADER = """\
# What each component may call, from infra/cloudformation/access.yaml, for `movement doctor`. Generated:
# python -m tests.helpers.role_permissions > movement/doctor/role_permissions.yaml
"""
# The release has a check of its own, with the real release.
_ELSEWHERE = "ReadTheRelease"


def role_permissions(policies: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """By component: its statements. `policies`: by component, the policy such as access.StreamJobPolicy."""
    names = {
        "BucketName": "{bucket}",
        "LakePrefix": "{prefix}",
        "Database": "{database}",
        "StreamName": "{stream}",
    }
    access = Stack("root", {**ROOT_PARAMETERS, **names}).nested("Access")
    key = access.parameters["KeyArn"]
    found = {}
    for component, policy in policies.items():
        stack, _, logical = policy.partition(".")
        if stack != "access":
            continue
        document = access.properties(logical)["PolicyDocument"]
        found[component] = [_statement(each, key) for each in document["Statement"] if each["Sid"] != _ELSEWHERE]
    return found


def _statement(part: dict[str, Any], key: str) -> dict[str, Any]:
    assert part["Effect"] == "Allow"
    conditions = part.get("Condition", {})
    assert conditions.keys() <= {"StringEquals"}, f"{part['Sid']}: doctor has no value for {sorted(conditions)}"
    context = {str(name): _named(value, key) for name, value in conditions.get("StringEquals", {}).items()}
    found = {
        "sid": str(part["Sid"]),
        "actions": _listed(part["Action"]),
        "resources": [_named(each, key) for each in _listed(part["Resource"])],
    }
    return found | ({"context": context} if context else {})


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _named(text: str, key: str) -> str:
    """A resolved text with placeholders for what differs between accounts."""
    text = str(text)
    for value, name in (
        (key, "{key}"),
        ("arn:aws:", "arn:{partition}:"),
        (REGION, "{region}"),
        (ACCOUNT, "{account}"),
        ("MovementLake", "{namespace}"),
    ):
        text = text.replace(value, name)
    return text


def rendered(policies: dict[str, str]) -> str:
    """The file's content."""
    return HEADER + yaml.safe_dump(role_permissions(policies), sort_keys=False, width=120)


if __name__ == "__main__":
    from tests.infra.test_least_privilege import POLICIES

    sys.stdout.write(rendered(POLICIES))
