"""Quarantine → the stream: rejected records go back as they came, each once. What `movement replay --quarantine` runs.

From: the lines of quarantine that the ledger vouches for (`jobs.lake.quarantine_files`). Next: the stream, by the
producer's own machinery, with the partition key that the record came with; then the running job, which reads them as
any other record. The journal (`jobs.maintenance.sent_journal`) is what makes it once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobs.common.errors import MovementError
from jobs.common.fault_points import fault_point
from jobs.lake.lease import Lease
from jobs.lake.quarantine_files import QuarantineFile, committed_files, read_lines
from jobs.lake.store import Lake, lake_at
from jobs.maintenance.sent_journal import Line, Run, SentLines
from jobs.settings.settings import Settings
from producer.put_records import MAX_RECORDS, PutClient, PutRecordsClient, kinesis_client
from producer.record_encoder import Record
from producer.send_queue import SendQueue
from producer.sender import Sender
from producer.stream_info import max_record_bytes, shard_map

# A chunk is one request where no key comes twice; what a kill may double is one chunk.
CHUNK_RECORDS = MAX_RECORDS
CHUNK_BYTES = 5 * 1024 * 1024
# Lines of the batch path: the record itself went through the stream, whose job has judged it too.
_BATCH_STAGE = "batch"


@dataclass
class ReplayResult:
    """What a run did, in records.

    `sent` went back onto the stream (`by_reason`: of these), or would with `dry_run`; `already_sent` had gone by an
    earlier run; `skipped` were not chosen, or came from the batch path; `unsendable` are over the stream's limit, or
    have no partition key. `possible_duplicates`, some of `sent`, may be on the stream twice: a request of this run, or
    of one that was killed, had no answer. `uncommitted` files were left by a dead batch and are passed over.
    """

    stream: str
    lake: str
    sent: int = 0
    already_sent: int = 0
    skipped: int = 0
    unsendable: int = 0
    possible_duplicates: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    already_sent_by_reason: dict[str, int] = field(default_factory=dict)
    unsendable_by_reason: dict[str, int] = field(default_factory=dict)
    skipped_by_reason: dict[str, int] = field(default_factory=dict)
    files: int = 0
    uncommitted: int = 0
    dry_run: bool = False
    stopped: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Lines looked at, of how many in all, and records sent."""

    looked_at: int
    lines: int
    sent: int


@dataclass(slots=True)
class _Waiting:
    """A line that is to be sent. `in_doubt`: a run that was killed may have sent it."""

    line: Line
    reason: str
    record: Record
    in_doubt: bool


