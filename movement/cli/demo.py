"""`movement demo`: the whole pipeline on the embedded AWS, then a summary of the lake.

It runs the same code as a cluster, with conf/demo.yaml. The summary counts files of the lake and partitions of the
catalog; it does not rely on the job's own figures.
"""

from __future__ import annotations

import gzip
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from movement.cli.console import command_name, err, note, out, resources, write_result
from movement.cli.options import Config, JsonFile, Overrides, Port

if TYPE_CHECKING:
    from jobs.lake.store import Lake
    from jobs.settings.settings import Settings

# Contracts and samples of other streams than travel times: conf/examples/<name>.yaml and a folder of that name.
EXAMPLES = {
    "clicks": "nested click events",
    "taxi": "taxi trips: exact money, local times",
    "hourly": "Uber's hourly aggregates, with fields in the file's name",
    "logs": "CloudWatch Logs payloads, gzip",
}
_EXAMPLES_HELP = "\n\n".join(["Instead of travel times:", *(f"{name}: {what}" for name, what in EXAMPLES.items())])


@dataclass(frozen=True)
class LakeCounts:
    """Counts of a lake: raw lines, processed rows, records that the stream's path quarantined, rows of the batch path,
    processed partitions and files."""

    raw: int
    processed: int
    quarantined: int
    processed_batch: int
    partitions: list[str]
    files: int


