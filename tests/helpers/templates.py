"""Resolves the templates as CloudFormation does: parameters, intrinsic functions, nested stacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from cfnlint.decode import decode

from tests.helpers.call_recorder import ACCOUNT, REGION
from tests.helpers.paths import ROOT

FOLDER = ROOT / "infra" / "cloudformation"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "movement-lake",
    "AWS::NoValue": None,
}
NESTED = "AWS::CloudFormation::Stack"
# The properties whose value is a resource's Ref.
_NAMED = ("BucketName", "Name", "LogGroupName", "DeliveryStreamName", "DashboardName")
_VARIABLE = re.compile(r"\$\{([^!}][^}]*)\}")


@lru_cache
def load(name: str) -> dict[str, Any]:
    """A template, with short forms (`!Ref x`) replaced by long ones (`{"Ref": "x"}`)."""
    template, problems = decode(str(FOLDER / f"{name}.yaml"))
    assert not problems, problems
    return dict(template)


def template_of(nested: Mapping[str, Any]) -> str:
    """The name of a nested stack's template."""
    return str(nested["Properties"]["TemplateURL"]["Fn::Sub"]).rpartition("/")[2].removesuffix(".yaml")


def references(node: Any) -> Iterator[tuple[str, str | None]]:
    """Yields (name, attribute or None) for each reference by Ref, GetAtt or Sub."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "Ref":
                yield str(value), None
            elif key == "Fn::GetAtt":
                name, _, attribute = (".".join(value) if isinstance(value, list) else str(value)).partition(".")
                yield name, attribute
            elif key == "Fn::Sub":
                text, own = (value[0], set(value[1])) if isinstance(value, list) else (value, set())
                for found in _VARIABLE.findall(text):
                    name, _, attribute = found.partition(".")
                    if name not in own:
                        yield name, attribute or None
                if isinstance(value, list):
                    yield from references(value[1])
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


class Stack:
    """A template with its parameters; `parameters` override the defaults."""

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name = name
        self.template = load(name)
        defaults = {
            key: spec["Default"] for key, spec in self.template.get("Parameters", {}).items() if "Default" in spec
        }
        self.parameters = {**defaults, **parameters}
        missing = self.template.get("Parameters", {}).keys() - self.parameters.keys()
        assert not missing, f"{name}.yaml: no value for {sorted(missing)}"
        self._nested: dict[str, Stack] = {}

    def nested(self, logical: str) -> Stack:
        """A nested stack by its logical name, with the parameters that this stack passes."""
        if logical not in self._nested:
            resource = self.template["Resources"][logical]
            passed = {key: self.value(value) for key, value in resource["Properties"]["Parameters"].items()}
            self._nested[logical] = Stack(template_of(resource), passed)
        return self._nested[logical]

    def properties(self, logical: str) -> dict[str, Any]:
        """A resource's properties, resolved."""
        found: dict[str, Any] = self.value(self.template["Resources"][logical].get("Properties", {}))
        return found

    def condition(self, name: str) -> bool:
        """Whether a condition is true; `Always` is."""
        if name == "Always":
            return True
        return bool(self.value(self.template["Conditions"][name]))

    def value(self, node: Any) -> Any:
        """A node of the template with its intrinsic functions resolved, without values that are AWS::NoValue."""
        if isinstance(node, list):
            return [found for found in map(self.value, node) if found is not None]
        if not isinstance(node, Mapping):
            return node
        if len(node) == 1:
            (function, argument), *_ = node.items()
            if function == "Ref":
                return self._ref(argument)
            if function == "Condition" and isinstance(argument, str):
                return self.condition(argument)
            if function.startswith("Fn::"):
                return getattr(self, "_" + function.removeprefix("Fn::").lower())(argument)
        resolved = {key: self.value(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not None}

    def _ref(self, name: str) -> Any:
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.parameters:
            return self.parameters[name]
        resource = self.template["Resources"][name]
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            return f"arn:aws:iam::{ACCOUNT}:policy/{name}"
        if resource["Type"] == "AWS::Glue::Database":
            return self.value(resource["Properties"]["DatabaseInput"]["Name"])
        if resource["Type"] == "AWS::EC2::Subnet":
            return f"subnet-{name.encode().hex()}"
        named = [resource["Properties"][key] for key in _NAMED if key in resource.get("Properties", {})]
        return self.value(named[0]) if named else f"{self.name}-{name}"

    def _getatt(self, argument: Any) -> Any:
        logical, _, attribute = (".".join(argument) if isinstance(argument, list) else argument).partition(".")
        resource = self.template["Resources"][logical]
        if resource["Type"] == NESTED:
            nested = self.nested(logical)
            return nested.value(nested.template["Outputs"][attribute.removeprefix("Outputs.")]["Value"])
        if attribute != "Arn":
            return f"{self._ref(logical)}"
        _, service, kind = resource["Type"].split("::")
        name, place = self._ref(logical), f"{REGION}:{ACCOUNT}"
        forms = {
            "S3": f"arn:aws:s3:::{name}",
            "Kinesis": f"arn:aws:kinesis:{place}:stream/{name}",
            "SQS": f"arn:aws:sqs:{place}:{name}",
            "KMS": f"arn:aws:kms:{place}:key/{name}",
            "Logs": f"arn:aws:logs:{place}:log-group:{name}:*",
            "Events": f"arn:aws:events:{place}:rule/{name}",
            "IAM": f"arn:aws:iam::{ACCOUNT}:{kind.lower()}/{name}",
        }
        return forms[service]

    def _sub(self, argument: Any) -> str:
        text, own = (argument[0], self.value(argument[1])) if isinstance(argument, list) else (argument, {})

        def filled(match: re.Match[str]) -> str:
            name = match[1]
            if name in own:
                return str(own[name])
            return str(self._getatt(name) if "." in name else self._ref(name))

        return _VARIABLE.sub(filled, text).replace("${!", "${")

    def _if(self, argument: list[Any]) -> Any:
        return self.value(argument[1 if self.condition(argument[0]) else 2])

    def _equals(self, argument: list[Any]) -> bool:
        left, right = self.value(argument[0]), self.value(argument[1])
        return str(left) == str(right)

    def _not(self, argument: list[Any]) -> bool:
        return not self.value(argument[0])

    def _or(self, argument: list[Any]) -> bool:
        return any(self.value(each) for each in argument)

    def _join(self, argument: list[Any]) -> str:
        return str(argument[0]).join(map(str, self.value(argument[1])))

    def _select(self, argument: list[Any]) -> Any:
        return self.value(argument[1])[int(argument[0])]

    def _split(self, argument: list[Any]) -> list[str]:
        return str(self.value(argument[1])).split(argument[0])

    def _getazs(self, _: Any) -> list[str]:
        return [f"{REGION}a", f"{REGION}b"]

    def _cidr(self, argument: list[Any]) -> list[str]:
        return [f"{self.value(argument[0])}#{number}" for number in range(int(argument[1]))]
