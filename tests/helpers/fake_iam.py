"""A fake of IAM's simulator, which the embedded AWS lacks: it evaluates the statements that a test gives a role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.helpers.policies import matches


class FakeIamSimulator:
    """Answers as AWS does now: once for each action, with each resource in ResourceSpecificResults.

    `statements`: Action, Resource and Condition (StringEquals alone) by role ARN, as in a policy document.
    """

    def __init__(self, statements: Mapping[str, list[dict[str, Any]]]) -> None:
        self._statements = statements

    def get_paginator(self, operation: str) -> FakeIamSimulator:
        assert operation == "simulate_principal_policy"
        return self

    def paginate(
        self,
        PolicySourceArn: str,
        ActionNames: list[str],
        ResourceArns: list[str],
        ContextEntries: list[dict[str, Any]],
    ) -> Iterator[dict[str, Any]]:
        context = {each["ContextKeyName"]: each["ContextKeyValues"][0] for each in ContextEntries}
        for action in ActionNames:
            pairs = [self._pair(PolicySourceArn, action, resource, context) for resource in ResourceArns]
            worst = "allowed" if all(each["EvalResourceDecision"] == "allowed" for each in pairs) else "implicitDeny"
            yield {
                "EvaluationResults": [
                    {"EvalActionName": action, "EvalDecision": worst, "ResourceSpecificResults": pairs}
                ]
            }

    def _pair(self, role: str, action: str, resource: str, context: dict[str, str]) -> dict[str, Any]:
        missing: list[str] = []
        for statement in self._statements[role]:
            fits = any(matches(pattern, resource) for pattern in statement["Resource"])
            if action not in statement["Action"] or not fits:
                continue
            wanted = statement.get("Condition", {}).get("StringEquals", {})
            missing += [key for key in wanted if key not in context]
            if all(context.get(key) == value for key, value in wanted.items()):
                return {"EvalResourceName": resource, "EvalResourceDecision": "allowed", "MissingContextValues": []}
        return {
            "EvalResourceName": resource,
            "EvalResourceDecision": "implicitDeny",
            "MissingContextValues": missing,
        }
