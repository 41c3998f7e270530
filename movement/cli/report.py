"""`movement report`: the lake as a page to look at. What is on it: movement/report/, docs/report.md."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from movement.cli.console import Config, JsonFile, Overrides, command, err, out, write_result

if TYPE_CHECKING:
    from jobs.settings.settings import Settings


def report(
    target: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the page.")] = Path(
        "report.html"
    ),
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Write a page to look at: travel times on a map, and how the pipeline does. One HTML file, no network needed.

    Reads the gold tables, the ledger and the lake's listing; starts no Spark. `movement serve` shows the same, live.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    result = write_report(settings, target)
    out.print(summary(result), soft_wrap=True)
    for notice in notices(result):
        err.print(f"[yellow]note:[/] {escape(notice)}", soft_wrap=True)
    write_result(json_file, result)


def write_report(settings: Settings, target: Path) -> dict[str, Any]:
    """Writes the page with a progress line; what `--json` holds of it."""
    begun = time.monotonic()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as progress:
        line = progress.add_task("starting")
        from movement.report.content import content_of
        from movement.report.page import render
        from movement.report.reading import read_report

        data = read_report(settings, lambda step: progress.update(line, description=step))
        progress.update(line, description="writing the page")
        page = render(content_of(data)).encode("utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + ".part")
        draft.write_bytes(page)
        draft.replace(target)
    gold = data.gold
    return {
        "out": str(target.absolute()),
        "bytes": len(page),
        "gold": gold is not None,
        "cities": [city.name for city in gold.cities] if gold else [],
        "rows": gold.rows if gold else 0,
        "rows_in_lake": gold.total if gold else 0,
        "left_out": gold.left_out if gold else [],
        "batches": len(data.pipeline.batches),
        "stream": settings.stream.name,
        "lake": settings.lake,
        "database": settings.database,
        "seconds": round(time.monotonic() - begun, 2),
    }


def summary(result: dict[str, Any]) -> str:
    """The page in one line."""
    cities, batches = len(result["cities"]), result["batches"]
    return (
        f"{escape(result['out'])} ({result['bytes'] / 1e6:.1f} MB): {result['rows']:,} corridors in {cities} "
        f"{'city' if cities == 1 else 'cities'}, {batches:,} {'batch' if batches == 1 else 'batches'} "
        f"({result['seconds']:.1f} s)"
    )


def notices(result: dict[str, Any]) -> list[str]:
    """What the page lacks, and what to do about it."""
    found = []
    if not result["gold"]:
        found.append(f"no gold tables yet: run `{command()} gold`, then this again")
    if not result["batches"]:
        found.append(f"the ledger of {result['lake']} is empty: run `{command()} stream`")
    if result["rows"] < result["rows_in_lake"]:
        found.append(
            f"the page holds {result['rows']:,} of {result['rows_in_lake']:,} corridors, "
            f"{len(result['left_out'])} date ranges are left out whole: --set report.max_rows=N for more"
        )
    return found
