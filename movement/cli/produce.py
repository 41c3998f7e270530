"""`movement produce` and `movement sample`: the producer's screen. What they run is in `producer/`."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from movement.cli.console import Config, JsonFile, Overrides, err, out, write_result

if TYPE_CHECKING:
    from jobs.settings.settings import Settings
    from producer.produce import ProducePlan, ProduceProgress, ProduceResult

_STOPPED = 130
_REFRESH_SECONDS = 0.1

Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH…", help="CSV files, plain or gzip; folders of them; - for standard input."),
]


def produce(
    paths: Paths,
    city: Annotated[str | None, typer.Option("--city", help="The city, where the file's name does not say it.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="Send N records a second.")] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=64, help="Processes; a city's files stay in one.")
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run of these files to this stream was cut short.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check the files, send nothing, show what would be sent.")
    ] = False,
    check: Annotated[
        bool | None,
        typer.Option("--check/--no-check", help="Hold back what the contract rejects (default), or send it along."),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option("--rejects", metavar="FILE", help="File for rejected rows, as JSON lines.")
    ] = None,
    allow_rejects: Annotated[
        bool, typer.Option("--allow-rejects", help="Exit code 0 though rows were rejected.")
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Send CSV exports to the stream, every row accepted or accounted for.

    Exit code 1 where rows were rejected (see --allow-rejects), 130 after Ctrl-C; what was in flight is finished
    first, and --resume goes on from there.
    """
    from jobs.common.errors import MovementError
    from jobs.settings.settings import load_settings
    from producer.parallel import send_in_processes
    from producer.produce import plan, send

    chosen = list(overrides or ())
    if check is not None:
        chosen.append(f"producer.validate={'true' if check else 'false'}")
    settings = load_settings(config, chosen)
    prepared = plan(paths, settings, city=city, rate=rate, resume=resume, keep_journal=not dry_run, rejects=rejects)
    if dry_run:
        _dry_run(prepared, json_file, allow_rejects)
        return
    if prepared.anew:
        err.print("[yellow]an earlier run of these files was cut short; this one starts anew, from the first row[/]")
    try:
        with _screen() as show, stop_on_signals() as stop:
            if processes > 1:
                result = send_in_processes(prepared, processes, on_progress=show, stop=stop)
            else:
                result = send(prepared, on_progress=show, stop=stop)
    except MovementError:
        if prepared.can_resume:
            err.print("[yellow]not all was sent; the same command with --resume goes on where this one ended[/]")
        raise
    _summary(result, "sent to")
    write_result(json_file, dataclasses.asdict(result))
    if result.stopped:
        err.print("[yellow]stopped; the same command with --resume goes on from here[/]")
        raise typer.Exit(_STOPPED)
    if result.rejected and not allow_rejects:
        raise typer.Exit(1)


def send_all(paths: list[str], settings: Settings) -> ProduceResult:
    """Sends files with the progress bar and nothing else on the screen: for the commands that do more than this."""
    from producer.produce import plan, send

    with _screen() as show:
        return send(plan(paths, settings, keep_journal=False), on_progress=show)


def sample(
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows in all, over all cities.")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to; made where not there.")],
    cities: Annotated[int, typer.Option("--cities", min=1, help="Cities, one file each.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same files.")] = 0,
    bad_rate: Annotated[
        float, typer.Option("--bad-rate", min=0, max=1, help="Share of bad rows, of several kinds.")
    ] = 0,
    json_file: JsonFile = None,
) -> None:
    """Write exports in the real shape: made-up rows, the same for the same seed."""
    from producer.sample import write_sample

    written = write_sample(rows, folder, cities=cities, seed=seed, bad_rate=bad_rate)
    bad = f", {written.bad:,} of them bad" if written.bad else ""
    out.print(f"{written.rows:,} rows{bad}, in {len(written.files)} files in {escape(str(folder))}", soft_wrap=True)
    write_result(json_file, dataclasses.asdict(written))


def _dry_run(prepared: ProducePlan, json_file: Path | None, allow_rejects: bool) -> None:
    from producer.csv_reader import Export
    from producer.produce import validate
    from producer.record_encoder import Record

    examples: dict[str, Record] = {}

    def keep_first(export: Export, record: Record) -> None:
        examples.setdefault(export.path, record)

    with _screen() as show:
        result = validate(prepared, on_progress=show, on_record=keep_first)
    for path, record in examples.items():
        out.print(f"[bold]{escape(path)}[/], first record, partition key {escape(record.PartitionKey)}")
        out.print(escape(record.Data.decode()), soft_wrap=True)
    _summary(result, "would go to")
    write_result(json_file, {**dataclasses.asdict(result), "dry_run": True})
    if result.rejected and not allow_rejects:
        raise typer.Exit(1)


def _summary(result: ProduceResult, verb: str) -> None:
    counts = result.counts
    rate = result.produced / result.seconds if result.seconds else 0
    skipped = sum(file.skipped for file in result.files)
    done = f", after {skipped:,} rows of the run before" if skipped else ""
    out.print(
        f"{result.produced:,} records ({counts.accepted_bytes / 1e6:,.1f} MB) from {len(result.files)} "
        f"file{'s' if len(result.files) != 1 else ''} {verb} stream '{result.stream}' in {result.seconds:.1f} s "
        f"({rate:,.0f}/s){done}",
        soft_wrap=True,
    )
    if counts.retried:
        out.print(
            f"{counts.retried:,} were tried again ({counts.throttled:,} throttled); "
            f"{counts.possible_duplicates:,} may be there twice, because a request's outcome was unknown",
            soft_wrap=True,
        )
    if result.rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(result.rejected_reasons.items()))
        where = f"; see {result.rejects}" if result.rejects else ""
        out.print(f"[yellow]{result.rejected:,} rows were rejected[/] ({reasons}){escape(where)}", soft_wrap=True)


@contextmanager
def _screen() -> Iterator[Callable[[ProduceProgress], None]]:
    """A progress bar on standard error: records, records/s, MB/s, throttles and time left."""
    with Progress(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    ) as bar:
        task = bar.add_task("reading", total=None)
        shown = 0.0

        def show(progress: ProduceProgress) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < _REFRESH_SECONDS:
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
            bar.update(task, total=progress.total_bytes, completed=progress.read_bytes, description=" · ".join(parts))

        yield show


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for a stop; a second Ctrl-C ends the program at once."""
    import pyarrow

    asked = False

    def ask(number: int, _frame: object) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True
        err.print("stopping: finishing what is in flight (Ctrl-C again to end at once)")

    # Arrow would take a signal for its own while it reads a block, and end the run with an error.
    pyarrow.enable_signal_handlers(False)
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        pyarrow.enable_signal_handlers(True)
