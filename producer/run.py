"""One run of the producer in one process: reads, sends, and knows what became of every row.

Wires csv_rows → records → queue → sending. From: `put_records.produce`. Next: the stream.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.settings.settings import Settings
from producer.checkpoint import RunCheckpoint
from producer.csv_reader import Chunk, Export, ExportReader
from producer.put_records import MAX_RECORDS, PutClient
from producer.record_encoder import MALFORMED_ROW, Record, RowEncoder
from producer.rejects_file import RejectedRow
from producer.send_queue import SendCounts, SendQueue
from producer.sender import Sender
from producer.stream_info import ShardMap

# Rows that may be read ahead of what was accepted: bounds memory, and what a kill sends twice.
READ_AHEAD_ROWS = 20 * MAX_RECORDS
_NAP_SECONDS = 0.05


@dataclass(slots=True)
class FileCount:
    """What became of one file: its rows (blank and faulty ones count), how many were accepted and rejected.

    `skipped` rows were done by the run that this one resumes.
    """

    file: str
    city: str | None
    rows: int = 0
    produced: int = 0
    rejected: int = 0
    skipped: int = 0


@dataclass(slots=True)
class ProduceProgress:
    """Where a run is: counts, rows read, bytes of input read of how many (None: unknown), seconds since the start."""

    counts: SendCounts = field(default_factory=SendCounts)
    rejected: int = 0
    read_rows: int = 0
    read_bytes: int = 0
    total_bytes: int | None = None
    seconds: float = 0.0
    slowed_shards: int = 0


@dataclass(slots=True)
class ProduceResult:
    """What a run did.

    `produced` records were accepted by the stream, `rejected` rows were not sent (`rejected_reasons`: reason →
    rows). `counts.possible_duplicates` were sent again after a request whose outcome is unknown. `stopped`: it
    was told to stop before the end; `rejects` and `journal` name the files that it left, if it did.
    """

    stream: str
    produced: int = 0
    rejected: int = 0
    files: list[FileCount] = field(default_factory=list)
    seconds: float = 0.0
    counts: SendCounts = field(default_factory=SendCounts)
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    stopped: bool = False
    rejects: str | None = None
    journal: str | None = None


@dataclass(slots=True)
class _Ticket:
    """Rows that were read together: up to which row of the file, and how many records are not accepted yet."""

    file: FileCount
    end: int
    open: int


class ProducerRun:
    """Sends every row of `exports`, once `run` is called. See `put_records.produce` for what the arguments mean.

    `skip` says how many rows of a file (by its path) are done already; `journal` is told how far each file is.
    """

    def __init__(
        self,
        exports: Sequence[Export],
        contract: TableContract,
        settings: Settings,
        puts: PutClient,
        *,
        record_bytes: int,
        find_shards: Callable[[], ShardMap] | None = None,
        on_progress: Callable[[ProduceProgress], None] | None = None,
        on_reject: Callable[[RejectedRow], None] | None = None,
        on_record: Callable[[Export, Record], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
        rate: float | None = None,
        skip: Mapping[str, int] | None = None,
        journal: RunCheckpoint | None = None,
    ) -> None:
        self._exports, self._contract, self._settings, self._puts = exports, contract, settings, puts
        self._record_bytes = record_bytes
        self._find_shards = find_shards
        self._on_progress, self._on_reject, self._on_record, self._stop = on_progress, on_reject, on_record, stop
        self._rate = rate
        self._skip = skip or {}
        self._journal = journal
        self._queue: SendQueue[_Ticket] = SendQueue(
            keep_order=settings.producer.keep_order, max_bytes=settings.producer.max_request_bytes
        )
        self._tickets: deque[_Ticket] = deque()
        self._reader: ExportReader | None = None
        # Rows that were read with those that were handed on last.
        self._rows_in_hand = False
        self.result = ProduceResult(settings.stream.name, counts=self._queue.counts)
        total = None if any(export.size is None for export in exports) else sum(export.size or 0 for export in exports)
        self._progress = ProduceProgress(self._queue.counts, total_bytes=total)

    def run(self) -> ProduceResult:
        """Returns once every row is accepted or rejected, or, told to stop, every row that was read."""
        started = time.monotonic()
        settings = self._settings.producer
        sending = Sender(
            self._queue,
            self._puts,
            self._accepted,
            max_in_flight=settings.max_in_flight,
            delivery_timeout_seconds=settings.delivery_timeout_seconds,
            find_shards=self._find_shards,
        )
        try:
            with sending, _rare_collections():
                self._send_all(sending, started)
        finally:
            self.result.produced = self._queue.counts.accepted
            self.result.seconds = time.monotonic() - started
            if self._journal is not None:
                self._journal.save()
        return self.result

    def _send_all(self, sending: Sender[_Ticket], started: float) -> None:
        segments = self._segments()
        exhausted = False
        while not (exhausted and self._queue.empty):
            if exhausted or self._queue.waiting >= READ_AHEAD_ROWS:
                sending.step(block=True)
            elif self._stop():
                exhausted = self.result.stopped = True
            elif (early := self._too_early(started)) > 0:
                if not sending.step(block=False):
                    time.sleep(min(early, _NAP_SECONDS))
            elif self._input_is_idle():
                # Retries and answers do not wait until somebody writes to the pipe again.
                sending.step(block=True)
            elif (segment := next(segments, None)) is None:
                exhausted = True
            else:
                self._queue.add(*segment)
                self._advance()
                sending.step(block=False)
            if self._on_progress is not None:
                self._progress.seconds = time.monotonic() - started
                self._progress.slowed_shards = len(self._queue.rates.limits())
                self._on_progress(self._progress)

    def _input_is_idle(self) -> bool:
        """Whether the next rows would have to be waited for, at a quiet pipe."""
        if self._reader is None or self._rows_in_hand:
            return False
        return self._reader.idle(0.0 if self._queue.waiting else _NAP_SECONDS)

    def _too_early(self, started: float) -> float:
        """Seconds until the next rows are due under `rate`; 0 or less: they are."""
        return 0.0 if self._rate is None else started + self._progress.read_rows / self._rate - time.monotonic()

    def _segments(self) -> Iterator[tuple[list[Record], _Ticket]]:
        """The records of every file, as many as a request takes, each time with the ticket that follows them."""
        # A steady feed is made of small requests: five a second, not a full one every so often.
        rows = MAX_RECORDS if self._rate is None else max(1, min(MAX_RECORDS, int(self._rate / 5)))
        read_before = 0
        for export in self._exports:
            skip = self._skip.get(export.path, 0)
            file = FileCount(export.path, export.city, rows=skip, skipped=skip)
            self.result.files.append(file)
            with ExportReader(export) as reader:
                self._reader = reader
                encoder = RowEncoder(
                    self._contract,
                    reader.header,
                    export.city,
                    self._record_bytes,
                    self._settings.producer.validate_records,
                )
                for chunk in reader.chunks(skip):
                    encoded = encoder.encode(chunk)
                    for start in range(0, chunk.taken, rows):
                        stop = min(start + rows, chunk.taken)
                        records, rejected = encoded.part(start, stop)
                        self._reject(export, file, chunk, rejected, chunk.fault if stop == chunk.taken else None)
                        if records and self._on_record is not None:
                            self._on_record(export, records[0])
                        file.rows += stop - start
                        self._progress.read_rows += stop - start
                        self._progress.read_bytes = read_before + chunk.position
                        ticket = _Ticket(file, file.rows, len(records))
                        self._tickets.append(ticket)
                        self._rows_in_hand = stop < chunk.taken
                        yield records, ticket
            self._reader = None
            read_before += export.size or 0

    def _reject(
        self,
        export: Export,
        file: FileCount,
        chunk: Chunk,
        rejected: list[tuple[int, Rejection]],
        fault: tuple[int, str] | None,
    ) -> None:
        found = [
            RejectedRow(
                export.identity, chunk.line_of(index), chunk.first_row + index, rejection, tuple(chunk.cells(index))
            )
            for index, rejection in rejected
        ]
        if fault is not None:
            line, message = fault
            at = chunk.first_row + chunk.count
            found.append(RejectedRow(export.identity, line, at, Rejection(MALFORMED_ROW, value=message)))
        if not found:
            return
        file.rejected += len(found)
        self.result.rejected += len(found)
        self._progress.rejected += len(found)
        reasons = Counter(self.result.rejected_reasons)
        reasons.update(row.rejection.reason for row in found)
        self.result.rejected_reasons = dict(reasons)
        if self._on_reject is not None:
            for row in found:
                self._on_reject(row)

    def _accepted(self, owners: list[_Ticket]) -> None:
        first = owners[0]
        if owners.count(first) == len(owners):
            first.open -= len(owners)
            first.file.produced += len(owners)
        else:
            for ticket in owners:
                ticket.open -= 1
                ticket.file.produced += 1
        self._advance()

    def _advance(self) -> None:
        """Tells the journal how far the files are done without a gap."""
        while self._tickets and self._tickets[0].open == 0:
            ticket = self._tickets.popleft()
            if self._journal is not None:
                self._journal.advance(ticket.file.file, ticket.end)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Rows are lists by the million, and in no cycles: looking for some at every 700th took a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
