"""CSV files → Kinesis, every row accepted or accounted for: the whole of `movement produce` but its screen.

From: files, folders or standard input. Next: the stream, which `spark_kinesis` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.common.errors import ConfigurationError, TerminalError
from jobs.schema.table import TableContract, load_contract
from jobs.settings.settings import Settings
from producer.checkpoint import RunCheckpoint, discard, has_journal, journal_folder, read_journal
from producer.csv_reader import CITY_FIELD, Export, ExportReader, find_exports
from producer.put_records import DEFAULT_MAX_RECORD_BYTES, PutClient, PutRecordsClient, PutResult, kinesis_client
from producer.record_encoder import Record
from producer.rejects_file import RejectedRow, RejectsFile, keep_before
from producer.run import ProduceProgress, ProduceResult, ProducerRun
from producer.stream_info import max_record_bytes, shard_map

__all__ = ["ProducePlan", "ProduceProgress", "ProduceResult", "RejectedRow", "plan", "produce", "send", "validate"]


@dataclass(frozen=True, slots=True)
class ProducePlan:
    """What a run is about to do; picklable, so that several processes can share one.

    `folder` is where the journal lies (None: none is kept), `skip` what the run that is resumed has done, and
    `rejects` the file for rejected rows (None: they are counted only). `anew`: an earlier run of these files was
    cut short, and this one starts from the first row all the same.
    """

    exports: tuple[Export, ...]
    contract: TableContract
    settings: Settings
    rate: float | None = None
    folder: Path | None = None
    rejects: Path | None = None
    skip: Mapping[str, int] = field(default_factory=dict)
    rejected_before: int = 0
    anew: bool = False

    @property
    def can_resume(self) -> bool:
        """Whether a run of these files has left a journal to go on from."""
        return self.folder is not None and has_journal(self.folder)


def plan(
    paths: Sequence[str | Path],
    settings: Settings,
    *,
    city: str | None = None,
    rate: float | None = None,
    resume: bool = False,
    keep_journal: bool = True,
    rejects: Path | None = None,
) -> ProducePlan:
    """Looks at the files and at what earlier runs left; sends nothing. See `produce` for arguments and errors."""
    if rate is not None and rate <= 0:
        raise ConfigurationError(f"--rate {rate:g}: records a second; allowed: more than 0")
    if resume and not keep_journal:
        raise ConfigurationError("--resume needs the journal that the run before kept")
    contract = load_contract(settings.contract)
    exports = find_exports(paths, city)
    _check_headers(exports, contract, settings.producer.validate_records)
    folder = journal_folder(Path(settings.local.state_dir), settings.stream.name, exports) if keep_journal else None
    skip: Mapping[str, int] = {}
    rejected_before = 0
    anew = False
    if folder is not None:
        rejects = rejects or folder.with_name(folder.name + ".rejects.jsonl")
        if resume:
            skip = read_journal(folder, exports)
            rejected_before = keep_before(rejects, {export.identity: skip.get(export.path, 0) for export in exports})
        else:
            anew = has_journal(folder)
            discard(folder)
            rejects.unlink(missing_ok=True)
    return ProducePlan(tuple(exports), contract, settings, rate, folder, rejects, skip, rejected_before, anew)


def produce(
    paths: Sequence[str | Path],
    settings: Settings,
    *,
    city: str | None = None,
    rate: float | None = None,
    resume: bool = False,
    keep_journal: bool = False,
    rejects: Path | None = None,
    on_progress: Callable[[ProduceProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    puts: PutClient | None = None,
) -> ProduceResult:
    """Sends the rows of CSV files (or of the folders' *.csv and *.csv.gz, or `-`) to `settings.stream.name`.

    Returns once every row was accepted, or rejected and written to `rejects`. `city` overrides what the files'
    names say; `rate` is in records/s; `keep_journal` notes in `local.state_dir` how far the run is, so that one that
    was cut short can be called again with `resume`. `on_progress` is called after every chunk, from this thread;
    `stop` is asked before each, and when it says true, what was read is still sent.

    Raises ConfigurationError for a path that is not there, AwsAccessError where the stream does not exist or AWS
    refuses, TerminalError for a file that is not readable, and TransientError where nothing was accepted for
    `producer.delivery_timeout_seconds`.
    """
    prepared = plan(paths, settings, city=city, rate=rate, resume=resume, keep_journal=keep_journal, rejects=rejects)
    return send(prepared, on_progress=on_progress, stop=stop, puts=puts)


def send(
    plan: ProducePlan,
    *,
    on_progress: Callable[[ProduceProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    puts: PutClient | None = None,
    part: int = 0,
) -> ProduceResult:
    """Does what was planned, in this process. `part` numbers the process among those that share the plan."""
    settings, stream = plan.settings.producer, plan.settings.stream.name
    client = kinesis_client(settings.request_timeout_seconds)
    record_bytes = max_record_bytes(client, stream)
    journal = None if plan.folder is None else RunCheckpoint(plan.folder, plan.exports, part, dict(plan.skip))
    with RejectsFile(plan.rejects) if plan.rejects else _Nowhere() as rejected:
        result = ProducerRun(
            plan.exports,
            plan.contract,
            plan.settings,
            puts
            or PutRecordsClient(
                stream, connections=settings.max_in_flight, timeout_seconds=settings.request_timeout_seconds
            ),
            record_bytes=record_bytes,
            find_shards=lambda: shard_map(client, stream),
            on_progress=on_progress,
            on_reject=rejected.add,
            stop=stop,
            rate=plan.rate,
            skip=plan.skip,
            journal=journal,
        ).run()
    result.rejected += plan.rejected_before
    result.rejects = str(plan.rejects) if result.rejected and plan.rejects else None
    if result.stopped:
        result.journal = str(plan.folder) if plan.folder else None
    elif plan.folder is not None and part == 0:
        discard(plan.folder)
    return result


def validate(
    plan: ProducePlan,
    *,
    on_progress: Callable[[ProduceProgress], None] | None = None,
    on_record: Callable[[Export, Record], None] | None = None,
) -> ProduceResult:
    """Reads and checks every row as `send` would, without AWS; `produced` is what would be sent.

    `on_record` is told the first record of each chunk. Rejected rows are written as in a run.
    """
    with RejectsFile(plan.rejects) if plan.rejects else _Nowhere() as rejected:
        result = ProducerRun(
            plan.exports,
            plan.contract,
            plan.settings.model_copy(
                update={"producer": plan.settings.producer.model_copy(update={"max_in_flight": 1})}
            ),
            _Accepting(),
            record_bytes=DEFAULT_MAX_RECORD_BYTES,
            on_progress=on_progress,
            on_reject=rejected.add,
            on_record=on_record,
        ).run()
    result.rejects = str(plan.rejects) if result.rejected and plan.rejects else None
    return result


class _Accepting:
    def put(self, records: Sequence[Record]) -> list[PutResult] | None:
        return None


class _Nowhere:
    def __enter__(self) -> _Nowhere:
        return self

    def __exit__(self, *_exception: object) -> None:
        return None

    def add(self, row: RejectedRow) -> None:
        """Counted by the run; written nowhere."""


def _check_headers(exports: Sequence[Export], contract: TableContract, check: bool) -> None:
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
