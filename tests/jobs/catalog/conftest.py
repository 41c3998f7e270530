"""Glue for the catalog's tests: moto in this process, which records calls and fails on request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from jobs.catalog.glue import GlueCatalog
from jobs.common.aws import client
from tests.helpers.glue_calls import LAKE, TABLES, Calls, patient


@pytest.fixture(scope="module")
def _glue() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        environment.setenv("AWS_REGION", "us-east-1")
        with mock_aws():
            bucket, prefix = LAKE.removeprefix("s3://").split("/")
            client("s3").create_bucket(Bucket=bucket)
            for table in TABLES:  # a table without data follows every contract
                client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{table.name}/a", Body=b"")
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
