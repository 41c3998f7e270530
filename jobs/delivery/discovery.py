"""The delivery table's files: its partitions from the Glue catalog, their files from the store.

A file in a folder that the crawler has not registered is left for the run after the next crawl. A file that came
late into an old partition is found like any other: the store is listed, not the catalog's dates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from jobs.contract.aws import explained
from jobs.delivery.files import DeliveryFile, store_and_path


class Store(Protocol):
    """What is read from a bucket or file system: `jobs.sink.lake.Lake` is one."""

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
    with explained(f"look up the delivery table {database}.{table} (the crawler makes it)"):
        found = glue.get_table(DatabaseName=database, Name=table)["Table"]
    root = _folder(found["StorageDescriptor"]["Location"])
    if not found.get("PartitionKeys"):
        yield from _listed(root, open_store)
        return
    with explained(f"list partitions of {database}.{table}"):
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
