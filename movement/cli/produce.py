"""`movement produce`: sends files to the stream by `producer.produce`, with a progress bar and a summary."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from movement.cli.console import INTERRUPTED, err, graceful_stop, out, progress_bar, write_result
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from jobs.settings.settings import Settings
    from producer.produce import ProducePlan, ProduceProgress, ProduceResult

REFRESH_SECONDS = 0.1


def produce(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="CSV, JSON lines or Parquet files (the first two also .gz or .zst); folders of them; - for standard "
            "input.",
        ),
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="csv|jsonl|parquet",
            help="The files' format, if neither their content nor their names tell it.",
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="NAME=VALUE",
            help="A source field for records that lack it, instead of the one in the file's name; may be repeated.",
        ),
    ] = None,
    city: Annotated[str | None, typer.Option("--city", help="The same as --field City=….")] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="Send N records a second.")] = None,
    processes: Annotated[
        int,
        typer.Option(
            "--processes", min=1, max=64, help="Number of processes; files that may share a partition key stay in one."
        ),
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run of the same files to the same stream.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check the files, show what would be sent, and send nothing.")
    ] = False,
    check: Annotated[
        bool | None,
        typer.Option(
            "--check/--no-check", help="Reject rows that the contract rejects (default), or send them as they are."
        ),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option("--rejects", metavar="FILE", help="File for rejected rows, as JSON lines.")
    ] = None,
    allow_rejects: Annotated[
        bool, typer.Option("--allow-rejects", help="Exit with 0 even if rows were rejected.")
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Send CSV, JSON lines and Parquet files to the stream; each row is accepted by Kinesis or reported as rejected.

    For files. Programs that send single records POST them to `movement serve`. The exit code is 1 if rows were
    rejected (see --allow-rejects) and 130 after Ctrl-C, which first finishes what is in flight; --resume continues
    from there.
    """
    from jobs.common.errors import MovementError
    from jobs.settings.settings import load_settings
    from producer.parallel import send_in_processes
    from producer.produce import plan, send

    chosen = list(overrides or ())
    if check is not None:
        chosen.append(f"producer.validate={'true' if check else 'false'}")
    settings = load_settings(config, chosen)
    prepared = plan(
        paths,
        settings,
        fields=_fields(field or [], city),
        format=format_,
        rate=rate,
        resume=resume,
        keep_checkpoint=not dry_run,
        rejects=rejects,
    )
    if dry_run:
        _dry_run(prepared, json_file, allow_rejects)
        return
    if prepared.restarts:
        err.print("[yellow]an earlier run of these files was interrupted; this one starts again at the first row[/]")
    try:
        with _progress() as show, graceful_stop() as stop:
            if processes > 1:
                result = send_in_processes(prepared, processes, on_progress=show, stop=stop)
            else:
                result = send(prepared, on_progress=show, stop=stop)
    except MovementError:
        if prepared.can_resume:
            err.print("[yellow]not all records were sent; the same command with --resume continues[/]")
        raise
    _print_summary(result, "sent to")
    write_result(json_file, asdict(result))
    if result.stopped:
        err.print("[yellow]stopped; the same command with --resume continues from here[/]")
        raise typer.Exit(INTERRUPTED)
    if result.rejected and not allow_rejects:
        raise typer.Exit(1)


def _fields(given: list[str], city: str | None) -> dict[str, str]:
    """The fields of --field and --city."""
    fields = {} if city is None else {"City": city}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r}; write NAME=VALUE, for example City=Paris", param_hint="--field")
        fields[name] = value
    return fields


def send_all(paths: list[str], settings: Settings) -> ProduceResult:
    """Sends files with the progress bar and without a summary: a step of another command."""
    from producer.produce import plan, send

    with _progress() as show:
        return send(plan(paths, settings, keep_checkpoint=False), on_progress=show)


def _dry_run(prepared: ProducePlan, json_file: Path | None, allow_rejects: bool) -> None:
    from producer.input_files import InputFile
    from producer.produce import validate
    from producer.record_encoder import PutRecordsEntry

    examples: dict[str, PutRecordsEntry] = {}

    def keep_first(export: InputFile, record: PutRecordsEntry) -> None:
        examples.setdefault(export.path, record)

    with _progress() as show:
        result = validate(prepared, on_progress=show, on_record=keep_first)
    for path, record in examples.items():
        out.print(f"[bold]{escape(path)}[/], first record, partition key {escape(record.PartitionKey)}")
        out.print(escape(_text_of(record.Data)), soft_wrap=True)
    _print_summary(result, "would go to")
    write_result(json_file, {**asdict(result), "dry_run": True})
    if result.rejected and not allow_rejects:
        raise typer.Exit(1)


def _text_of(data: bytes) -> str:
    """A record's JSON; its data may be gzip (`encoding: gzip`)."""
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()


def _print_summary(result: ProduceResult, verb: str) -> None:
    counts = result.counts
    rate = result.produced / result.seconds if result.seconds else 0
    skipped = sum(file.skipped for file in result.files)
    resumed = f", after {skipped:,} rows of the run before" if skipped else ""
    out.print(
        f"{result.produced:,} records ({counts.accepted_bytes / 1e6:,.1f} MB) from {len(result.files)} "
        f"file{'s' if len(result.files) != 1 else ''} {verb} stream '{result.stream}' in {result.seconds:.1f} s "
        f"({rate:,.0f}/s){resumed}",
        soft_wrap=True,
    )
    if counts.retried:
        out.print(
            f"{counts.retried:,} were sent again ({counts.throttled:,} throttled); {counts.possible_duplicates:,} may "
            "be on the stream twice, because the outcome of a request is unknown",
            soft_wrap=True,
        )
    if result.rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(result.rejected_reasons.items()))
        where = f"; see {result.rejects}" if result.rejects else ""
        out.print(f"[yellow]{result.rejected:,} rows were rejected[/] ({reasons}){escape(where)}", soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Callable[[ProduceProgress], None]]:
    """A progress bar by bytes read, with records, records/s, MB/s, throttles and rejects."""
    with progress_bar("reading") as bar:
        shown = 0.0

        def show(progress: ProduceProgress) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < REFRESH_SECONDS:
                return
            shown = now
            counts, seconds = progress.counts, max(progress.seconds, 1e-9)
            parts = [
                f"{counts.accepted:,} records",
                f"{counts.accepted / seconds:,.0f}/s",
                f"{counts.accepted_bytes / 1e6 / seconds:,.1f} MB/s",
                *([f"{counts.throttled:,} throttled"] if counts.throttled else []),
                *([f"{progress.slowed_shards} shards slowed"] if progress.slowed_shards else []),
                *([f"{progress.rejected:,} rejected"] if progress.rejected else []),
            ]
            bar(progress.read_bytes, progress.total_bytes, " · ".join(parts))

        yield show
