"""CSV files → Kinesis, every row accepted or accounted for: the whole of `movement produce` but its screen.

Wires csv_rows → records → outbox → put_request. Next: the stream, which `jobs/source` reads.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.contract.errors import TerminalError
from jobs.contract.rejects import Rejection
from jobs.contract.settings import Settings
from jobs.contract.table import TableContract, load_contract
from producer.csv_rows import CHUNK_ROWS, CITY_FIELD, Chunk, Export, ExportReader, find_exports
from producer.outbox import Counts, Outbox
from producer.put_request import PutRequest, Puts, kinesis_client
from producer.records import MALFORMED_ROW, Record, RowEncoder
from producer.sending import Sending
from producer.stream import max_record_bytes, shard_map

# Rows that may be read ahead of what was accepted: what a kill loses track of, and what memory holds.
READ_AHEAD_ROWS = 20 * CHUNK_ROWS


@dataclass(slots=True)
class FileCount:
    """What became of one file: its rows (blank lines and faulty ones count), how many were accepted and rejected."""

    file: str
    city: str | None
    rows: int = 0
    produced: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not sent: where it stands and why."""

    file: str
    line: int
    rejection: Rejection


@dataclass(slots=True)
class Progress:
    """Where a run is: counts so far, bytes of input read of how many (None: unknown), and seconds since the start."""

    counts: Counts
    rejected: int = 0
    read_bytes: int = 0
    total_bytes: int | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class ProduceResult:
    """What a run did. `produced` records were accepted by the stream; `rejected` rows were not sent."""

    stream: str
    produced: int
    rejected: int
    files: list[FileCount]
    seconds: float
    counts: Counts
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    stopped: bool = False


@dataclass(slots=True)
class _Ticket:
    """Rows that were read together, and how many of their records are not accepted yet."""

    file: FileCount
    end: int
    open: int


class Producing:
    """One run. `run` sends every row of `exports`; see `produce` for the arguments."""

    def __init__(
        self,
        exports: Sequence[Export],
        contract: TableContract,
        settings: Settings,
        puts: Puts,
        *,
        record_bytes: int,
        find_shards: Callable[[], Any] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_reject: Callable[[RejectedRow], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._exports, self._contract, self._settings, self._puts = exports, contract, settings, puts
        self._record_bytes = record_bytes
        self._find_shards = find_shards
        self._on_progress, self._on_reject, self._stop = on_progress, on_reject, stop
        self._outbox: Outbox[_Ticket] = Outbox(
            keep_order=settings.producer.keep_order, max_bytes=settings.producer.request_bytes
        )
        self.files: list[FileCount] = []
        self._tickets: deque[_Ticket] = deque()
        self._reasons: Counter[str] = Counter()
        total = None if any(export.size is None for export in exports) else sum(export.size or 0 for export in exports)
        self._progress = Progress(self._outbox.counts, total_bytes=total)

    def run(self) -> ProduceResult:
        """Reads, sends and waits until every row is accepted or rejected. Raises what `produce` raises."""
        started = time.monotonic()
        segments = self._segments()
        stopped = exhausted = False
        settings = self._settings.producer
        with Sending(
            self._outbox,
            self._puts,
            self._accepted,
            in_flight=settings.in_flight,
            give_up_seconds=settings.give_up_seconds,
            find_shards=self._find_shards,
        ) as sending:
            while not (exhausted and self._outbox.empty):
                if not exhausted and self._outbox.waiting < READ_AHEAD_ROWS:
                    stopped = self._stop()
                    segment = None if stopped else next(segments, None)
                    if segment is None:
                        exhausted = True
                    else:
                        self._outbox.add(*segment)
                        sending.step(block=False)
                else:
                    sending.step(block=True)
                self._report(started)
        return ProduceResult(
            stream=self._settings.stream.name,
            produced=self._outbox.counts.accepted,
            rejected=sum(self._reasons.values()),
            files=self.files,
            seconds=time.monotonic() - started,
            counts=self._outbox.counts,
            rejected_reasons=dict(self._reasons),
            stopped=stopped,
        )

    def _report(self, started: float) -> None:
        if self._on_progress is not None:
            self._progress.seconds = time.monotonic() - started
            self._on_progress(self._progress)

    def _segments(self) -> Iterator[tuple[list[Record], _Ticket]]:
        """The records of every file, chunk by chunk, each with the ticket that follows it to the stream."""
        read_before = 0
        for export in self._exports:
            with ExportReader(export) as reader:
                file = FileCount(export.path, export.city)
                self.files.append(file)
                encoder = RowEncoder(
                    self._contract, reader.header, export.city, self._record_bytes, self._settings.producer.check
                )
                for chunk in reader.chunks():
                    records, rejected = encoder.encode(chunk.rows)
                    self._reject(export, file, chunk, rejected)
                    file.rows += chunk.taken
                    self._progress.read_bytes = read_before + chunk.position
                    ticket = _Ticket(file, file.rows, len(records))
                    self._tickets.append(ticket)
                    yield records, ticket
            read_before += export.size or 0

    def _reject(self, export: Export, file: FileCount, chunk: Chunk, rejected: list[tuple[int, Rejection]]) -> None:
        found = [RejectedRow(export.path, chunk.line_of(index), rejection) for index, rejection in rejected]
        if chunk.fault is not None:
            found.append(RejectedRow(export.path, chunk.fault[0], Rejection(MALFORMED_ROW, value=chunk.fault[1])))
        for row in found:
            file.rejected += 1
            self._reasons[row.rejection.reason] += 1
            self._progress.rejected += 1
            if self._on_reject is not None:
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
        while self._tickets and self._tickets[0].open == 0:
            self._tickets.popleft()


def produce(
    paths: Sequence[str | Path],
    settings: Settings,
    *,
    city: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_reject: Callable[[RejectedRow], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    puts: Puts | None = None,
    client: Any = None,
) -> ProduceResult:
    """Sends the rows of CSV files (or of the folders' *.csv and *.csv.gz, or `-`) to `settings.stream.name`.

    Returns once every row was accepted, or rejected and told to `on_reject`. `on_progress` is called often, from
    this thread; `stop` is asked between chunks, and when it says true what was read is still sent. Raises
    ConfigurationError for a path that is not there, AwsAccessError where the stream does not exist or AWS
    refuses, TerminalError for a file that is not readable, and TransientError where nothing was accepted for
    `producer.give_up_seconds`.
    """
    contract = load_contract(settings.contract)
    exports = find_exports(paths, city)
    check_headers(exports, contract, settings.producer.check)
    stream = settings.stream.name
    client = client or kinesis_client(settings.producer.in_flight + 1, settings.producer.request_timeout_seconds)
    return Producing(
        exports,
        contract,
        settings,
        puts or PutRequest(stream, client=client),
        record_bytes=max_record_bytes(client, stream),
        find_shards=lambda: shard_map(client, stream),
        on_progress=on_progress,
        on_reject=on_reject,
        stop=stop,
    ).run()


def check_headers(exports: Sequence[Export], contract: TableContract, check: bool) -> None:
    """Opens every file's header before anything is sent. Raises TerminalError for a file that cannot become rows."""
    for export in exports:
        if export.size is None:
            continue
        with ExportReader(export) as reader:
            known = {*reader.header, *([CITY_FIELD] if export.city is not None else [])}
            missing = [column.source for column in contract.columns if column.required and column.source not in known]
        if check and missing:
            raise TerminalError(
                f"{export.path}: lacks {', '.join(map(repr, missing))}, which the contract '{contract.name}' requires; "
                f"its header has: {', '.join(reader.header)}"
            )
