"""Spark's checkpoint of the streaming query: read as Spark writes it, and put back to where the ledger ends.

`metadata` holds the query's id. `offsets/<batch>` is written before a batch runs, `commits/<batch>` after it. Both
have a version and a line of Spark's; in `offsets` the source's offset follows, as a line of JSON.
Source: Spark's OffsetSeqLog and CommitLog, version 1; MicroBatchExecution.populateStartOffsets reads them.
"""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.common.errors import ConfigurationError, TerminalError
from jobs.common.uris import normalize_uri
from jobs.lake.store import Lake, file_name, lake_at

_VERSION = "v1"
_COMMIT = f'{_VERSION}\n{{"nextBatchWatermarkMs":0}}'
_READS_AGAIN = "_started_from_stream"

SourceOffset = dict[str, Any]


@dataclass(frozen=True)
class CheckpointState:
    """How far the checkpoint says that the query is.

    query      the query's name in the ledger: the first 12 hexadecimal digits of its id. None without `metadata`
    planned    the newest batch in `offsets`; Spark runs it again unless it is committed. None without one
    committed  the newest batch in `commits`; None without one
    """

    query: str | None
    planned: int | None
    committed: int | None

    @property
    def is_new(self) -> bool:
        """Whether no batch was ever planned."""
        return self.planned is None and self.committed is None


class Checkpoint:
    """One checkpoint's folder. Only the job that holds the checkpoint's lease may change it."""

    def __init__(self, store: Lake) -> None:
        self._store = store
        self.uri = store.uri

    def state(self) -> CheckpointState:
        """Raises TerminalError if `metadata` is not readable."""
        return CheckpointState(self._query(), self._newest("offsets"), self._newest("commits"))

    def offset(self, batch: int) -> SourceOffset | None:
        """The source's offset at the end of a batch; None if its file is missing, empty or cut off."""
        content = self._store.get(f"offsets/{batch}")
        lines = (content or b"").decode(errors="replace").splitlines()
        if len(lines) < 3 or lines[0] != _VERSION:
            return None
        try:
            found = json.loads(lines[2])
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def restore(self, query: str, batch: int, offset: SourceOffset, before: SourceOffset | None) -> None:
        """Puts the checkpoint to the end of `batch`: Spark goes on with the batch after it.

        `offset`, `before`: the source's offsets at the end of this batch and of the one before it. Safe to repeat.
        Spark's id of the query is kept if it is of `query`.
        """
        # First, so that no later batch of another plan is left if this is cut off.
        self.forget_after(batch)
        if self._query() != query:
            self.restore_query(query)
        if batch > 0:
            # Spark opens it, but starts at the later one, because that one is committed.
            self._write(f"offsets/{batch - 1}", _offsets_file(before or offset))
        self._write(f"offsets/{batch}", _offsets_file(offset))
        self._write(f"commits/{batch}", _COMMIT)

    @property
    def reads_again(self) -> bool:
        """Whether `note_reads_again` was called for this checkpoint."""
        return self._store.get(_READS_AGAIN) is not None

    def note_reads_again(self) -> None:
        """Notes that the job was asked to read the stream again: a platform restarts it with the same arguments."""
        self._store.put(_READS_AGAIN, io.BytesIO(b""))

    def restore_query(self, query: str) -> None:
        """Writes `metadata` for a checkpoint that has lost it."""
        self._write("metadata", json.dumps({"id": _query_id(query)}))

    def forget_after(self, batch: int) -> None:
        """Deletes the offsets and commits of later batches."""
        # Commits first: a commit without its offsets would be an error for Spark.
        for folder in ("commits", "offsets"):
            self._delete(*(f"{folder}/{number}" for number in self._numbers(folder) if number > batch))

    def delete_unreadable_commit(self) -> bool:
        """Deletes the newest commit if it was cut off. Spark then runs its batch again. Returns whether it did."""
        newest = self._newest("commits")
        if newest is None or len((self._store.get(f"commits/{newest}") or b"").splitlines()) > 1:
            return False
        self._delete(f"commits/{newest}")
        return True

    def _query(self) -> str | None:
        content = self._store.get("metadata")
        if content is None:
            return None
        try:
            found = uuid.UUID(json.loads(content)["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise TerminalError(
                f"{self.uri}/metadata does not hold the query's id: {content[:80]!r}. Delete this file and start the "
                "job again: it finds the query in the lake's ledger"
            ) from error
        return found.hex[:12]

    def _newest(self, folder: str) -> int | None:
        return max(self._numbers(folder), default=None)

    def _numbers(self, folder: str) -> list[int]:
        names = (file_name(path) for path, _ in self._store.list(f"{folder}/"))
        return [int(name) for name in names if name.isdigit()]

    def _write(self, path: str, content: str) -> None:
        self._store.put(path, io.BytesIO(content.encode()))
        self._delete_checksum(path)

    def _delete(self, *paths: str) -> None:
        self._store.delete(paths)
        for path in paths:
            self._delete_checksum(path)

    def _delete_checksum(self, path: str) -> None:
        """In a local folder Hadoop keeps a checksum beside each file, which is that of the old content."""
        folder, separator, name = path.rpartition("/")
        self._store.delete([f"{folder}{separator}.{name}.crc"])


def checkpoint_at(uri: str) -> Checkpoint:
    """The checkpoint at `s3://bucket/prefix` or in a local folder. Raises ConfigurationError for another place."""
    place = normalize_uri(uri)
    if "://" in place and not place.startswith("s3://"):
        raise ConfigurationError(
            f"stream_job.checkpoint: {uri}: allowed are s3://bucket/prefix and a local folder. The job compares the "
            "checkpoint with the lake's ledger, and a cluster's HDFS ends with the cluster"
        )
    return Checkpoint(lake_at(place))


def _query_id(query: str) -> str:
    """An id for Spark that starts with `query`, so that the ledger of this query goes on."""
    return str(uuid.UUID(query + uuid.uuid4().hex[len(query) :]))


def _offsets_file(offset: Mapping[str, Any]) -> str:
    line = {"batchWatermarkMs": 0, "batchTimestampMs": int(time.time() * 1000), "conf": {}}
    return f"{_VERSION}\n{json.dumps(line, separators=(',', ':'))}\n{json.dumps(offset)}"