def demo(
    csv: Annotated[
        list[str] | None,
        typer.Option(
            "--csv",
            metavar="PATH",
            help="Your own CSV, JSON lines or Parquet files, or folders of them; may be repeated.",
        ),
    ] = None,
    example: Annotated[str | None, typer.Option("--example", metavar="NAME", help=_EXAMPLES_HELP)] = None,
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Without --csv and --example: number of made-up rows.")
    ] = 3000,
    port: Port = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Run the whole pipeline on this machine, without an AWS account: from CSV over Kinesis and Spark to a lake.

    Start here. It produces, streams, runs the batch path, compares both, builds gold tables and a page. It starts the
    embedded AWS, or uses the one that runs, and leaves it running for you to look around. The contracts and samples of
    the examples are in conf/examples; their bad records are sent, too, so that you see them in quarantine.
    """
    from jobs.settings.settings import load_settings
    from local import batch_path, resources, server
    from movement.cli.batch import batch_path_names
    from movement.cli.java import require_java

    started = time.monotonic()
    require_java()
    port_override = [f"local.port={port}"] if port is not None else []
    of_example, paths = [], csv
    if example is not None:
        if csv:
            raise typer.BadParameter("has samples of its own: leave out --csv", param_hint="'--example'")
        contract, samples = example_paths(example)
        of_example = [json.dumps({"contract": str(contract), "producer.validate": False})]
        paths = [str(samples)]
    settings = load_settings(config or "demo.yaml", [*of_example, *(overrides or ()), *port_override])
    state = Path(settings.local.state_dir).expanduser().absolute()
    running = server.up(settings, notice=note)
    _step(1, f"embedded AWS on {running.endpoint}")
    with server.aimed_at(running):
        batch_path.remove(batch_path_names(settings))
        resources.remove(settings)
        resources.ensure(settings)
        _step(2, f"Kinesis stream '{settings.stream.name}' with {settings.stream.shards} shards, {settings.lake}")
        result = _run(settings, paths or [str(_sample(rows, state / "demo-exports"))], state / "demo.log")
        result["report"] = _report(settings, state / "report.html")
    result |= {"example": example, "endpoint": running.endpoint, "seconds": round(time.monotonic() - started, 1)}
    _show(result, state / "demo.log")
    write_result(json_file, result)
    if not result["complete"]:
        raise typer.Exit(1)


def _run(settings: Settings, paths: list[str], log: Path) -> dict[str, Any]:
    from jobs.lake.store import lake_at
    from jobs.schema.rejections import TOO_MANY_PARTITIONS
    from jobs.schema.table import load_contract
    from movement.cli.batch import run_batch_path
    from movement.cli.gold import run_gold
    from movement.cli.parity import run_parity
    from movement.cli.produce import send_all
    from movement.cli.stream import run_stream

    produced = send_all(paths, settings)
    _step(3, f"{produced.produced:,} records from {len(produced.files)} files put on the stream")
    streamed, stopped = run_stream(settings, log, until_drained=True)
    if stopped:
        err.print("Stopped before the stream was drained.")
        raise typer.Exit(1)
    _step(4, f"{streamed.read:,} records read by Spark Structured Streaming in {streamed.batches} batches")
    contract = load_contract(settings.contract)
    catalogued = _catalogued(settings, contract)
    _step(5, f"{len(catalogued)} partitions found in the Glue Data Catalog")
    _step(6, "the batch path, on the same stream")
    batch = run_batch_path(settings, lambda step: err.print(f"  [dim]{escape(step)}[/]", soft_wrap=True))
    parity = run_parity(settings, log)
    _step(7, f"both paths compared, row for row: {'equal' if parity.equal else 'NOT equal'}")
    section = contract.gold or {}
    made = {name: figures["rows"] for name, figures in run_gold(settings, log).tables.items()} if section else {}
    rows = ", ".join(f"{name} {count:,}" for name, count in made.items())
    _step(8, f"{len(made)} gold tables built: {rows}" if section else "no gold tables: the contract has no `gold:`")
    counts = count_lake(lake_at(settings.lake))
    expected = counts.processed + streamed.reasons.get(TOO_MANY_PARTITIONS, 0)
    # A Delta table's partitions are in its log.
    folders = [] if settings.sink.format == "delta" else counts.partitions
    short = [name for name, table in section.items() if table.kind == "history" and made.get(name) != counts.processed]
    missing = [name for name, table in section.items() if name not in made and table.kind != "zones"]
    problems = [
        problem
        for problem, found in (
            ("not every record is in the raw layer", produced.produced != counts.raw),
            ("raw lines are neither rows nor in quarantine", counts.raw != counts.processed + counts.quarantined),
            ("the catalog does not list the lake's partitions", folders != catalogued),
            (f"the batch path: {batch['error']}", batch["error"] is not None),
            ("the batch path has another number of rows", counts.processed_batch != expected),
            ("parity: the two paths have different rows", not parity.equal),
            (f"gold tables without all rows: {', '.join(short)}", bool(short)),
            (f"gold tables that were not made: {', '.join(missing)}", bool(missing)),
        )
        if found
    ]
    return {
        "complete": not problems,
        "problems": problems,
        "produced": produced.produced,
        "raw": counts.raw,
        "processed": counts.processed,
        "quarantined": counts.quarantined,
        "processed_batch": counts.processed_batch,
        "partitions": counts.partitions,
        "catalog_partitions": catalogued,
        "files": counts.files,
        "reasons": streamed.reasons,
        "gold": made,
        "parity": {"equal": parity.equal, "only_stream": parity.only_stream, "only_batch": parity.only_batch},
        **resources(settings),
    }


def _report(settings: Settings, page: Path) -> str:
    """Writes the page of this run; returns its path."""
    from movement.cli.report import write_report

    written = write_report(settings, page)
    travel_times = f"{written['rows']:,} corridors in {len(written['cities'])} cities"
    tables = f"{written['batches']} batches, {len(written['gold_tables'])} gold tables"
    _step(9, f"a page to look at: {travel_times if written['gold'] else tables}")
    return str(written["out"])


def example_paths(name: str) -> tuple[Path, Path]:
    """(contract, folder of the sample) of the example. Raises typer.BadParameter for an unknown name."""
    from jobs.settings.config_files import SHIPPED

    if name not in EXAMPLES:
        raise typer.BadParameter(
            f"no example is named {name!r}; allowed: {', '.join(EXAMPLES)}", param_hint="'--example'"
        )
    folder = SHIPPED / "examples"
    return folder / f"{name}.yaml", folder / name


def count_lake(lake: Lake) -> LakeCounts:
    """Counts a lake by reading it: every raw line, every Parquet footer."""
    from jobs.lake.table_files import live_files

    raw = sum(_lines(lake, path) for path, _ in lake.list("raw/"))
    quarantined = sum(_lines(lake, path) for path, _ in lake.list("quarantine/") if not _is_of_batch(path))
    rows, partitions, files = 0, set(), 0
    for file in live_files(lake, "processed"):
        rows += _rows(lake, file.path)
        partitions.add(file.partition)
        files += 1
    by_batch = sum(_rows(lake, path) for path, _ in lake.list("processed_batch/"))
    return LakeCounts(raw, rows, quarantined, by_batch, sorted(partitions), files)


def _is_of_batch(path: str) -> bool:
    """Whether the batch job wrote this quarantine file: its name starts with the job's ledger name."""
    return path.rpartition("/")[2].startswith("batch-")


