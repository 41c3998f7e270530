"""The policies of the templates, compared with recorded calls: calls that no policy allows, and unused permissions.

As in IAM for one account without permission boundaries: an action is allowed if any Allow names it.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.helpers.call_recorder import ACCOUNT, REGION, Call
from tests.helpers.templates import NESTED, Stack

ROOT_PARAMETERS = {
    "BucketName": "a-lake",
    "ArtifactsBucket": "some-artifacts",
    "Release": "movement/0.1.0-5f0c2a91",
    "ReleasesPrefix": "movement/",
    "ArtifactsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/artifacts",
    "Templates": "movement/templates/5f0c2a91",
}


@dataclass(frozen=True)
class Statement:
    """An Allow, resolved. `where`: stack, resource and Sid."""

    where: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditional: bool

    def allows(self, action: str, resource: str) -> bool:
        """Whether the statement allows an action on a resource."""
        return action in self.actions and any(matches(pattern, resource) for pattern in self.resources)


def matches(pattern: str, resource: str) -> bool:
    """Whether a pattern with IAM's wildcards (`*` any text, `?` one character, case-sensitive) fits a resource."""
    wild = {"*": ".*", "?": "."}
    return re.fullmatch("".join(wild.get(char, re.escape(char)) for char in pattern), resource, re.DOTALL) is not None


def policies(**parameters: str) -> dict[str, list[Statement]]:
    """The statements of every role and managed policy of all stacks, by `<stack>.<resource>`."""
    root = Stack("root", {**ROOT_PARAMETERS, **parameters})
    found: dict[str, list[Statement]] = {}
    for stack_name, resource in root.template["Resources"].items():
        if resource["Type"] != NESTED:
            continue
        stack = root.nested(stack_name)
        for logical, each in stack.template["Resources"].items():
            if each["Type"] not in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy", "AWS::IAM::Policy"):
                continue
            properties = stack.properties(logical)
            documents = [
                properties.get("PolicyDocument"),
                *(p["PolicyDocument"] for p in properties.get("Policies", [])),
            ]
            name = f"{stack.name}.{logical}"
            found[name] = [
                _statement(name, part) for document in documents if document for part in document["Statement"]
            ]
    return found


def _statement(name: str, part: Mapping[str, Any]) -> Statement:
    assert part["Effect"] == "Allow", f"{name}.{part['Sid']}: roles allow, they do not deny"
    return Statement(
        f"{name}.{part['Sid']}", _listed(part["Action"]), _listed(part["Resource"]), bool(part.get("Condition"))
    )


def _listed(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else (str(value),)


def refused(calls: Iterable[Call], granted: Mapping[str, Iterable[Statement]]) -> list[str]:
    """A line for each call that the component's policy does not allow. `granted`: statements by component."""
    return sorted(
        {
            f"{call.component} needs {call.action} on {call.resource} ({call.request}), "
            "and no statement of its policy allows it"
            for call in calls
            if not any(each.allows(call.action, call.resource) for each in granted[call.component])
        }
    )


def unused(
    calls: Iterable[Call], granted: Mapping[str, Iterable[Statement]], needs: Mapping[str, Iterable[str]]
) -> list[str]:
    """A line for each action and resource that a statement allows and no call used.

    `needs`: by statement, actions that are allowed without a recorded call. There is also a line for each of these
    that was recorded or is not allowed, so that the list stays correct.
    """
    calls = list(calls)
    lines = []
    for component, statements in granted.items():
        own = [call for call in calls if call.component == component]
        for each in statements:
            used = [call for call in own if each.allows(call.action, call.resource)]
            done, needed = {call.action for call in used}, set(needs.get(each.where, ()))
            idle = [action for action in each.actions if action not in done | needed]
            lines += [f"{each.where} allows {action}, and {component} never called it" for action in idle]
            lines += [f"aws_needs.yaml: {each.where}: {action} was called: remove it" for action in needed & done]
            lines += [
                f"aws_needs.yaml: {each.where} does not allow {action}: remove it"
                for action in needed - set(each.actions)
            ]
            if not needed:
                lines += [
                    f"{each.where} allows {pattern}, and {component} never touched it"
                    for pattern in each.resources
                    if not any(matches(pattern, call.resource) for call in used)
                ]
    return sorted(lines)
