"""Lists of a gold table's live files, for readers that do not read Delta logs themselves.

Redshift Spectrum reads a Delta table through `_symlink_format_manifest/manifest` (a path a line), and Redshift's COPY
takes a JSON manifest. Both are put whole, over the ones before, and follow from the Delta log alone: a run that died
before it wrote them leaves the older ones, which stay true until VACUUM, and the next run mends them.
Source: https://docs.aws.amazon.com/redshift/latest/dg/c-spectrum-external-tables.html (Delta Lake),
https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import BinaryIO, Protocol

import pyarrow as pa
from deltalake import DeltaTable

from jobs.gold.tables import GoldTable

# Delta leaves folders that begin with an underscore alone.
SYMLINKS = "_symlink_format_manifest"
COPY = "_copy_manifest/manifest.json"


class Store(Protocol):
    """What is needed of a lake."""

    uri: str

    def get(self, path: str) -> bytes | None: ...

    def put(self, path: str, content: BinaryIO) -> None: ...


def files_of(opened: DeltaTable) -> list[tuple[str, int]]:
    """(path within the table, bytes) of every live file."""
    actions = pa.table(opened.get_add_actions(flatten=True)).select(["path", "size_bytes"])
    return sorted((row["path"], row["size_bytes"]) for row in actions.to_pylist())


def rows_of(opened: DeltaTable) -> int:
    """The table's rows, by the Delta log's own statistics: no file is read."""
    actions = pa.table(opened.get_add_actions(flatten=True))
    return sum(actions["num_records"].to_pylist()) if actions.num_rows else 0


def symlink_manifest(root: str, files: Iterable[tuple[str, int]]) -> bytes:
    """A file's address a line."""
    return "".join(f"{root}/{path}\n" for path, _ in files).encode()


def copy_manifest(root: str, files: Iterable[tuple[str, int]]) -> bytes:
    """COPY's manifest; Parquet needs each file's `content_length`."""
    entries = [{"url": f"{root}/{path}", "mandatory": True, "meta": {"content_length": size}} for path, size in files]
    return json.dumps({"entries": entries}, indent=1).encode()


def outdated(store: Store, table: GoldTable, opened: DeltaTable) -> dict[str, bytes]:
    """Path and new content of the table's manifests that do not say what its Delta log says."""
    root, files = f"{store.uri}/{table.folder}", files_of(opened)
    wanted = {
        f"{table.folder}/{SYMLINKS}/manifest": symlink_manifest(root, files),
        f"{table.folder}/{COPY}": copy_manifest(root, files),
    }
    return {path: content for path, content in wanted.items() if store.get(path) != content}


def publish(store: Store, table: GoldTable, opened: DeltaTable) -> None:
    """Makes both manifests say what the table is. Two at once could leave the older one: hold the lease."""
    for path, content in outdated(store, table, opened).items():
        store.put(path, io.BytesIO(content))
