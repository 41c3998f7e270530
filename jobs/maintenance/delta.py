"""Compaction of the processed table where it is a Delta table: delta-rs' OPTIMIZE and VACUUM.

Beside the running stream: what is rewritten is no change of data, so that appends and it do not conflict, and a reader
sees a version with the old files or one with the new. VACUUM ("lite") deletes only files that the log says were
replaced: a batch's files that are not in the log yet are none of its business.
Source: https://delta-io.github.io/delta-rs/usage/optimize/small-file-compaction-with-optimize/
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from deltalake import WriterProperties
from deltalake.exceptions import DeltaError

from jobs.common.errors import TransientError
from jobs.lake.delta import PROCESSED, open_delta
from jobs.lake.store import Lake
from jobs.schema.partitions import parse_partition_path

_COMPRESSIONS = {"none": "UNCOMPRESSED"}


@dataclass(frozen=True)
class Rewritten:
    """What a partition's compaction took away and put there: files and their bytes."""

    removed: int
    removed_bytes: int
    added: int
    added_bytes: int


def optimize(lake: Lake, partition: str, target_bytes: int, compression: str) -> Rewritten:
    """Makes few files of a partition's small ones, in one commit."""
    opened = open_delta(f"{lake.uri}/{PROCESSED}")
    if opened is None:
        raise TransientError(f"{lake.uri}/{PROCESSED} has no Delta log any more: somebody has deleted it")
    # delta-rs calls null an empty text.
    filters = [(name, "=", value or "") for name, value in parse_partition_path(partition).items()]
    properties = WriterProperties(compression=_COMPRESSIONS.get(compression, compression).upper())  # type: ignore[arg-type]
    try:
        done = opened.optimize.compact(
            partition_filters=filters, target_size=target_bytes, writer_properties=properties
        )
    except (DeltaError, OSError) as error:
        raise TransientError(f"compact {partition} of {lake.uri}/{PROCESSED}: {error}. Run it again") from error
    removed, added = (json.loads(done[key])["totalSize"] for key in ("filesRemoved", "filesAdded"))
    return Rewritten(done["numFilesRemoved"], removed, done["numFilesAdded"], added)


def vacuum(lake: Lake, grace_seconds: float) -> tuple[int, int]:
    """Deletes files that were replaced so long ago, rounded up to hours, as Delta counts; how many, and their bytes."""
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
    # Those that an earlier run deleted already are named until the log forgets them.
    there = [path for path in gone if path in sizes]
    return len(there), sum(sizes[path] for path in there)
