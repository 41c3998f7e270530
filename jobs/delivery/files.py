"""Delivery files: what their names tell, and how they are spread over tasks.

`discovery` finds them; `reading` turns each into records.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

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
