"""`movement replay`: rejected records back onto the stream, or processed rows again from raw."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from movement.cli.console import INTERRUPTED, err, graceful_stop, out, progress_bar, resources, write_result
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from jobs.maintenance.quarantine import ReplayProgress, ReplayResult
    from jobs.maintenance.raw import RebuildResult
    from jobs.settings.settings import Settings


def replay(
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Send rejected records to the stream again, byte for byte.")
    ] = False,
    reasons: Annotated[
        list[str] | None,
        typer.Option("--reason", metavar="R", help="Only records rejected for this reason; may be repeated."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="T", help="Only records that arrived at or after T (ISO 8601, UTC)."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Build processed rows from raw again, by the current contract.")
    ] = False,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="T", help="With --raw: batches that ended at or after T (ISO 8601, UTC)."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="T", help="With --raw: batches that ended before T (ISO 8601, UTC).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --quarantine: send nothing, show what would be sent.")
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Process rejected or raw records again, after the contract or the code was fixed.

    Restart the streaming job with the fixed contract first, in both cases.

    `--quarantine`: for records that were rejected by mistake. Each goes back onto the stream once, even if you run
    this again; a record that is rejected again is a new line in quarantine. The exit code is 130 after Ctrl-C, and
    the same command continues.

    `--raw --from T --to T`: for rows that were parsed wrongly. Reads the raw lines of the batches that ended in that
    time again; a query sees a partition's old rows or its new ones. Safe to repeat; after a kill, the next run
    finishes the work.
    """
    from jobs.common.errors import ConfigurationError
    from jobs.common.times import time_option
    from jobs.settings.settings import load_settings

    if quarantine == raw:
        raise ConfigurationError(
            "say what to replay, one of the two: `movement replay --quarantine` sends rejected records to the stream "
            "again (--dry-run shows which); `movement replay --raw --from T --to T` builds rows from raw again"
        )
    if raw:
        if start is None or end is None or reasons or since or dry_run:
            raise ConfigurationError(
                "`movement replay --raw` needs --from T and --to T, and does not take --reason, --since or --dry-run"
            )
        window = time_option(start, "--from"), time_option(end, "--to")
        settings = load_settings(config, overrides or ())
        write_result(json_file, asdict(rebuild_from_raw(settings, *window)) | resources(settings))
        return
    if start is not None or end is not None:
        raise ConfigurationError("--from and --to belong to `movement replay --raw`; with --quarantine use --since T")
    settings = load_settings(config, overrides or ())
    _replay_quarantine(settings, reasons or [], since, dry_run, json_file)


def _replay_quarantine(
    settings: Settings, reasons: list[str], since: str | None, dry_run: bool, json_file: Path | None
) -> None:
    from jobs.common.errors import TransientError
    from jobs.common.times import time_option
    from jobs.maintenance.quarantine import replay_quarantine

    start = time_option(since, "--since") if since is not None else None
    try:
        with progress_bar("reading quarantine") as bar, graceful_stop() as stop:

            def show(progress: ReplayProgress) -> None:
                described = f"{progress.sent:,} records sent, {progress.looked_at:,} of {progress.lines:,} looked at"
                bar(progress.looked_at, progress.lines or None, described)

            result = replay_quarantine(
                settings, reasons=reasons, since=start, dry_run=dry_run, on_progress=show, stop=stop
            )
    except TransientError:
        err.print("[yellow]not all records were sent; the same command continues[/]")
        raise
    _print_replayed(result, reasons)
    write_result(json_file, asdict(result))
    if result.stopped:
        err.print("[yellow]stopped; the same command continues from here[/]")
        raise typer.Exit(INTERRUPTED)


def _print_replayed(result: ReplayResult, reasons: list[str]) -> None:
    from rich.table import Table

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
            f"{result.possible_duplicates:,} of them may be on the stream twice: a request of this run, or of one "
            "that was killed, had no answer",
            soft_wrap=True,
        )
    if result.unsendable:
        out.print(
            f"[yellow]{result.unsendable:,} cannot be sent:[/] they exceed the stream's limit for one record "
            "(`aws kinesis update-max-record-size` raises it), or have no partition key",
            soft_wrap=True,
        )
    if result.uncommitted:
        out.print(f"{result.uncommitted:,} files are skipped: no committed batch wrote them", soft_wrap=True)
    for reason in reasons:
        if reason not in names:
            out.print(f"[yellow]no record was rejected for '{escape(reason)}'[/]", soft_wrap=True)


def rebuild_from_raw(settings: Settings, start: datetime, end: datetime) -> RebuildResult:
    """Rebuilds the rows of the batches that ended in [start, end), with a progress bar and a summary."""
    from jobs.maintenance.raw import run

    with progress_bar("looking at the ledger") as show:
        result = run(settings, start, end, show)
    _print_rebuilt(result, settings)
    return result


def _print_rebuilt(result: RebuildResult, settings: Settings) -> None:
    if result.continued:
        out.print(f"{result.continued:,} batches of an interrupted rebuild are finished")
    if not result.batches:
        out.print(f"Nothing to do: no batch in the ledger of {settings.lake} ended in that time.", soft_wrap=True)
        return
    out.print(
        f"{result.batches:,} batches, {result.records:,} records read again: {result.processed:,} rows "
        f"(before: {result.processed_before:,}), {result.quarantined:,} in quarantine "
        f"(before: {result.quarantined_before:,}), {len(result.partitions):,} partitions, {result.seconds:.1f} s",
        soft_wrap=True,
    )
    for reason, count in sorted(result.reasons.items()):
        out.print(f"  {escape(reason)}  {count:,}")
    if result.kept_in_quarantine:
        out.print(
            f"{result.kept_in_quarantine:,} records stay in quarantine: lines of their files were sent to the stream "
            "again by `movement replay --quarantine`",
            soft_wrap=True,
        )
