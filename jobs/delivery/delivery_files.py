"""Delivery files: what their names tell, and how they are spread over tasks.

`discovery` finds them; `reading` turns each into records.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from jobs.common.aws import translate_aws_errors

# Firehose: <stream>-<version>-YYYY-MM-DD-HH-MM-SS-<uuid>, the arrival of the file's oldest record, UTC.
# https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html
_STAMP = re.compile(r"-(\d{4})-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-[^/]*$", re.ASCII)
_HOUR = re.compile(r"ingest_date=(\d{4})-(\d\d)-(\d\d)/hour=(\d\d)/", re.ASCII)


@dataclass(frozen=True, order=True)
class DeliveryFile:
    """A file: its full address (`s3://bucket/key`, `file:///path`) and its size in bytes as stored."""

    uri: str
    size: int


def store_and_path(uri: str) -> tuple[str, str]:
    """(store, path in it) of a file's or folder's address: (`s3://bucket`, key) or (`/`, path)."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return "/", (rest if separator else uri).lstrip("/")
    bucket, _, key = rest.partition("/")
    return f"s3://{bucket}", key


def arrived_from(uri: str, otherwise: datetime) -> datetime:
    """When the file's oldest record arrived on the stream, in whole seconds, UTC.

    From the file's name, else from its folders (then the hour's start), else `otherwise`. Every record of the file
    arrived then or later, and within what Firehose buffers (at most 15 minutes).
    """
    for pattern in (_STAMP, _HOUR):
        found = pattern.search(uri)
        if found is not None:
            try:
                return datetime(*(int(part) for part in found.groups()), tzinfo=UTC)  # type: ignore[arg-type, misc]
            except ValueError:
                continue  # digits that are no time of the calendar
    return otherwise


def spread(files: Iterable[DeliveryFile], tasks: int) -> list[list[DeliveryFile]]:
    """Files over at most `tasks` tasks, so that each has about the same bytes; the same files give the same tasks.

    A file costs a request even if it is small, which counts as 64 KiB.
    """
    largest_first = sorted(files, key=lambda file: (-file.size, file.uri))
    loads = [(0, number) for number in range(min(tasks, len(largest_first)))]
    found: list[list[DeliveryFile]] = [[] for _ in loads]
    for file in largest_first:
        load, number = heapq.heappop(loads)
        found[number].append(file)
        heapq.heappush(loads, (load + file.size + 64 * 1024, number))
    return [sorted(task) for task in found]


# The delivery table's files: its partitions from the Glue catalog, their files from the store.


class Store(Protocol):
    """What is read from a bucket or file system: `jobs.lake.store.Lake` is one."""

    def get(self, path: str) -> bytes | None:
        """A file's bytes, or None where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(path, bytes) of every file whose path starts with `prefix`."""
        ...


OpenStore = Callable[[str], Store]


def delivery_files(glue: Any, database: str, table: str, open_store: OpenStore) -> Iterator[DeliveryFile]:
    """Every file of the table's partitions, or of the table's folder where it is not partitioned.

    Raises AwsAccessError where there is no such table: the crawler has not run yet.
    """
    with translate_aws_errors(f"look up the delivery table {database}.{table} (the crawler makes it)"):
        found = glue.get_table(DatabaseName=database, Name=table)["Table"]
    root = _folder(found["StorageDescriptor"]["Location"])
    if not found.get("PartitionKeys"):
        yield from _listed(root, open_store)
        return
    with translate_aws_errors(f"list partitions of {database}.{table}"):
        pages = glue.get_paginator("get_partitions").paginate(
            DatabaseName=database, TableName=table, ExcludeColumnSchema=True
        )
        folders = {_folder(part["StorageDescriptor"]["Location"]) for page in pages for part in page["Partitions"]}
    # One listing for all that lies under the table, however many partitions there are.
    for file in _listed(root, open_store):
        if file.uri.rpartition("/")[0] + "/" in folders:
            yield file
    for elsewhere in sorted(folder for folder in folders if not folder.startswith(root)):
        yield from _listed(elsewhere, open_store)


def _folder(location: str) -> str:
    return location.rstrip("/") + "/"


def _listed(folder: str, open_store: OpenStore) -> Iterator[DeliveryFile]:
    """The folder's files; as for Hive, those that begin with `_` or `.` hold no data."""
    store, prefix = store_and_path(folder)
    base = "file:///" if store == "/" else f"{store}/"
    for path, size in open_store(store).list(prefix):
        parts = path.removeprefix(prefix).split("/")
        if size and not any(part[:1] in ("_", ".") for part in parts if part) and parts[-1]:
            yield DeliveryFile(base + path, size)
