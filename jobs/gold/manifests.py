"""Lists a gold table's files for readers that cannot read Delta logs.

Redshift Spectrum reads `_symlink_format_manifest/manifest` (one path a line); Redshift's COPY reads a JSON manifest.
Both are computed from the Delta log and overwrite their predecessors. If a run dies before it writes them, the older
ones are valid until VACUUM, and the next run replaces them.
Source: https://docs.aws.amazon.com/redshift/latest/dg/c-spectrum-external-tables.html (Delta Lake),
https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable

import pyarrow as pa
from deltalake import DeltaTable

from jobs.gold.tables import GoldTable
from jobs.lake.store import Lake

# Delta ignores folders whose names begin with an underscore.
SYMLINKS = "_symlink_format_manifest"
COPY = "_copy_manifest/manifest.json"


def data_files(opened: DeltaTable) -> list[tuple[str, int]]:
    """(path in the table, bytes) of every file of the latest version."""
    actions = pa.table(opened.get_add_actions(flatten=True)).select(["path", "size_bytes"])
    return sorted((row["path"], row["size_bytes"]) for row in actions.to_pylist())


def row_count(opened: DeltaTable) -> int:
    """The number of rows, from the Delta log's statistics; no file is read."""
    actions = pa.table(opened.get_add_actions(flatten=True))
    return sum(actions["num_records"].to_pylist()) if actions.num_rows else 0


def symlink_manifest(root: str, files: Iterable[tuple[str, int]]) -> bytes:
    """One URI a line."""
    return "".join(f"{root}/{path}\n" for path, _ in files).encode()


def copy_manifest(root: str, files: Iterable[tuple[str, int]]) -> bytes:
    """COPY's manifest. For Parquet, COPY needs each file's `content_length`."""
    entries = [{"url": f"{root}/{path}", "mandatory": True, "meta": {"content_length": size}} for path, size in files]
    return json.dumps({"entries": entries}, indent=1).encode()


def outdated_manifests(lake: Lake, table: GoldTable, opened: DeltaTable) -> dict[str, bytes]:
    """The manifests that do not match the table's Delta log: path and new content."""
    root, files = f"{lake.uri}/{table.folder}", data_files(opened)
    wanted = {
        f"{table.folder}/{SYMLINKS}/manifest": symlink_manifest(root, files),
        f"{table.folder}/{COPY}": copy_manifest(root, files),
    }
    return {path: content for path, content in wanted.items() if lake.get(path) != content}


def write_manifests(lake: Lake, table: GoldTable, opened: DeltaTable) -> None:
    """Writes the manifests that are outdated. The caller holds the lease, so that no older writer can come last."""
    for path, content in outdated_manifests(lake, table, opened).items():
        lake.put(path, io.BytesIO(content))
