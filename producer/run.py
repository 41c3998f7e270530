"""Runs the producer in one process and accounts for every row. `produce` and `parallel` start it.

In: files. Out: records on the stream, rejected rows, and counts for each file. It connects `readers` (which
also gives the encoder), `send_queue` and `sender`.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.settings.settings import Settings
from producer.checkpoint import RunCheckpoint, has_checkpoint
from producer.input_files import InputFile
from producer.put_records import MAX_RECORDS, PutClient
from producer.readers import Chunk, FileReader, encoder_for, open_reader
from producer.record_encoder import MALFORMED_ROW, PutRecordsEntry
from producer.rejects_file import RejectedRow
from producer.send_queue import SendCounts, SendQueue
from producer.sender import Sender
from producer.stream_info import ShardMap

# Rows read but not accepted yet. Limits the memory, and the duplicates after a kill.
READ_AHEAD_ROWS = 20 * MAX_RECORDS
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ProducePlan:
    """What a run will do. Picklable, so that several processes can share one plan.

    `checkpoint_folder`: where the progress is saved (None: nowhere). `skip`: the number of rows that the resumed run
    has done, by path. `rejects`: the file for rejected rows (None: they are only counted). `rejected_before`: rows
    that the resumed run rejected, by reason. `restarts`: an earlier run of these files was interrupted, but this one
    starts at the first row.
    """

    exports: tuple[InputFile, ...]
    contract: TableContract
    settings: Settings
    rate: float | None = None
    checkpoint_folder: Path | None = None
    rejects: Path | None = None
    skip: Mapping[str, int] = field(default_factory=dict)
    rejected_before: Mapping[str, int] = field(default_factory=dict)
    restarts: bool = False

    @property
    def can_resume(self) -> bool:
        """Whether there is a checkpoint that `resume` can continue."""
        return self.checkpoint_folder is not None and has_checkpoint(self.checkpoint_folder)


@dataclass(slots=True)
class FileCount:
    """The rows of one file, and how many of them were accepted and rejected. `fields`: from the file's name.

    `rows` includes blank lines and the `skipped` rows, which the resumed run had done. Example: a resumed file of 10
    rows, of which 4 were done and 1 is rejected now: rows 10, skipped 4, produced 5, rejected 1.
    """

    file: str
    fields: Mapping[str, str]
    rows: int = 0
    produced: int = 0
    rejected: int = 0
    skipped: int = 0


@dataclass(slots=True)
class ProduceProgress:
    """The progress of a run: record counts, rows and bytes read, and seconds since the start.

    `read_bytes` and `total_bytes` (None: unknown) are bytes of the files, compressed if they are. `slowed_shards` is
    the number of shards that are limited now because they throttled.
    """

    counts: SendCounts = field(default_factory=SendCounts)
    rejected: int = 0
    read_rows: int = 0
    read_bytes: int = 0
    total_bytes: int | None = None
    seconds: float = 0.0
    slowed_shards: int = 0


@dataclass(slots=True)
class ProduceResult:
    """The result of a run.

    `produced` is the number of records that the stream accepted, `rejected` the number of rows that were not sent,
    with the rows of each reason in `rejected_reasons`; both include rows that the resumed run rejected. `rejects` is
    the path of the file with these rows. `stopped`: the run was told to stop before its end; `journal` is the folder of
    its checkpoint, for a resume.
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

    def add_rejected(self, reasons: Mapping[str, int]) -> None:
        """Counts rejected rows. `reasons`: their number by reason."""
        self.rejected += sum(reasons.values())
        self.rejected_reasons = dict(Counter(self.rejected_reasons) + Counter(reasons))


@dataclass(slots=True)
class _RowRange:
    """Consecutive rows of a file that were queued together. They own their records in the queue.

    `end` is the number of the file's rows up to and including the range: rows 500 to 999 have end 1000. `unaccepted`
    is the number of their records that Kinesis has not accepted yet.
    """

    file: FileCount
    end: int
    unaccepted: int


