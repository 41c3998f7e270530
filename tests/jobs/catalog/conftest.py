"""Glue for the catalog's tests: moto in this process, which records calls and fails on request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from jobs.catalog.glue import GlueCatalog
from jobs.common.aws import client
from tests.helpers.glue_calls import TABLES, Calls, patient


@pytest.fixture(scope="module")
def _glue() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        environment.setenv("AWS_REGION", "us-east-1")
        with mock_aws():
            yield client("glue", retries={"total_max_attempts": 1})


@pytest.fixture
def glue(_glue: Any) -> Iterator[Calls]:
    yield Calls(_glue)
    for database in _glue.get_databases()["DatabaseList"]:
        _glue.delete_database(Name=database["Name"])


@pytest.fixture
def catalog(glue: Calls) -> GlueCatalog:
    """A catalog with its tables."""
    found = patient(glue)
    found.ensure_tables(TABLES)
    return found
