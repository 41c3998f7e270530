"""Delivery files: how they are found, what their names say, and how they are divided among Spark tasks.

The Glue catalog names the delivery table's partitions, the object store lists their files. `delivery_records` reads
the files.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobs.common.aws import translate_aws_errors
from jobs.common.errors import TerminalError
from jobs.lake.store import lake_at

if TYPE_CHECKING:
    from types_boto3_glue import GlueClient

# Firehose: <stream>-<version>-YYYY-MM-DD-HH-MM-SS-<uuid>, the arrival of the file's oldest record, UTC.
# https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html
_NAME_TIME = re.compile(r"-(\d{4})-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-[^/]*$", re.ASCII)
_FOLDER_HOUR = re.compile(r"ingest_date=(\d{4})-(\d\d)-(\d\d)/hour=(\d\d)/", re.ASCII)

# The cost of one request, in bytes that could be read in the same time.
_REQUEST_BYTES = 64 * 1024


@dataclass(frozen=True, order=True)
class DeliveryFile:
    """A file: its URI (`s3://bucket/key`, `file:///path`) and its size in bytes as stored."""

    uri: str
    size: int


def split_uri(uri: str) -> tuple[str, str]:
    """(store, path in it): `s3://bucket/a/b` is (`s3://bucket`, `a/b`), `file:///a/b` is (`/`, `a/b`)."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return "/", (rest if separator else uri).lstrip("/")
    bucket, _, key = rest.partition("/")
    return f"s3://{bucket}", key


def arrival_of(uri: str, default: datetime) -> datetime:
    """When the file's oldest record arrived on the stream, UTC, in whole seconds.

    Taken from the file's name, else from its folder (the start of the hour), else `default`. The other records
    arrived within Firehose's buffer time after it, which is at most 15 minutes.
    """
    for pattern in (_NAME_TIME, _FOLDER_HOUR):
        found = pattern.search(uri)
        if found is not None:
            try:
                return datetime(*(int(part) for part in found.groups()), tzinfo=UTC)  # type: ignore[arg-type, misc]
            except ValueError:
                continue  # digits that are not a date
    return default


def partition_files(files: Iterable[DeliveryFile], tasks: int) -> list[list[DeliveryFile]]:
    """Divides the files among at most `tasks` tasks of about equal bytes. The same files give the same tasks."""
    largest_first = sorted(files, key=lambda file: (-file.size, file.uri))
    loads = [(0, number) for number in range(min(tasks, len(largest_first)))]
    partitions: list[list[DeliveryFile]] = [[] for _ in loads]
    for file in largest_first:
        load, number = heapq.heappop(loads)
        partitions[number].append(file)
        heapq.heappush(loads, (load + file.size + _REQUEST_BYTES, number))
    return [sorted(partition) for partition in partitions]


def find_delivery_files(glue: GlueClient, database: str, table: str) -> Iterator[DeliveryFile]:
    """Every file of the table's partitions, or of the table's folder if the table is not partitioned.

    Raises AwsAccessError if the table does not exist, because the crawler has not run yet; TerminalError if the crawler
    has made another table within the table's folder.
    """
    with translate_aws_errors(f"look up the delivery table {database}.{table} (the crawler makes it)"):
        description = glue.get_table(DatabaseName=database, Name=table)["Table"]
    root = _folder(description["StorageDescriptor"]["Location"])
    _refuse_siblings(glue, database, table, root)
    if not description.get("PartitionKeys"):
        yield from _list_files(root)
        return
    with translate_aws_errors(f"list partitions of {database}.{table}"):
        pages = glue.get_paginator("get_partitions").paginate(
            DatabaseName=database, TableName=table, ExcludeColumnSchema=True
        )
        folders = {_folder(part["StorageDescriptor"]["Location"]) for page in pages for part in page["Partitions"]}
    # One listing of the table's folder for all partitions.
    for file in _list_files(root):
        if file.uri.rpartition("/")[0] + "/" in folders:
            yield file
    for outside in sorted(folder for folder in folders if not folder.startswith(root)):
        yield from _list_files(outside)


def _refuse_siblings(glue: GlueClient, database: str, table: str, root: str) -> None:
    """Raises TerminalError if another table of the database is at or below `root`: its files are not in `table`.

    A crawler makes such a table for files that it does not find similar or compatible:
    https://docs.aws.amazon.com/glue/latest/dg/crawler-grouping-policy.html
    """
    with translate_aws_errors(f"list the tables of {database}"):
        pages = glue.get_paginator("get_tables").paginate(DatabaseName=database)
        locations = {
            found["Name"]: found.get("StorageDescriptor", {}).get("Location", "")
            for page in pages
            for found in page["TableList"]
        }
    for name, location in sorted(locations.items()):
        if name != table and _folder(location).startswith(root):
            raise TerminalError(
                f"table {database}.{name} is at {location}, within the delivery table's folder {root}: the crawler has "
                f"split the delivered files, and those of {name} would be missing. Look at the files there, set the "
                f"crawler's TableGroupingPolicy to CombineCompatibleSchemas, delete the table {name} and crawl again"
            )


def _folder(location: str) -> str:
    return location.rstrip("/") + "/"


def _list_files(folder: str) -> Iterator[DeliveryFile]:
    """The folder's files. As in Hive, a file or folder whose name begins with `_` or `.` holds no data."""
    store, prefix = split_uri(folder)
    base = "file:///" if store == "/" else f"{store}/"
    for path, size in lake_at(store).list(prefix):
        parts = path.removeprefix(prefix).split("/")
        if size and parts[-1] and not any(part[:1] in ("_", ".") for part in parts if part):
            yield DeliveryFile(base + path, size)
