"""Asks IAM's policy simulator whether a role may make calls. The role is not assumed.

The simulator takes the role's policies, its permissions boundary and the organization's policies. It does not take
policies of buckets and keys, so a Deny there is not seen:
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Of one request, so that its answer fits one page.
_RESOURCES = 100


class Decision(NamedTuple):
    """IAM's decision about one action on one resource (ARN).

    decision          `allowed`, `implicitDeny` or `explicitDeny`
    missing           condition keys whose values the simulator would need
    by_organization   whether the organization's policies deny it
    """

    action: str
    resource: str
    decision: str
    missing: list[str]
    by_organization: bool


def simulate(
    iam: Any, role: str, actions: Sequence[str], resources: Iterable[str], context: Mapping[str, str]
) -> Iterator[Decision]:
    """The decision for each action on each resource. `context`: condition keys and their values."""
    entries = [
        {
            "ContextKeyName": key,
            "ContextKeyValues": [value],
            "ContextKeyType": "boolean" if value == "true" else "string",
        }
        for key, value in context.items()
    ]
    asked = list(resources)
    for first in range(0, len(asked), _RESOURCES):
        pages = iam.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=role,
            ActionNames=list(actions),
            ResourceArns=asked[first : first + _RESOURCES],
            ContextEntries=entries,
        )
        for page in pages:
            yield from decisions(page["EvaluationResults"])


def decisions(results: Iterable[Mapping[str, Any]]) -> Iterator[Decision]:
    """The decision of each pair of action and resource.

    The simulator answers once for each action, with the pairs in ResourceSpecificResults; earlier it answered once for
    each pair: https://docs.aws.amazon.com/sdk-for-python/v4/reference/clients/iam/structures/EvaluationResult/
    """
    for result in results:
        refused = not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True)
        for each in result.get("ResourceSpecificResults") or [result]:
            yield Decision(
                result["EvalActionName"],
                each.get("EvalResourceName", "*"),
                each.get("EvalResourceDecision") or each["EvalDecision"],
                each.get("MissingContextValues", []),
                refused,
            )