def _rows(lake: Lake, path: str) -> int:
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(io.BytesIO(lake.get(path) or b"")).metadata.num_rows)


def _lines(lake: Lake, path: str) -> int:
    return gzip.decompress(lake.get(path) or b"").count(b"\n")


def _catalogued(settings: Settings, contract: Any) -> list[str]:
    from jobs.catalog.glue import GlueCatalog
    from jobs.catalog.tables import stream_tables
    from jobs.common.aws import client
    from jobs.schema.partitions import partition_path

    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    catalog.ensure_tables(stream_tables(contract, settings.sink.format))
    return sorted(partition_path(contract.partition_by, values) for values in catalog.partitions("processed"))


def _sample(rows: int, folder: Path) -> Path:
    """Writes made-up exports, in place of an earlier run's."""
    from producer.sample import write_sample

    for old in folder.glob("*.csv"):
        old.unlink()
    write_sample(rows, folder)
    return folder


def _step(number: int, text: str) -> None:
    err.print(f"[green]{number}[/] {escape(text)}", soft_wrap=True)


def _show(result: dict[str, Any], log: Path) -> None:
    from rich.table import Table

    table = Table(title="What the lake holds", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, key in (
        ("records produced", "produced"),
        ("raw JSON lines", "raw"),
        ("processed rows (Parquet)", "processed"),
        ("in quarantine", "quarantined"),
        ("processed rows of the batch path", "processed_batch"),
        ("Parquet files", "files"),
    ):
        table.add_row(name, f"{result[key]:,}")
        if key == "quarantined":
            for reason, count in sorted(result["reasons"].items()):
                table.add_row(f"  {reason.replace('_', ' ')}", f"{count:,}")
    for name, rows in sorted(result["gold"].items()):
        table.add_row(f"gold {name.replace('_', ' ')}", f"{rows:,}")
    out.print()
    out.print(table)
    catalogued = bool(result["catalog_partitions"])
    out.print(f"\nPartitions, in the lake{' and in the Glue Data Catalog' if catalogued else ' (its Delta log)'}")
    for partition in result["partitions"]:
        out.print(f"  {escape(partition)}", soft_wrap=True)
    verdict = (
        "[green]Every record is accounted for:[/] produced = raw = processed + quarantined.\n"
        "[green]Stream and batch path agree,[/] row for row."
        if result["complete"]
        else f"[red]Not complete:[/] {escape('; '.join(result['problems']))}. Please report it with the log."
    )
    out.print(f"\n{verdict} ({result['seconds']:.0f} s)")
    out.print(f"\nlake      {result['lake']} at {result['endpoint']}", soft_wrap=True)
    out.print(f"database  {result['database']}", soft_wrap=True)
    out.print(f"log       {escape(str(log))}", soft_wrap=True)
    out.print(f"page      {escape(result['report'])}", soft_wrap=True)
    out.print(
        "\nThe embedded AWS keeps running, in memory. Look around, then stop it:\n"
        f'  eval "$({command_name()} local env)"; aws s3 ls --recursive {result["lake"]}/\n'
        f"  {command_name()} local down",
        soft_wrap=True,
    )
