"""Glue for the catalog's tests: moto's, in this process, with every call noted and failures to order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from jobs.catalog.glue import GlueCatalog, lake_tables
from jobs.common.aws import client
from tests.helpers.samples import TRAVEL_TIMES

LAKE = "s3://bucket/lake"
TABLES = lake_tables(TRAVEL_TIMES)


@pytest.fixture(scope="module")
def _glue() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        environment.setenv("AWS_REGION", "us-east-1")
        with mock_aws():
            yield client("glue", retries={"total_max_attempts": 1})


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


@pytest.fixture
def glue(_glue: Any) -> Iterator[Calls]:
    yield Calls(_glue)
    for database in _glue.get_databases()["DatabaseList"]:
        _glue.delete_database(Name=database["Name"])


@pytest.fixture
def catalog(glue: Calls) -> GlueCatalog:
    """A catalog whose tables are there."""
    found = patient(glue)
    found.ensure_tables(TABLES)
    return found


def patient(glue: Calls) -> GlueCatalog:
    """A catalog that does not really wait between attempts."""
    return GlueCatalog(glue, "travel", LAKE, sleep=lambda _: None)


def table(glue: Calls, name: str) -> dict[str, Any]:
    found: dict[str, Any] = glue.get_table(DatabaseName="travel", Name=name)["Table"]
    return found


def values(glue: Calls, name: str) -> list[list[str]]:
    """The values of every partition that Glue has of a table."""
    pages = glue.get_paginator("get_partitions").paginate(DatabaseName="travel", TableName=name)
    return [partition["Values"] for page in pages for partition in page["Partitions"]]
