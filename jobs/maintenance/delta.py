"""Compaction of a processed table in Delta format, with delta-rs' OPTIMIZE and VACUUM.

Runs beside the stream: rewriting changes no data, so it does not conflict with appends, and a reader sees either a
version with the old files or one with the new files. VACUUM ("lite") deletes only files that the log marks as replaced,
so a running batch's files, which are not in the log yet, stay.
Source: https://delta-io.github.io/delta-rs/usage/optimize/small-file-compaction-with-optimize/
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from deltalake import WriterProperties
from deltalake.exceptions import DeltaError

from jobs.common.errors import TransientError
from jobs.lake.delta import PROCESSED, active_files, open_delta
from jobs.lake.store import Lake
from jobs.schema.partitions import parse_partition_path

_COMPRESSIONS = {"none": "UNCOMPRESSED"}


@dataclass(frozen=True)
class Rewritten:
    """A partition's files and their bytes in the version of the table that compaction read, and afterwards.

    Files that the stream adds meanwhile are in neither.
    """

    files_before: int
    bytes_before: int
    files_after: int
    bytes_after: int


def optimize(lake: Lake, partition: str, target_bytes: int, compression: str) -> Rewritten | None:
    """Merges a partition's small files in one commit. Returns None if no files can be merged."""
    opened = open_delta(f"{lake.uri}/{PROCESSED}")
    if opened is None:
        raise TransientError(
            f"{lake.uri}/{PROCESSED} has no Delta log any more: it was deleted. Restore it, or start a new lake"
        )
    # Counted here: the stream has added files to the partition since the run was planned.
    sizes = [size for name, _, size in active_files(opened) if name == partition]
    # delta-rs writes null as an empty string.
    filters = [(name, "=", value or "") for name, value in parse_partition_path(partition).items()]
    properties = WriterProperties(compression=_COMPRESSIONS.get(compression, compression).upper())  # type: ignore[arg-type]
    try:
        done = opened.optimize.compact(
            partition_filters=filters, target_size=target_bytes, writer_properties=properties
        )
    except (DeltaError, OSError) as error:
        raise TransientError(f"compact {partition} of {lake.uri}/{PROCESSED}: {error}. Run it again") from error
    if not done["numFilesAdded"]:
        return None
    removed, added = (json.loads(done[key])["totalSize"] for key in ("filesRemoved", "filesAdded"))
    return Rewritten(
        files_before=len(sizes),
        bytes_before=sum(sizes),
        files_after=len(sizes) - done["numFilesRemoved"] + done["numFilesAdded"],
        bytes_after=sum(sizes) - removed + added,
    )


def vacuum(lake: Lake, grace_seconds: float) -> tuple[int, int]:
    """Deletes files that were replaced at least `grace_seconds` ago, rounded up to hours: 60 s are 1 h.

    Returns their number and bytes.
    """
    opened, hours = open_delta(f"{lake.uri}/{PROCESSED}"), math.ceil(grace_seconds / 3600)
    if opened is None:
        return 0, 0
    try:
        due = set(opened.vacuum(retention_hours=hours, dry_run=True, enforce_retention_duration=False))
        if not due:
            return 0, 0
        sizes = {path.removeprefix(f"{PROCESSED}/"): size for path, size in lake.list(f"{PROCESSED}/")}
        gone = opened.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False)
    except (DeltaError, OSError) as error:
        raise TransientError(f"vacuum {lake.uri}/{PROCESSED}: {error}. Run it again") from error
    # The log also names files that an earlier run deleted.
    there = [path for path in gone if path in sizes]
    return len(there), sum(sizes[path] for path in there)
