"""An AWS request as data: --dry-run prints exactly what a run sends, and botocore's model checks both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.validate import ParamValidator

from jobs.common.aws import client, translate_aws_errors
from jobs.common.errors import ConfigurationError


@dataclass(frozen=True)
class Call:
    """One request. `operation` is AWS's name, such as StartJobRun.

    `body`: the file that is sent as the parameter Body. `when`: the condition for sending it, in words.
    """

    service: str
    operation: str
    parameters: dict[str, Any]
    body: Path | None = None
    when: str | None = None

    def describe(self) -> dict[str, Any]:
        """Checks the request and describes it for --dry-run."""
        self.check()
        body = {"Body": f"<the file {self.body}>"} if self.body else {}
        found = {"service": self.service, "operation": self.operation, "parameters": {**self.parameters, **body}}
        return found | ({"when": self.when} if self.when else {})

    def check(self) -> None:
        """Raises ConfigurationError if the parameters do not fit botocore's model of the service."""
        shape = _model(self.service).operation_model(self.operation).input_shape
        body = {"Body": b""} if self.body else {}
        report = ParamValidator().validate({**self.parameters, **body, **_tokens(shape)}, shape)
        wrong = [*report.generate_report().splitlines(), *_not_in_enum(self.parameters, shape, "")]
        if wrong:
            raise ConfigurationError(f"{self.service} {self.operation}: {'; '.join(wrong)}")

    def send(self) -> Any:
        """Sends the request and returns the answer. Raises ConfigurationError, AwsAccessError or TransientError."""
        self.check()
        method = getattr(client(self.service), xform_name(self.operation))
        with translate_aws_errors(f"{self.service} {self.operation}"):
            if self.body is None:
                return method(**self.parameters)
            with self.body.open("rb") as content:
                return method(**self.parameters, Body=content)


def _tokens(shape: Any) -> dict[str, str]:
    """Idempotency tokens: botocore adds them when it sends a request."""
    return {name: "token" for name, member in shape.members.items() if member.metadata.get("idempotencyToken")}


def _not_in_enum(value: Any, shape: Any, at: str) -> Iterator[str]:
    """Names values outside of their enumeration, which botocore does not check."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for name, member in value.items():
            if name in shape.members:
                yield from _not_in_enum(member, shape.members[name], f"{at}.{name}".lstrip("."))
    elif shape.type_name == "list" and isinstance(value, list):
        for member in value:
            yield from _not_in_enum(member, shape.member, at)
    elif shape.type_name == "string" and getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{at}: '{value}' is not one of {', '.join(shape.enum)}"


@lru_cache
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)
