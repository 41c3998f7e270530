"""Glue as a recorder: each call is kept, and calls fail on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import lake_tables
from jobs.common.retry import RetryPolicy
from tests.helpers.samples import TRAVEL_TIMES

LAKE = "s3://bucket/lake"


TABLES = lake_tables(TRAVEL_TIMES)


class Calls(list[tuple[str, dict[str, Any]]]):
    """Every call to Glue: (operation, arguments); `fail(operation, code)` makes the next ones fail."""

    def __init__(self, glue: Any) -> None:
        super().__init__()
        self._glue = glue
        self._failures: dict[str, list[str]] = {}

    def fail(self, operation: str, code: str, times: int = 1) -> None:
        self._failures.setdefault(operation, []).extend([code] * times)

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        real = getattr(self._glue, operation)
        if operation == "get_paginator":
            return real  # type: ignore[no-any-return]

        def call(**arguments: Any) -> Any:
            self.append((operation, arguments))
            if self._failures.get(operation):
                code = self._failures[operation].pop()
                raise ClientError({"Error": {"Code": code, "Message": "as told"}}, operation)
            return real(**arguments)

        return call

    def of(self, operation: str) -> list[dict[str, Any]]:
        return [arguments for found, arguments in self if found == operation]


def patient(glue: Calls) -> GlueCatalog:
    """A catalog that does not really wait between attempts."""
    return GlueCatalog(glue, "travel", LAKE, RetryPolicy(sleep=lambda _: None))


def table(glue: Calls, name: str) -> dict[str, Any]:
    found: dict[str, Any] = glue.get_table(DatabaseName="travel", Name=name)["Table"]
    return found


def values(glue: Calls, name: str) -> list[list[str]]:
    """The values of every partition that Glue has of a table."""
    pages = glue.get_paginator("get_partitions").paginate(DatabaseName="travel", TableName=name)
    return [partition["Values"] for page in pages for partition in page["Partitions"]]
