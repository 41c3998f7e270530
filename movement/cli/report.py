"""`movement report`: the lake as one HTML page. docs/report.md says what is on it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from movement.cli.console import command_name, note, out, resources, spinner, write_result, write_whole
from movement.cli.options import Config, JsonFile, Overrides

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
    """Write the lake as one HTML page: the state of the pipeline, and travel times on a map.

    For a look, or to send to someone: the file needs no server and no network. Run `movement gold` first. Reads the
    gold tables, the ledger and the lake's listing; starts no Spark. The map is there if the contract has a gold table
    of zones. `movement serve` shows the same page, live.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    result = write_report(settings, target)
    out.print(_summary(result), soft_wrap=True)
    for line in _notices(result):
        note(line)
    write_result(json_file, result)


def write_report(settings: Settings, target: Path) -> dict[str, Any]:
    """Writes the page with a progress line; returns the result that `--json` holds."""
    started = time.monotonic()
    with spinner("starting") as line:
        from jobs.lake.store import lake_at
        from jobs.schema.table import load_contract
        from movement.report.content import content_of
        from movement.report.gold import GoldTables
        from movement.report.gold_tables import gold_tables, has_map
        from movement.report.model import ReportData
        from movement.report.page import render
        from movement.report.pipeline import PipelineReader

        line.update("reading the ledger")
        pipeline = PipelineReader(lake_at(settings.lake), settings.report.max_batches).read()
        line.update("reading the gold tables")
        contract = load_contract(settings.contract)
        with_map, tables = has_map(contract), gold_tables(settings.lake, contract)
        gold = GoldTables(settings.lake).read(settings.report.max_rows) if with_map else None
        place = (settings.stream.name, settings.lake, settings.database)
        data = ReportData(datetime.now(UTC), *place, gold, pipeline, tables, with_map)
        line.update("writing the page")
        page = render(content_of(data)).encode("utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, page)
    return {
        "out": str(target.absolute()),
        "bytes": len(page),
        "map": with_map,
        "gold": gold is not None,
        "gold_tables": {table.name: table.rows for table in tables},
        "cities": [city.name for city in gold.cities] if gold else [],
        "rows": gold.rows if gold else 0,
        "rows_in_lake": gold.total if gold else 0,
        "left_out": gold.left_out if gold else [],
        "batches": len(pipeline.batches),
        **resources(settings),
        "seconds": round(time.monotonic() - started, 2),
    }


def _summary(result: dict[str, Any]) -> str:
    cities, batches, tables = len(result["cities"]), result["batches"], len(result["gold_tables"])
    travel = f"{result['rows']:,} corridors in {cities} {'city' if cities == 1 else 'cities'}"
    shown = travel if result["map"] else f"{tables:,} gold {'table' if tables == 1 else 'tables'}"
    return (
        f"{escape(result['out'])} ({result['bytes'] / 1e6:.1f} MB): {shown}, "
        f"{batches:,} {'batch' if batches == 1 else 'batches'} ({result['seconds']:.1f} s)"
    )


def _notices(result: dict[str, Any]) -> list[str]:
    """What is missing on the page, and what to do about it."""
    found = []
    missing = [name for name, rows in result["gold_tables"].items() if rows is None]
    if not result["map"] and missing:
        found.append(f"not computed yet: {', '.join(missing)}: run `{command_name()} gold`, then this again")
    if result["map"] and not result["gold"]:
        found.append(f"no gold tables of travel times yet: run `{command_name()} gold`, then this again")
    if not result["batches"]:
        found.append(f"the ledger of {result['lake']} is empty: run `{command_name()} stream`")
    if result["rows"] < result["rows_in_lake"]:
        found.append(
            f"the page holds {result['rows']:,} of {result['rows_in_lake']:,} corridors, without "
            f"{len(result['left_out'])} date ranges: --set report.max_rows=N for more"
        )
    return found
