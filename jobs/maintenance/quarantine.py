"""Sends quarantined records back to the stream, each once. `movement replay --quarantine`.

In: the quarantine lines that the ledger names (`jobs.lake.quarantine_files`). Out: the stream, through the producer's
sender, with each record's bytes and partition key as they came; the running job then reads them like any other record.
The journal (`sent_journal`) prevents sending a line twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from jobs.common.errors import MovementError
from jobs.common.fault_points import fault_point
from jobs.lake.lease import Lease
from jobs.lake.quarantine_files import QuarantineFile, committed_files, read_lines
from jobs.lake.sent_journal import JournalRun, Line, SentLines, replay_lease
from jobs.lake.store import Lake, lake_at
from jobs.schema.privacy import check_salt, privacy_salt
from jobs.schema.table import load_contract
from jobs.schema.values import withheld_reason
from jobs.settings.settings import Settings
from producer.put_records import MAX_RECORDS, PutRecordsClient, kinesis_client
from producer.record_encoder import PutRecordsEntry
from producer.send_queue import SendQueue
from producer.sender import Sender
from producer.stream_info import max_record_bytes, shard_map

# A chunk is one request unless a partition key occurs twice. A kill can duplicate at most one chunk.
CHUNK_RECORDS = MAX_RECORDS
CHUNK_BYTES = 5 * 1024 * 1024
# The stage of the batch path's lines. Their records came through the stream, so its job has rejected them too.
_BATCH_STAGE = "batch"


@dataclass
class ReplayResult:
    """What a run did, in records.

    sent                   sent back to the stream, or would be with `dry_run`; `by_reason` counts these
    already_sent           sent by an earlier run
    skipped                not selected, or from the batch path
    unsendable             over the stream's record limit, without a partition key, or withheld by `raw: redacted`
    possible_duplicates    those of `sent` that may be on the stream twice: a request of this run, or of a run that was
                           killed, had no answer
    uncommitted            files that no ledger entry names, left by a run that died; they are ignored
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
    """Lines read, lines in all, and records sent."""

    looked_at: int
    lines: int
    sent: int


@dataclass(slots=True)
class _PendingLine:
    """A line to be sent. `in_doubt`: a run that was killed may have sent it already."""

    line: Line
    reason: str
    record: PutRecordsEntry
    in_doubt: bool