class ProducerRun:
    """Sends every row of the plan's files with `put_client`.

    `record_bytes` limits the data and partition key of one record. `checkpoint` saves the progress. `on_record` is
    called with the first record of each range of rows. For the other arguments see `producer.produce.produce`.
    """

    def __init__(
        self,
        plan: ProducePlan,
        put_client: PutClient,
        *,
        record_bytes: int,
        find_shards: Callable[[], ShardMap] | None = None,
        on_progress: Callable[[ProduceProgress], None] | None = None,
        on_reject: Callable[[RejectedRow], None] | None = None,
        on_record: Callable[[InputFile, PutRecordsEntry], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
        checkpoint: RunCheckpoint | None = None,
    ) -> None:
        self._plan, self._put_client = plan, put_client
        self._settings = plan.settings.producer
        self._record_bytes = record_bytes
        self._find_shards = find_shards
        self._on_progress, self._on_reject, self._on_record, self._stop = on_progress, on_reject, on_record, stop
        self._checkpoint = checkpoint
        self._queue: SendQueue[_RowRange] = SendQueue(
            keep_order=self._settings.keep_order, max_bytes=self._settings.max_request_bytes
        )
        # Ranges with records that are not accepted yet, and those behind them.
        self._ranges: deque[_RowRange] = deque()
        self._reader: FileReader | None = None
        # Whether rows of the current chunk are not queued yet.
        self._chunk_has_rows = False
        self._result = ProduceResult(plan.settings.stream.name, counts=self._queue.counts)
        sizes = [export.size for export in plan.exports]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        self._progress = ProduceProgress(self._queue.counts, total_bytes=total)

    def run(self) -> ProduceResult:
        """Returns once every row is accepted or rejected; after `stop`, every row that was read.

        Raises TerminalError for a file that cannot be read, AwsAccessError if AWS refuses, and TransientError if
        nothing was accepted for `producer.delivery_timeout_seconds`.
        """
        started = time.monotonic()
        sender = Sender(
            self._queue,
            self._put_client,
            self._on_accepted,
            max_in_flight=self._settings.max_in_flight,
            delivery_timeout_seconds=self._settings.delivery_timeout_seconds,
            find_shards=self._find_shards,
        )
        try:
            with sender, _rare_garbage_collection():
                self._send_all(sender, started)
        finally:
            self._result.produced = self._queue.counts.accepted
            self._result.seconds = time.monotonic() - started
            if self._checkpoint is not None:
                self._checkpoint.save()
        return self._result

    def _send_all(self, sender: Sender[_RowRange], started: float) -> None:
        ranges = self._encoded_ranges()
        exhausted = False
        while not (exhausted and self._queue.empty):
            if exhausted or self._queue.waiting >= READ_AHEAD_ROWS:
                sender.poll(block=True)
            elif self._stop():
                exhausted = self._result.stopped = True
            elif (seconds := self._seconds_until_due(started)) > 0:
                if not sender.poll(block=False):
                    time.sleep(min(seconds, _POLL_SECONDS))
            elif self._input_is_idle():
                # Answers and retries go on while the pipe is silent.
                sender.poll(block=True)
            elif (encoded := next(ranges, None)) is None:
                exhausted = True
            else:
                self._queue.add(*encoded)
                self._save_progress()
                sender.poll(block=False)
            if self._on_progress is not None:
                self._progress.seconds = time.monotonic() - started
                self._progress.slowed_shards = len(self._queue.rates.limits())
                self._on_progress(self._progress)

    def _input_is_idle(self) -> bool:
        """Whether the input is a silent pipe, so that reading the next rows would block."""
        if self._reader is None or self._chunk_has_rows:
            return False
        return self._reader.idle(0.0 if self._queue.waiting else _POLL_SECONDS)

    def _seconds_until_due(self, started: float) -> float:
        """Seconds until `rate` allows the next rows; 0 or less: now."""
        rate = self._plan.rate
        return 0.0 if rate is None else started + self._progress.read_rows / rate - time.monotonic()

    def _encoded_ranges(self) -> Iterator[tuple[list[PutRecordsEntry], _RowRange]]:
        """All rows of all files in ranges of at most one request, each with its records."""
        # With a rate, five small requests a second are steadier than a full one now and then.
        rate = self._plan.rate
        rows = MAX_RECORDS if rate is None else max(1, min(MAX_RECORDS, int(rate / 5)))
        read_before = 0
        for export in self._plan.exports:
            skip = self._plan.skip.get(export.path, 0)
            file = FileCount(export.path, export.fields, rows=skip, skipped=skip)
            self._result.files.append(file)
            with open_reader(export) as reader:
                self._reader = reader
                encode = encoder_for(
                    reader, export, self._plan.contract, self._record_bytes, self._settings.validate_records
                )
                for chunk in reader.chunks(skip):
                    encoded = encode(chunk)
                    for start in range(0, chunk.file_rows, rows):
                        stop = min(start + rows, chunk.file_rows)
                        records, rejected = encoded.part(start, stop)
                        self._reject(export, file, chunk, rejected, chunk.fault if stop == chunk.file_rows else None)
                        if records and self._on_record is not None:
                            self._on_record(export, records[0])
                        file.rows += stop - start
                        self._progress.read_rows += stop - start
                        self._progress.read_bytes = read_before + chunk.position
                        row_range = _RowRange(file, file.rows, len(records))
                        self._ranges.append(row_range)
                        self._chunk_has_rows = stop < chunk.file_rows
                        yield records, row_range
            self._reader = None
            read_before += export.size or 0

    def _reject(
        self,
        export: InputFile,
        file: FileCount,
        chunk: Chunk,
        rejected: list[tuple[int, Rejection]],
        fault: tuple[int, str] | None,
    ) -> None:
        rows = [
            RejectedRow(
                export.identity,
                chunk.line_of(index),
                chunk.first_row + index,
                rejection,
                **chunk.original(index),
            )
            for index, rejection in rejected
        ]
        if fault is not None:
            line, message = fault
            number = chunk.first_row + chunk.count
            rows.append(RejectedRow(export.identity, line, number, Rejection(MALFORMED_ROW, value=message)))
        if not rows:
            return
        file.rejected += len(rows)
        self._progress.rejected += len(rows)
        self._result.add_rejected(Counter(row.rejection.reason for row in rows))
        if self._on_reject is not None:
            for row in rows:
                self._on_reject(row)

    def _on_accepted(self, owners: list[_RowRange]) -> None:
        first = owners[0]
        if owners.count(first) == len(owners):
            first.unaccepted -= len(owners)
            first.file.produced += len(owners)
        else:
            for row_range in owners:
                row_range.unaccepted -= 1
                row_range.file.produced += 1
        self._save_progress()

    def _save_progress(self) -> None:
        """Marks the ranges at the start of the queue that are complete as done in the checkpoint."""
        while self._ranges and self._ranges[0].unaccepted == 0:
            row_range = self._ranges.popleft()
            if self._checkpoint is not None:
                self._checkpoint.advance(row_range.file.file, row_range.end)


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Collects after 100,000 new objects, not 700. Rows form no cycles, and the search took a tenth of the run."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
