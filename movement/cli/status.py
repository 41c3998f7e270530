"""`movement status`: the state of the pipeline as a page for a terminal, or as JSON. Needs no Spark."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from movement.cli.console import command_name, err, out, write_result
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from jobs.settings.settings import Settings

# A lag from here on is yellow, then red.
LATE_MS, VERY_LATE_MS = 60_000, 600_000
SHOWN_SHARDS = 16
SHOWN_ALARMS = 3
FILES_SECONDS = 60.0


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=1, max=3600, metavar="SECONDS", help="Interval of --watch.")
    ] = 5.0,
    batches: Annotated[int, typer.Option("--batches", min=1, max=1000, help="Number of newest batches to read.")] = 8,
    print_positions: Annotated[
        bool,
        typer.Option(
            "--positions",
            help="After a lost checkpoint: print the setting that makes a new job start where the last one ended.",
        ),
    ] = False,
    remove_leftovers: Annotated[
        bool,
        typer.Option(
            "--remove-leftovers", help="With --positions: delete the files of the last run's unfinished batch."
        ),
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Show the lag of each shard, the last batches, rejected records, alarms and small files.

    Look here first when something seems wrong; every problem comes with what to do. Needs no Spark: it reads the
    newest ledger entries, compares the catalog with the lake's folders, lists the processed table, and asks Kinesis
    once for each shard.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    if print_positions:
        _positions(settings, remove_leftovers, json_file)
        return
    if remove_leftovers:
        raise typer.BadParameter("belongs to --positions", param_hint="--remove-leftovers")
    if watch:
        _watch(settings, batches, every, json_file)
        err.print("[dim]ended[/]")
        return
    found = _look(settings, batches)
    out.print(page(found))
    write_result(json_file, found)


def _look(settings: Settings, batches: int, listed: dict[str, Any] | None = None) -> dict[str, Any]:
    """The state of the pipeline. `listed`: the parts that list the whole lake, from an earlier look."""
    from jobs.maintenance.compact import files_status
    from jobs.stream.status import catalog_status, status

    listed = listed or {"files": files_status(settings), "catalog": catalog_status(settings)}
    return status(settings, batches, command_name()) | listed


def _watch(settings: Settings, batches: int, every: float, json_file: Path | None) -> None:
    from jobs.settings.job_main import stop_on_signals

    # Not by KeyboardInterrupt: Python drops it if it is raised within a finalizer or a callback.
    stop = threading.Event()
    stop_on_signals(stop)
    found = _look(settings, batches)
    listed = time.monotonic()
    with Live(page(found), console=out, screen=out.is_terminal, auto_refresh=False) as live:
        while True:
            write_result(json_file, found)
            live.update(page(found), refresh=True)
            if stop.wait(every):
                return
            recent = time.monotonic() - listed < FILES_SECONDS
            old = {name: found[name] for name in ("files", "catalog")} if recent else None
            found = _look(settings, batches, old)
            listed = listed if old else time.monotonic()


def _positions(settings: Settings, remove: bool, json_file: Path | None) -> None:
    from jobs.lake.lease import Lease
    from jobs.lake.ledger import Ledger
    from jobs.lake.store import lake_at
    from jobs.stream.status import positions

    found = positions(settings)
    if remove and found["leftovers"]:
        lake = lake_at(settings.lake)
        with Lease(lake, settings.checkpoint_name):  # a running job's batch is not a leftover
            removed = Ledger(lake, found["query"]).remove_leftovers(found["last_batch"] + 1)
        err.print(f"deleted {len(removed)} files of the unfinished batch {found['query']}-{found['last_batch'] + 1}")
        found["leftovers"] = []
    write_result(json_file, found)
    if found["query"] is None:
        err.print(
            f"no batch of stream {found['stream']} in {found['lake']} yet: a job reads the stream from its beginning",
            soft_wrap=True,
        )
    # YAML for --config; the value is JSON, as the source's option expects it.
    out.print(Text(f"source:\n  options:\n    startingPosition: '{found['starting_position']}'"), soft_wrap=True)
    if found["leftovers"]:
        err.print(
            f"[yellow]{len(found['leftovers'])} files belong to a batch that was never finished[/]; its records would "
            "be in the lake twice: stop the job and run this with --remove-leftovers before you start with a new "
            "checkpoint",
            soft_wrap=True,
        )
    if found["gone"]:
        err.print(f"[red]records left the stream unread[/] in {', '.join(found['gone'])}", soft_wrap=True)


def page(found: dict[str, Any]) -> RenderableType:
    """The status as panels for the terminal."""
    parts: list[RenderableType] = [_head(found)]
    if found["shards"]:
        parts.append(_panel("Shards", _shards(found["shards"])))
    if found["last"]:
        parts.append(_panel("Last batches", _batches(found)))
    if found["reasons"] or found["replayed"]:
        title = f"In quarantine from these {len(found['last'])} batches"
        parts.append(_panel(title, _reasons(found["reasons"], found["replayed"])))
    if found["nulled"] or found["warned"]:
        title = f"Values that failed a check, in rows of these {len(found['last'])} batches"
        parts.append(_panel(title, _failed_values(found)))
    if found["alarms"]:
        lines = found["alarms"][:SHOWN_ALARMS]
        more = len(found["alarms"]) - len(lines)
        text = "\n".join(lines) + (f"\n… and {more} more" if more else "")
        parts.append(_panel("Alarms", Text(text), "red"))
    if found["notes"]:
        parts.append(_panel("What to do", Text("\n".join(found["notes"])), "yellow"))
    return Group(*parts)


def _panel(title: str, content: RenderableType, colour: str = "dim") -> Panel:
    return Panel(content, title=title, title_align="left", border_style=colour, padding=(0, 1))


def _head(found: dict[str, Any]) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    grid.add_row("stream", f"{escape(found['stream'])} → {escape(found['lake'])}")
    grid.add_row("job", _job(found))
    behind = found["behind_ms"]
    if behind is not None:
        text = "[green]nothing is unread[/]" if behind == 0 else f"{_age(behind)} behind the tip"
        grid.add_row("stream's tip", text)
    files = found["files"]
    if files["files"]:
        more = "" if files["complete"] else " or more"
        text = f"{files['files']:,} files{more} ({_bytes(files['bytes'])}) in {files['partitions']:,} partitions"
        if files["partitions_to_compact"]:
            text += f" · {files['small_files']:,} small files, {files['partitions_to_compact']:,} partitions to compact"
        grid.add_row("processed", text)
    grid.add_row("new partitions", _new_partitions(found["new_partitions"]))
    grid.add_row("catalog", _catalog(found["catalog"]))
    return _panel(f"movement-lake, {found['at'].strftime('%Y-%m-%d %H:%M:%S')} UTC", grid, "cyan")


def _new_partitions(found: dict[str, Any]) -> str:
    if not found["limit"]:
        return "no limit"
    text = f"at most {found['limit']:,} a batch"
    if found["kept_out"]:
        return f"{text} · [red]{found['kept_out']:,} records of these batches are in quarantine because of it[/]"
    return f"{text} · no record kept out"


def _catalog(catalog: dict[str, Any]) -> str:
    if catalog["error"] is not None:
        return f"[yellow]not compared with the lake:[/] {escape(catalog['error'])}"
    found = [f"table {table} is missing" for table in catalog["missing_tables"]]
    for key, text in (
        ("unregistered", "not registered"),
        ("elsewhere", "elsewhere than their files"),
        ("empty", "without files"),
    ):
        if catalog[key]:
            found.append(f"{catalog[key]:,} partitions {text}")
    if not found:
        return f"[green]all {catalog['partitions']:,} partitions are where their files are[/]"
    return f"[yellow]{' · '.join(found)}[/]: `{command_name()} catalog repair`"


def _job(found: dict[str, Any]) -> str:
    job = found["job"]
    if job is None:
        return "[yellow]none has run on this checkpoint[/]"
    colour = {"running": "green", "clean": "default", "failed": "red", "died": "red"}.get(job["state"], "yellow")
    words = {"clean": "ended cleanly", "failed": "ended with an error", "died": "died, in a batch or between two"}
    where = f" [dim](process {job['pid']} on {escape(job['machine'])})[/]" if job["machine"] else ""
    batches = f" · query {found['query']}, {found['batches']:,} batches" if found["query"] else ""
    return f"[{colour}]{words.get(job['state'], job['state'])}[/]{where}{batches}"


def _shards(shards: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("shard", "unread for", "last record read", "position"):
        table.add_column(name, justify="right" if name == "unread for" else "left", header_style="dim", no_wrap=True)
    order = {"gone": 0, "behind": 1, "quiet": 2, "tip": 3}
    worst = sorted(shards, key=lambda each: (order[each["state"]], -(each["behind_ms"] or 0), each["shard"]))
    for shard in worst[:SHOWN_SHARDS]:
        state = shard["state"]
        unread = {"gone": "[red]lost[/]", "quiet": "[dim]?[/]", "tip": "[green]–[/]"}.get(state)
        arrived = shard["last_arrival"]
        table.add_row(
            escape(shard["shard"]) + (" [dim]closed[/]" if shard["closed"] else ""),
            unread or _age(shard["behind_ms"]),
            f"{_ago(arrived)} ago" if arrived else "[dim]–[/]",
            _short(shard["position"] or "before the batches below"),
        )
    if len(shards) > SHOWN_SHARDS:
        table.add_row(f"[dim]… and {len(shards) - SHOWN_SHARDS} more[/]")
    return table


def _batches(found: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = ("batch", "finished", "records", "rejected", "read", "files", "seconds", "age at end")
    for name in columns:
        table.add_column(name, justify="left" if name == "finished" else "right", header_style="dim", no_wrap=True)
    for batch in found["last"]:
        share = batch["quarantined"] / batch["read"] if batch["read"] else 0
        colour = "red" if batch["alarms"] else "yellow" if share else "dim"
        table.add_row(
            str(batch["batch"]),
            f"{_ago(batch['finished_at'])} ago",
            f"{batch['read']:,}",
            f"[{colour}]{batch['quarantined']:,}[/]",
            _bytes(batch["bytes"]),
            f"{batch['files']:,}",
            f"{batch['seconds']:.1f}",
            "[dim]–[/]" if batch["age_ms"] is None else _age(batch["age_ms"]),
        )
    return table


def _reasons(reasons: dict[str, int], replayed: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    most = max(reasons.values(), default=0)
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        table.add_row(escape(reason), f"{count:,}", f"[yellow]{'━' * max(1, round(30 * count / most))}[/]")
    if replayed:
        table.add_row("[dim]replayed[/]", f"{replayed:,}", "[dim]on the stream again; they count in their new batch[/]")
    return table


def _failed_values(found: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for key, text in (("nulled", "now null"), ("warned", "kept as they are")):
        for check, count in sorted(found[key].items(), key=lambda item: -item[1]):
            table.add_row(escape(check), f"{count:,}", f"[yellow]{text}[/]")
    return table


def _age(millis: int) -> str:
    colour = "red" if millis >= VERY_LATE_MS else "yellow" if millis >= LATE_MS else "green"
    return f"[{colour}]{_duration(millis / 1000)}[/]"


def _ago(moment: datetime) -> str:
    return _duration(max(0.0, (datetime.now(UTC) - moment).total_seconds()))


def _duration(seconds: float) -> str:
    for size, unit, below in ((86400, "d", "h"), (3600, "h", "min"), (60, "min", "s")):
        if seconds >= size:
            rest = {"h": 3600, "min": 60, "s": 1}[below]
            return f"{int(seconds // size)} {unit} {int(seconds % size // rest)} {below}"
    return f"{seconds:.1f} s"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _short(position: str) -> str:
    return position if len(position) <= 26 else f"…{position[-12:]}"
