"""`movement replay --raw`: processed partitions anew from raw, after the contract has changed; what it prints."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from movement.console import err, out

if TYPE_CHECKING:
    from jobs.contract.settings import Settings
    from jobs.replay_raw_job import RebuildResult


def rebuild(settings: Settings, start: datetime, end: datetime) -> RebuildResult:
    """Rebuilds the batches that ended in [start, end), with a progress bar, and says what came of it."""
    from jobs.replay_raw_job import run

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
