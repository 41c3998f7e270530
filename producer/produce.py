"""`movement produce` without its screen: plans a run, sends it, or only checks the files.

In: the paths of files, and the settings. Out: records on the stream, and a `ProduceResult` that accounts for every
row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jobs.common.errors import ConfigurationError, TerminalError
from jobs.schema.table import TableContract, load_contract
from jobs.settings.settings import Settings
from producer.checkpoint import (
    RunCheckpoint,
    checkpoint_folder,
    discard_checkpoint,
    has_checkpoint,
    read_checkpoint,
)
from producer.input_files import InputFile, find_input_files
from producer.put_records import DEFAULT_MAX_RECORD_BYTES, PutRecordsClient, PutResult, kinesis_client
from producer.readers import open_reader
from producer.record_encoder import PutRecordsEntry
from producer.rejects_file import RejectsFile, keep_before
from producer.run import ProducePlan, ProduceProgress, ProduceResult, ProducerRun
from producer.stream_info import max_record_bytes, shard_map

__all__ = ["ProducePlan", "ProduceProgress", "ProduceResult", "plan", "produce", "send", "validate"]


def plan(
    paths: Sequence[str | Path],
    settings: Settings,
    *,
    fields: Mapping[str, str] | None = None,
    format: str | None = None,
    rate: float | None = None,
    resume: bool = False,
    keep_checkpoint: bool = True,
    rejects: Path | None = None,
) -> ProducePlan:
    """Reads the headers of the files and the checkpoint of an earlier run. Sends nothing and needs no AWS.

    Without `resume`, deletes the checkpoint and the rejects file of the earlier run. For the arguments see `produce`.
    Raises ConfigurationError for arguments that cannot be used or a missing path, and TerminalError for a file that
    cannot be read or lacks a required column.
    """
    if rate is not None and rate <= 0:
        raise ConfigurationError(f"--rate {rate:g}: records a second; allowed: more than 0")
    if resume and not keep_checkpoint:
        raise ConfigurationError("--resume needs the checkpoint of the earlier run; keep_checkpoint is False")
    contract = load_contract(settings.contract)
    for name in fields or ():
        if name not in contract.source_fields:
            raise ConfigurationError(
                f"--field {name}=…: the contract '{contract.name}' has no source field {name!r}; it has "
                f"{', '.join(map(repr, contract.source_fields))}"
            )
    exports = find_input_files(paths, contract.file_name, fields, format)
    _check_headers(exports, contract, settings.producer.validate_records)
    folder = None
    skip: Mapping[str, int] = {}
    rejected_before: Mapping[str, int] = {}
    restarts = False
    if keep_checkpoint:
        folder = checkpoint_folder(Path(settings.local.state_dir), settings.stream.name, exports)
        rejects = rejects or folder.with_name(folder.name + ".rejects.jsonl")
        if resume:
            skip = read_checkpoint(folder, exports)
            rejected_before = keep_before(rejects, {export.identity: skip.get(export.path, 0) for export in exports})
        else:
            restarts = has_checkpoint(folder)
            discard_checkpoint(folder)
            rejects.unlink(missing_ok=True)
    return ProducePlan(tuple(exports), contract, settings, rate, folder, rejects, skip, rejected_before, restarts)


def produce(
    paths: Sequence[str | Path],
    settings: Settings,
    *,
    fields: Mapping[str, str] | None = None,
    format: str | None = None,
    rate: float | None = None,
    resume: bool = False,
    keep_checkpoint: bool = False,
    rejects: Path | None = None,
    on_progress: Callable[[ProduceProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ProduceResult:
    """Sends the rows of files to the stream `settings.stream.name`. Returns once every row is accepted or rejected.

    `paths` are files, folders or `-` for standard input. `fields` are added to every record that lacks them and
    replace those of the files' names. `format` is csv, jsonl or parquet (None: see `readers`). `rate` is in records/s.
    Rejected rows are appended to `rejects`. With `keep_checkpoint` the progress is saved in `local.state_dir`, and the
    same call with `resume` continues an interrupted run: if 4 of a file's 10 rows were done, it sends the other 6, and
    the result's `produced` is 6.

    `on_progress` is called in this thread after each step. `stop` is called before each range of rows is read; once
    it returns True, the rows that were read are still sent.

    Raises ConfigurationError for arguments that cannot be used or a missing path, AwsAccessError if the stream does
    not exist or AWS refuses, TerminalError for a file that cannot be read, and TransientError if nothing was accepted
    for `producer.delivery_timeout_seconds`.
    """
    prepared = plan(
        paths,
        settings,
        fields=fields,
        format=format,
        rate=rate,
        resume=resume,
        keep_checkpoint=keep_checkpoint,
        rejects=rejects,
    )
    return send(prepared, on_progress=on_progress, stop=stop)


def send(
    plan: ProducePlan,
    *,
    on_progress: Callable[[ProduceProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    part: int = 0,
) -> ProduceResult:
    """Sends a plan in this process. See `produce` for the arguments, the result and the errors.

    `part` is 0 if this process sends the whole plan, and the number of the process, from 1, if several share it: only
    part 0 deletes the checkpoint at its end.
    """
    settings, stream = plan.settings.producer, plan.settings.stream.name
    client = kinesis_client(settings.request_timeout_seconds)
    record_bytes = max_record_bytes(client, stream)
    folder = plan.checkpoint_folder
    with RejectsFile(plan.rejects) as rejects:
        result = ProducerRun(
            plan,
            PutRecordsClient(
                stream, connections=settings.max_in_flight, timeout_seconds=settings.request_timeout_seconds
            ),
            record_bytes=record_bytes,
            find_shards=lambda: shard_map(client, stream),
            on_progress=on_progress,
            on_reject=rejects.add,
            stop=stop,
            checkpoint=None if folder is None else RunCheckpoint(folder, plan.exports, part, dict(plan.skip)),
        ).run()
    result.add_rejected(plan.rejected_before)
    result.rejects = str(plan.rejects) if result.rejected and plan.rejects else None
    if result.stopped:
        result.journal = str(folder) if folder else None
    elif folder is not None and part == 0:
        discard_checkpoint(folder)
    return result


def validate(
    plan: ProducePlan,
    *,
    on_progress: Callable[[ProduceProgress], None] | None = None,
    on_record: Callable[[InputFile, PutRecordsEntry], None] | None = None,
) -> ProduceResult:
    """Reads and checks every row as `send` does, without AWS. `produced` is the number of records it would send.

    `on_record` is called with the first record of each range of rows. Rejected rows are written as in a run.
    """
    with RejectsFile(plan.rejects) as rejects:
        result = ProducerRun(
            replace(plan, rate=None),
            _DryRunClient(),
            record_bytes=DEFAULT_MAX_RECORD_BYTES,
            on_progress=on_progress,
            on_reject=rejects.add,
            on_record=on_record,
        ).run()
    result.rejects = str(plan.rejects) if result.rejected and plan.rejects else None
    return result


class _DryRunClient:
    def put(self, records: Sequence[PutRecordsEntry]) -> list[PutResult] | None:
        return None


def _check_headers(exports: Sequence[InputFile], contract: TableContract, check: bool) -> None:
    """Reads all headers before anything is sent. Raises TerminalError if one is unusable or lacks a required column."""
    for export in exports:
        if export.size is None:
            continue
        with open_reader(export) as reader:
            names = reader.names
            if names is None:
                continue
            known = {*names, *export.fields}
            missing = [
                column.field for column in contract.columns if column.required and column.location[0] not in known
            ]
        if check and missing:
            raise TerminalError(
                f"{export.path}: lacks {', '.join(map(repr, missing))}, which the contract '{contract.name}' requires; "
                f"its columns are: {', '.join(names)}"
            )