def replay_quarantine(
    settings: Settings,
    *,
    reasons: Collection[str] = (),
    since: datetime | None = None,
    dry_run: bool = False,
    on_progress: Callable[[ReplayProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    puts: PutClient | None = None,
) -> ReplayResult:
    """Puts the quarantined records of `settings.lake` back onto `settings.stream`, those of `reasons` (none: all) that
    reached the stream at `since` or later. Takes what stands in quarantine when it starts.

    Records of one partition key keep their order. `stop` is asked between two chunks. Raises AwsAccessError where the
    stream is not there, AlreadyRunningError where another replay of this lake runs, TransientError where nothing was
    accepted for `producer.delivery_timeout_seconds`.
    """
    lake = lake_at(settings.lake)
    replay = _Replay(settings, lake, frozenset(reasons), since, dry_run, on_progress, stop)
    if dry_run:
        return replay.run(lambda chunk: None)
    lease = Lease(
        lake,
        f"quarantine of {settings.lake}",
        holder="replay of the",
        remedy="wait for its end, then see what is left (--dry-run)",
    )
    with lease, replay.sending(puts) as sending:
        return replay.run(lambda chunk: replay.send(chunk, sending, lease))


class _Replay:
    def __init__(
        self,
        settings: Settings,
        lake: Lake,
        reasons: frozenset[str],
        since: datetime | None,
        dry_run: bool,
        on_progress: Callable[[ReplayProgress], None],
        stop: Callable[[], bool],
    ) -> None:
        self._settings, self._lake = settings, lake
        self._reasons, self._since = reasons, since
        self._on_progress, self._stop = on_progress, stop
        self._client: Any = kinesis_client(settings.producer.request_timeout_seconds)
        self._record_bytes = max_record_bytes(self._client, settings.stream.name)
        self._run = Run(lake, settings.stream.name)
        self._outbox: SendQueue[int] = SendQueue(max_bytes=settings.producer.max_request_bytes)
        self._accepted: list[int] = []
        self._result = ReplayResult(settings.stream.name, settings.lake, dry_run=dry_run)
        self._sent: Counter[str] = Counter()
        self._already: Counter[str] = Counter()
        self._unsendable: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._looked_at = self._lines = 0

    def sending(self, puts: PutClient | None) -> Sender[int]:
        """One request at a time: so a kill leaves one chunk in doubt."""
        producer, stream = self._settings.producer, self._settings.stream.name
        return Sender(
            self._outbox,
            puts or PutRecordsClient(stream, connections=1, timeout_seconds=producer.request_timeout_seconds),
            self._accepted.extend,
            delivery_timeout_seconds=producer.delivery_timeout_seconds,
            find_shards=lambda: shard_map(self._client, stream),
        )

    def run(self, send: Callable[[list[_Waiting]], None]) -> ReplayResult:
        """Looks at every line and hands those to be sent to `send`, chunk by chunk."""
        started, result = time.monotonic(), self._result
        found = committed_files(self._lake, self._since.date() if self._since else None)
        journal = SentLines(self._lake)
        self._lines = sum(file.rows for file in found.files)
        result.files, result.uncommitted = len(found.files), found.uncommitted
        for chunk in self._chunks(found.files, journal):
            if self._stop():
                result.stopped = True
                break
            send(chunk)
            self._sent.update(waiting.reason for waiting in chunk)
            result.possible_duplicates += sum(waiting.in_doubt for waiting in chunk)
            self._show()
        self._show()
        result.possible_duplicates += self._outbox.counts.possible_duplicates
        result.by_reason, result.already_sent_by_reason = _sorted(self._sent), _sorted(self._already)
        result.unsendable_by_reason, result.skipped_by_reason = _sorted(self._unsendable), _sorted(self._skipped)
        result.sent, result.already_sent = self._sent.total(), self._already.total()
        result.unsendable, result.skipped = self._unsendable.total(), self._skipped.total()
        result.seconds = round(time.monotonic() - started, 3)
        return result

    def send(self, chunk: list[_Waiting], sending: Sender[int], lease: Lease) -> None:
        """Sends a chunk, every record of it accepted, and keeps the journal about it."""
        lease.check()
        entry = self._run.chunk(waiting.line for waiting in chunk)
        fault_point("replay.opening")
        entry.open()
        fault_point("replay.opened")
        self._accepted.clear()
        unanswered = self._outbox.counts.possible_duplicates
        self._outbox.add_each([waiting.record for waiting in chunk], range(len(chunk)))
        try:
            while not self._outbox.empty:
                sending.step(block=True)
        except MovementError:
            # Given up: what is not accepted was not sent, unless a request of this chunk had no answer.
            accepted = set(self._accepted)
            left = [waiting for place, waiting in enumerate(chunk) if place not in accepted]
            lost = self._outbox.counts.possible_duplicates > unanswered
            entry.close(
                (chunk[place].line for place in accepted),
                (waiting.line for waiting in left if lost or waiting.in_doubt),
            )
            raise
        fault_point("replay.sent")
        entry.close(waiting.line for waiting in chunk)
        fault_point("replay.closed")

    def _chunks(self, files: list[QuarantineFile], journal: SentLines) -> Iterator[list[_Waiting]]:
        """The lines to be sent, in order, as many at a time as fit into a request."""
        chunk: list[_Waiting] = []
        size = 0
        for waiting in self._waiting(files, journal):
            data = len(waiting.record.Data)
            if chunk and (len(chunk) == CHUNK_RECORDS or size + data > CHUNK_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(waiting)
            size += data
        if chunk:
            yield chunk

    def _waiting(self, files: list[QuarantineFile], journal: SentLines) -> Iterator[_Waiting]:
        for file in files:
            if file.batch_path:
                self._skipped["(batch path)"] += file.rows
                self._looked_at += file.rows
                continue
            sent, in_doubt = journal.of(file.path)
            for number, line in enumerate(read_lines(self._lake, file.path)):
                self._looked_at += 1
                if not self._chosen(line.reason, line.stage, line.arrival_time):
                    self._skipped[line.reason] += 1
                    continue
                if number in sent:
                    self._already[line.reason] += 1
                    continue
                record = Record(line.data, line.partition_key or "")
                if not record.PartitionKey or _size(record) > self._record_bytes:
                    self._unsendable[line.reason] += 1
                    continue
                yield _Waiting((file.path, number), line.reason, record, number in in_doubt)
            self._show()

    def _chosen(self, reason: str, stage: str, arrival: datetime) -> bool:
        return (
            stage != _BATCH_STAGE
            and (not self._reasons or reason in self._reasons)
            and (self._since is None or arrival >= self._since)
        )

    def _show(self) -> None:
        self._on_progress(ReplayProgress(self._looked_at, self._lines, self._sent.total()))


def _size(record: Record) -> int:
    return len(record.Data) + len(record.PartitionKey.encode())


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