def replay_quarantine(
    settings: Settings,
    *,
    reasons: Collection[str] = (),
    since: datetime | None = None,
    dry_run: bool = False,
    on_progress: Callable[[ReplayProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> ReplayResult:
    """Sends the quarantined records of `settings.lake` back to `settings.stream`.

    Selects the records with one of `reasons` (empty: any) that reached the stream at `since` or later, among the lines
    in quarantine at the start. Records of one partition key keep their order. `stop` is called between two chunks.
    Raises AwsAccessError if there is no stream, AlreadyRunningError if another replay of this lake runs, TransientError
    if nothing was accepted for `producer.delivery_timeout_seconds`.
    """
    lake = lake_at(settings.lake)
    replay = _Replay(settings, lake, frozenset(reasons), since, dry_run, on_progress, stop)
    if dry_run:
        return replay.run(lambda chunk: None)
    lease = replay_lease(lake)
    with lease, replay.sender() as sender:
        return replay.run(lambda chunk: replay.send(chunk, sender, lease))


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
        self._client = kinesis_client(settings.producer.request_timeout_seconds)
        self._record_bytes = max_record_bytes(self._client, settings.stream.name)
        self._run = JournalRun(lake, settings.stream.name)
        self._queue: SendQueue[int] = SendQueue(max_bytes=settings.producer.max_request_bytes)
        self._accepted: list[int] = []
        self._result = ReplayResult(settings.stream.name, settings.lake, dry_run=dry_run)
        self._sent: Counter[str] = Counter()
        self._already: Counter[str] = Counter()
        self._unsendable: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._looked_at = self._lines = 0

    def sender(self) -> Sender[int]:
        """A sender with one request at a time, so that a kill leaves at most one chunk in doubt."""
        producer, stream = self._settings.producer, self._settings.stream.name
        return Sender(
            self._queue,
            PutRecordsClient(stream, connections=1, timeout_seconds=producer.request_timeout_seconds),
            self._accepted.extend,
            delivery_timeout_seconds=producer.delivery_timeout_seconds,
            find_shards=lambda: shard_map(self._client, stream),
        )

    def run(self, send: Callable[[list[_PendingLine]], None]) -> ReplayResult:
        """Reads every line and passes the selected ones to `send`, chunk by chunk."""
        started, result = time.monotonic(), self._result
        found = committed_files(self._lake, self._since.date() if self._since else None)
        self._check_salts(found.files)
        journal = SentLines(self._lake)
        self._lines = sum(file.rows for file in found.files)
        result.files, result.uncommitted = len(found.files), found.uncommitted
        for chunk in self._chunks(found.files, journal):
            if self._stop():
                result.stopped = True
                break
            send(chunk)
            self._sent.update(line.reason for line in chunk)
            result.possible_duplicates += sum(line.in_doubt for line in chunk)
            self._show()
        self._show()
        result.possible_duplicates += self._queue.counts.possible_duplicates
        result.by_reason, result.already_sent_by_reason = _sorted(self._sent), _sorted(self._already)
        result.unsendable_by_reason, result.skipped_by_reason = _sorted(self._unsendable), _sorted(self._skipped)
        result.sent, result.already_sent = self._sent.total(), self._already.total()
        result.unsendable, result.skipped = self._unsendable.total(), self._skipped.total()
        result.seconds = round(time.monotonic() - started, 3)
        return result

    def _check_salts(self, files: list[QuarantineFile]) -> None:
        hashed = [file for file in files if file.redacted_with is not None and not file.batch_path]
        if hashed:
            salt = privacy_salt(load_contract(self._settings.contract).columns)
            for file in hashed:
                check_salt(file.path, file.redacted_with, salt.fingerprint if salt else None)

    def send(self, chunk: list[_PendingLine], sender: Sender[int], lease: Lease) -> None:
        """Sends a chunk until every record is accepted, and notes it in the journal."""
        lease.check()
        entry = self._run.chunk(pending.line for pending in chunk)
        fault_point("replay.opening")
        entry.open()
        fault_point("replay.opened")
        self._accepted.clear()
        unanswered = self._queue.counts.possible_duplicates
        self._queue.add_each([pending.record for pending in chunk], range(len(chunk)))
        try:
            while not self._queue.empty:
                sender.poll(block=True)
        except MovementError:
            # Records that were not accepted were not sent, unless a request of this chunk had no answer.
            accepted = set(self._accepted)
            rest = [pending for position, pending in enumerate(chunk) if position not in accepted]
            lost = self._queue.counts.possible_duplicates > unanswered
            entry.close(
                (chunk[position].line for position in accepted),
                (pending.line for pending in rest if lost or pending.in_doubt),
            )
            raise
        fault_point("replay.sent")
        entry.close(pending.line for pending in chunk)
        fault_point("replay.closed")

    def _chunks(self, files: list[QuarantineFile], journal: SentLines) -> Iterator[list[_PendingLine]]:
        """The selected lines in order, in chunks that fit into one request."""
        chunk: list[_PendingLine] = []
        size = 0
        for pending in self._pending(files, journal):
            data = len(pending.record.Data)
            if chunk and (len(chunk) == CHUNK_RECORDS or size + data > CHUNK_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(pending)
            size += data
        if chunk:
            yield chunk

    def _pending(self, files: list[QuarantineFile], journal: SentLines) -> Iterator[_PendingLine]:
        for file in files:
            if file.batch_path:
                self._skipped["(batch path)"] += file.rows
                self._looked_at += file.rows
                continue
            sent, in_doubt = journal.of(file.path)
            for number, line in enumerate(read_lines(self._lake, file.path)):
                self._looked_at += 1
                if not self._is_selected(line.reason, line.stage, line.arrival_time):
                    self._skipped[line.reason] += 1
                    continue
                if number in sent:
                    self._already[line.reason] += 1
                    continue
                record = PutRecordsEntry(line.data, line.partition_key or "")
                if (
                    withheld_reason(record.Data) is not None
                    or not record.PartitionKey
                    or _size(record) > self._record_bytes
                ):
                    self._unsendable[line.reason] += 1
                    continue
                yield _PendingLine((file.path, number), line.reason, record, number in in_doubt)
            self._show()

    def _is_selected(self, reason: str, stage: str, arrival: datetime) -> bool:
        return (
            stage != _BATCH_STAGE
            and (not self._reasons or reason in self._reasons)
            and (self._since is None or arrival >= self._since)
        )

    def _show(self) -> None:
        self._on_progress(ReplayProgress(self._looked_at, self._lines, self._sent.total()))


def _size(record: PutRecordsEntry) -> int:
    return len(record.Data) + len(record.PartitionKey.encode())


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
