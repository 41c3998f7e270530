"""`movement package`: what EMR, Glue and Lambda take, in one folder with a manifest."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from movement.cli.console import JsonFile, err, out, write_result


def package(
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder that the release is built in.")] = (
        Path("dist/release")
    ),
    platform: Annotated[
        str, typer.Option("--platform", help="EMR's processor: x86_64, or arm64 (Graviton). Glue's is x86_64.")
    ] = "x86_64",
    python: Annotated[
        str, typer.Option("--python", help="EMR's Python: 3.11 or 3.13 on emr-spark-8.1.0. Glue 6.0 has 3.13.")
    ] = "3.11",
    interpreter: Annotated[
        str | None,
        typer.Option("--interpreter", metavar="PATH", help="Where EMR's machines have it. Default: /usr/bin/python3.x"),
    ] = None,
    from_environment: Annotated[
        bool,
        typer.Option(
            "--from-environment", help="Copy what is installed here instead: quick, for a Spark on this machine alone."
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="emr|glue", help="Build this environment alone; may be repeated."),
    ] = None,
    compression: Annotated[int, typer.Option("--compression", min=1, max=9, help="gzip level of environments.")] = 6,
    json_file: JsonFile = None,
) -> None:
    """Build a release: wheel, environments for EMR and Glue, Lambda zips, configuration, scripts, manifest.

    The same source and lock give the same bytes, on any Linux or macOS; SOURCE_DATE_EPOCH sets the files' time.
    Nothing is compiled: pip fetches wheels for the platform, checked against requirements.lock. Docker is not needed.
    """
    from jobs.common.errors import ConfigurationError
    from movement.packaging import release
    from movement.packaging.target import target

    begun = time.monotonic()
    wanted = set(only or ("emr", "glue"))
    if not wanted <= {"emr", "glue"}:
        raise ConfigurationError(f"--only {', '.join(sorted(wanted))}: allowed: emr, glue")
    environments = {}
    if "emr" in wanted:
        environments[release.EMR_ENVIRONMENT] = None if from_environment else target(python, platform, interpreter)
    if "glue" in wanted and not from_environment:
        environments[release.GLUE_ENVIRONMENT] = target("3.13", "x86_64")
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as progress:
        line = progress.add_task("packaging")

        def step(text: str) -> None:
            progress.update(line, description=f"packaging {text}")
            if not err.is_terminal:
                err.print(f"packaging {text}", soft_wrap=True)

        built = release.package(out_folder, environments, level=compression, step=step)
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{out_folder}/")
    table.add_column("bytes", justify="right")
    table.add_column("sha256")
    for name, artifact in built.artifacts.items():
        table.add_row(name, f"{artifact.bytes:,}", artifact.sha256[:16])
    out.print(table)
    digest = hashlib.sha256((out_folder / release.MANIFEST).read_bytes()).hexdigest()
    out.print(f"\nRelease {built.release} ({time.monotonic() - begun:.0f} s)", soft_wrap=True)
    out.print(f"SHA-256 of {release.MANIFEST}: {digest}", soft_wrap=True)
    write_result(json_file, json.loads(json.dumps(asdict(built))) | {"out": str(out_folder), "manifest_sha256": digest})
