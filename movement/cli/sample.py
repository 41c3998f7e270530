"""`movement sample`: made-up CSV exports."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from movement.cli.console import out, write_result
from movement.cli.options import JsonFile


def sample(
    rows: Annotated[int, typer.Option("--rows", min=0, help="Number of rows, over all cities.")],
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write to; created if it does not exist.")
    ],
    cities: Annotated[int, typer.Option("--cities", min=1, help="Number of cities, one file each.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same files.")] = 0,
    bad_rate: Annotated[
        float, typer.Option("--bad-rate", min=0, max=1, help="Share of bad rows, of several kinds.")
    ] = 0,
    json_file: JsonFile = None,
) -> None:
    """Write CSV exports with made-up rows, in the format of Uber Movement's own exports.

    For a first try and for load tests. The same seed gives the same files; --bad-rate adds rows that the contract
    rejects. Next: movement produce DIR.
    """
    from producer.sample import write_sample

    written = write_sample(rows, folder, cities=cities, seed=seed, bad_rate=bad_rate)
    bad = f", {written.bad:,} of them bad" if written.bad else ""
    out.print(f"{written.rows:,} rows{bad}, in {len(written.files)} files in {escape(str(folder))}", soft_wrap=True)
    write_result(json_file, asdict(written))
