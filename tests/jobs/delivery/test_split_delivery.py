"""A crawler that splits the delivered files into several tables: the job fails instead of reading some of them."""

from __future__ import annotations

import itertools

import pytest

from jobs.common.aws import client
from jobs.common.errors import TerminalError
from jobs.delivery.delivery_files import find_delivery_files

pytestmark = pytest.mark.aws
_numbers = itertools.count(1)


@pytest.fixture
def database(embedded_aws: object) -> str:
    """A database with the delivery table, and one beside it; the bucket is empty."""
    name = f"split_{next(_numbers)}"
    client("s3").create_bucket(Bucket=name.replace("_", "-"))
    client("glue").create_database(DatabaseInput={"Name": name})
    add_table(name, "delivery", "lake/delivery/")
    add_table(name, "processed_batch", "lake/processed_batch/")
    add_table(name, "delivery_reports", "lake/delivery_reports")
    return name


def add_table(database: str, table: str, folder: str) -> None:
    location = f"s3://{database.replace('_', '-')}/{folder}"
    client("glue").create_table(
        DatabaseName=database, TableInput={"Name": table, "StorageDescriptor": {"Location": location}}
    )


def test_tables_beside_the_delivered_files_do_not_matter(database: str) -> None:
    assert list(find_delivery_files(client("glue"), database, "delivery")) == []


@pytest.mark.parametrize("folder", ["lake/delivery/ingest_date=2026-11-28", "lake/delivery"])
def test_another_table_of_the_delivered_files_is_an_error_that_names_it(database: str, folder: str) -> None:
    add_table(database, "ingest_date_2026_11_28", folder)

    with pytest.raises(TerminalError, match=r"ingest_date_2026_11_28 is at .*would be missing.*CombineCompatible"):
        list(find_delivery_files(client("glue"), database, "delivery"))
