"""`movement produce` and `movement sample`: the producer's screen. What they run is in `producer/`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from movement.console import Config, JsonFile, Overrides, err, out, write_result

if TYPE_CHECKING:
    from jobs.contract.settings import Settings
    from producer.put_records import ProduceResult

Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH…", help="CSV files, plain or gzip; folders of them; - for standard input."),
]


def produce(
    paths: Paths,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Send CSV exports to the stream, every row accepted or accounted for."""
    from jobs.contract.settings import load_settings

    settings = load_settings(config, overrides or ())
    result = send(paths, settings)
    out.print(f"{result.produced:,} records on stream '{result.stream}' in {result.seconds:.1f} s")
    write_result(json_file, dataclasses.asdict(result))
    if result.rejected:
        raise typer.Exit(1)


def send(paths: list[str], settings: Settings) -> ProduceResult:
    """Sends the files with a progress bar."""
    from producer.put_records import Progress
    from producer.put_records import produce as run

    with Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    ) as bar:
        task = bar.add_task("reading")

        def show(progress: Progress) -> None:
            rate = progress.counts.accepted / progress.seconds if progress.seconds else 0
            bar.update(
                task,
                total=progress.total_bytes,
                completed=progress.read_bytes,
                description=f"{progress.counts.accepted:,} records · {rate:,.0f}/s",
            )

        return run(paths, settings, on_progress=show)


def sample(
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows in all, over all cities.")],
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write to; made where it is not there.")
    ],
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
    out.print(f"{written.rows:,} rows{bad}, in {len(written.files)} files in {folder}", soft_wrap=True)
    write_result(json_file, dataclasses.asdict(written))
