"""`movement replay`: what was written once is put through the pipeline again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from movement.cli.console import err, out

if TYPE_CHECKING:
    from jobs.maintenance.raw import RebuildResult
    from jobs.settings.settings import Settings

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table

from movement.cli.console import Config, JsonFile, Overrides, write_result
from movement.cli.produce import stop_on_signals

if TYPE_CHECKING:
    from jobs.maintenance.quarantine import ReplayProgress, ReplayResult
    from jobs.settings.settings import Settings

_STOPPED = 130


def replay(
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Rejected records, exactly as they came, back onto the stream.")
    ] = False,
    reasons: Annotated[
        list[str] | None,
        typer.Option("--reason", metavar="R", help="Only those rejected for this reason; may be repeated."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="T", help="Only those that reached the stream then or later (ISO 8601, UTC)."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Processed rows anew from raw, by the contract as it is now.")
    ] = False,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="T", help="With --raw: batches that ended then or later (ISO 8601, UTC)."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="T", help="With --raw: batches that ended before.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --quarantine: send nothing, show what would be sent.")
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Put what was written once through the pipeline again, after the contract or the code was mended.

    `--quarantine`: each rejected record goes back onto the stream once, however often this is run; one that is
    rejected again is a new line in quarantine. Exit code 130 after Ctrl-C: the same command goes on from there.

    `--raw --from T --to T`: reads the raw lines of the batches that ended in that time anew; readers through the
    catalog see a partition's old rows or its new ones. Safe to repeat; killed, the next run ends what it began.

    Restart the streaming job with the mended contract before either.
    """
    from jobs.common.errors import ConfigurationError
    from jobs.common.times import time_option
    from jobs.settings.settings import load_settings
    from movement.cli.replay import rebuild

    if quarantine == raw:
        raise ConfigurationError(
            "say what to replay, one of both: `movement replay --quarantine` puts rejected records back onto the "
            "stream (--dry-run shows which); `movement replay --raw --from T --to T` builds rows anew from raw"
        )
    if raw:
        if start is None or end is None or reasons or since or dry_run:
            raise ConfigurationError(
                "`movement replay --raw` takes --from T and --to T, both, and none of --reason, --since, --dry-run"
            )
        window = time_option(start, "--from"), time_option(end, "--to")
        settings = load_settings(config, overrides or ())
        result = dataclasses.asdict(rebuild(settings, *window))
        touched = {"stream": settings.stream.name, "lake": settings.lake, "database": settings.database}
        write_result(json_file, result | touched)
        return
    if start is not None or end is not None:
        raise ConfigurationError("--from and --to belong to `movement replay --raw`; here it is --since T")
    settings = load_settings(config, overrides or ())
    _quarantine(settings, reasons or [], since, dry_run, json_file)


def _quarantine(
    settings: Settings, reasons: list[str], since: str | None, dry_run: bool, json_file: Path | None
) -> None:
    from jobs.common.errors import TransientError
    from jobs.common.times import time_option
    from jobs.maintenance.quarantine import replay_quarantine

    start = time_option(since, "--since") if since is not None else None
    try:
        with _screen() as show, stop_on_signals() as stop:
            result = replay_quarantine(
                settings, reasons=reasons, since=start, dry_run=dry_run, on_progress=show, stop=stop
            )
    except TransientError:
        err.print("[yellow]not all was sent; the same command goes on where this one ended[/]")
        raise
    _summary(result, reasons)
    write_result(json_file, dataclasses.asdict(result))
    if result.stopped:
        err.print("[yellow]stopped; the same command goes on from here[/]")
        raise typer.Exit(_STOPPED)


def _summary(result: ReplayResult, reasons: list[str]) -> None:
    sent = "would be sent" if result.dry_run else "sent"
    counts = {
        sent: result.by_reason,
        "sent before": result.already_sent_by_reason,
        "cannot be sent": result.unsendable_by_reason,
        "left": result.skipped_by_reason,
    }
    names = sorted({name for column in counts.values() for name in column})
    if names:
        table = Table("reason", *(column for column in counts), box=None, header_style="bold", pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for name in names:
            table.add_row(escape(name), *(f"{column.get(name, 0):,}" for column in counts.values()))
        out.print(table)
    out.print(
        f"{result.sent:,} records {sent} to stream '{result.stream}', from {result.files:,} files of {result.lake}",
        soft_wrap=True,
    )
    if result.possible_duplicates and not result.dry_run:
        out.print(
            f"{result.possible_duplicates:,} of them may be there twice: a request of this run, or of one that was "
            "killed, had no answer",
            soft_wrap=True,
        )
    if result.unsendable:
        out.print(
            f"[yellow]{result.unsendable:,} cannot be sent:[/] they are over the stream's limit for one record "
            "(`aws kinesis update-max-record-size` raises it), or have no partition key",
            soft_wrap=True,
        )
    if result.uncommitted:
        out.print(f"{result.uncommitted:,} files are left out: no batch that is final wrote them", soft_wrap=True)
    for reason in reasons:
        if reason not in names:
            out.print(f"[yellow]no record was rejected for '{escape(reason)}'[/]", soft_wrap=True)


@contextmanager
def _screen() -> Iterator[Callable[[ReplayProgress], None]]:
    """A progress bar on standard error, by lines looked at."""
    with Bar(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    ) as bar:
        task = bar.add_task("reading quarantine", total=None)

        def show(progress: ReplayProgress) -> None:
            described = f"{progress.sent:,} records sent, {progress.looked_at:,} of {progress.lines:,} looked at"
            bar.update(task, total=progress.lines or None, completed=progress.looked_at, description=described)

        yield show


# `movement replay --raw`: processed partitions anew from raw, after the contract has changed; what it prints.


def rebuild(settings: Settings, start: datetime, end: datetime) -> RebuildResult:
    """Rebuilds the batches that ended in [start, end), with a progress bar, and says what came of it."""
    from jobs.maintenance.raw import run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        line = progress.add_task("looking at the ledger", total=None)

        def show(done: int, everything: int, what: str) -> None:
            progress.update(line, completed=done, total=everything, description=escape(what))

        result = run(settings, start, end, show)
    _show(result, settings)
    return result


def _show(result: RebuildResult, settings: Settings) -> None:
    if result.continued:
        out.print(f"{result.continued:,} batches of a rebuild that was killed are done now")
    if not result.batches:
        out.print(f"Nothing to do: no batch in the ledger of {settings.lake} ended in that time.", soft_wrap=True)
        return
    out.print(
        f"{result.batches:,} batches, {result.records:,} records read anew: {result.processed:,} rows "
        f"(before: {result.processed_before:,}), {result.quarantined:,} in quarantine "
        f"(before: {result.quarantined_before:,}), {len(result.partitions):,} partitions, {result.seconds:.1f} s",
        soft_wrap=True,
    )
    for reason, count in sorted(result.reasons.items()):
        out.print(f"  {escape(reason)}  {count:,}")
    if result.kept_in_quarantine:
        out.print(
            f"{result.kept_in_quarantine:,} records stay in quarantine as they were: lines of their files have been "
            "put back onto the stream by `movement replay --quarantine`",
            soft_wrap=True,
        )
