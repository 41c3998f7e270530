"""Policies of the templates, and whether they fit what the parts did: nothing refused, nothing allowed in vain.

Evaluated as IAM does for one account without permission boundaries: what some Allow names is allowed.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.helpers.call_recorder import Call
from tests.helpers.templates import NESTED, Stack

ROOT_PARAMETERS = {
    "BucketName": "a-lake",
    "ArtifactsBucket": "some-artifacts",
    "Release": "movement/0.1.0-5f0c2a91",
    "Templates": "movement/templates/5f0c2a91",
}


@dataclass(frozen=True)
class Statement:
    """An Allow, resolved. `where`: stack, resource and Sid, as a person finds it."""

    where: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditional: bool

    def allows(self, action: str, resource: str) -> bool:
        """Whether it allows an action on a resource."""
        return action in self.actions and any(matches(pattern, resource) for pattern in self.resources)


def matches(pattern: str, resource: str) -> bool:
    """IAM's wildcards: `*` is any text, `?` one character, all else itself, case and all."""
    wild = {"*": ".*", "?": "."}
    return re.fullmatch("".join(wild.get(char, re.escape(char)) for char in pattern), resource, re.DOTALL) is not None


def policies(**parameters: str) -> dict[str, list[Statement]]:
    """`<stack>.<resource>` → its statements, for every role and managed policy of all stacks."""
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


def refused(calls: Iterable[Call], parts: Mapping[str, Iterable[Statement]]) -> list[str]:
    """A line for each call that its part's policy does not allow: who called what, and what to add."""
    return sorted(
        {
            f"{call.part} needs {call.action} on {call.resource} ({call.request}), "
            "and no statement of its policy allows it"
            for call in calls
            if not any(each.allows(call.action, call.resource) for each in parts[call.part])
        }
    )


def in_vain(
    calls: Iterable[Call], parts: Mapping[str, Iterable[Statement]], needs: Mapping[str, Iterable[str]]
) -> list[str]:
    """A line for each action, and each resource, that a statement allows though nothing used it.

    `needs`: statement → actions that it allows for what the run does not show. One that the run does show, or that
    the statement does not allow, is a line too: the list is to stay true.
    """
    calls = list(calls)
    lines = []
    for part, statements in parts.items():
        own = [call for call in calls if call.part == part]
        for each in statements:
            used = [call for call in own if each.allows(call.action, call.resource)]
            done, needed = {call.action for call in used}, set(needs.get(each.where, ()))
            idle = [action for action in each.actions if action not in done | needed]
            lines += [f"{each.where} allows {action}, and {part} never called it" for action in idle]
            lines += [f"aws_needs.yaml: {each.where}: {action} was called: take it out" for action in needed & done]
            lines += [
                f"aws_needs.yaml: {each.where} does not allow {action}: take it out"
                for action in needed - set(each.actions)
            ]
            if not needed:
                lines += [
                    f"{each.where} allows {pattern}, and {part} never touched it"
                    for pattern in each.resources
                    if not any(matches(pattern, call.resource) for call in used)
                ]
    return sorted(lines)
