"""`movement package`: builds the files that EMR, Glue and Lambda need into one folder with a manifest."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from movement.cli.console import out, spinner, write_result
from movement.cli.options import JsonFile


def package(
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to build the release in.")] = (
        Path("dist/release")
    ),
    platform: Annotated[
        str, typer.Option("--platform", help="EMR's processor: x86_64, or arm64 (Graviton). Glue has x86_64.")
    ] = "x86_64",
    python: Annotated[
        str, typer.Option("--python", help="EMR's Python: 3.11 or 3.13 on emr-spark-8.1.0. Glue 6.0 has 3.13.")
    ] = "3.11",
    interpreter: Annotated[
        str | None,
        typer.Option("--interpreter", metavar="PATH", help="Python's path on EMR. Default: /usr/bin/python3.x"),
    ] = None,
    from_environment: Annotated[
        bool,
        typer.Option(
            "--from-environment",
            help="Copy the installed packages instead: quick, but only for a Spark on this machine.",
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="emr|glue", help="Build only this environment; may be repeated."),
    ] = None,
    compression: Annotated[
        int, typer.Option("--compression", min=1, max=9, help="gzip level of the environments.")
    ] = 6,
    json_file: JsonFile = None,
) -> None:
    """Build a release: wheel, environments for EMR and Glue, Lambda zips, configuration, scripts, manifest.

    The first step of every deployment; `movement deploy` uploads the folder. The same source and lock give the same
    bytes on any Linux or macOS; SOURCE_DATE_EPOCH sets the files' time. Nothing is compiled and Docker is not needed:
    pip downloads wheels for the platform, checked against requirements.lock.
    """
    from rich.table import Table

    from jobs.common.errors import ConfigurationError
    from movement.packaging import release
    from movement.packaging.target import target

    started = time.monotonic()
    wanted = set(only or ("emr", "glue"))
    if not wanted <= {"emr", "glue"}:
        raise ConfigurationError(f"--only {', '.join(sorted(wanted))}: allowed: emr, glue")
    environments = {}
    if "emr" in wanted:
        environments[release.EMR_ENVIRONMENT] = None if from_environment else target(python, platform, interpreter)
    if "glue" in wanted and not from_environment:
        environments[release.GLUE_ENVIRONMENT] = target("3.13", "x86_64")
    with spinner("packaging") as line:
        built = release.package(
            out_folder, environments, level=compression, step=lambda text: line.log(f"packaging {text}")
        )
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{out_folder}/")
    table.add_column("bytes", justify="right")
    table.add_column("sha256")
    for name, artifact in built.artifacts.items():
        table.add_row(name, f"{artifact.bytes:,}", artifact.sha256[:16])
    out.print(table)
    digest = hashlib.sha256((out_folder / release.MANIFEST).read_bytes()).hexdigest()
    out.print(f"\nRelease {built.release} ({time.monotonic() - started:.0f} s)", soft_wrap=True)
    out.print(f"SHA-256 of {release.MANIFEST}: {digest}", soft_wrap=True)
    write_result(json_file, json.loads(json.dumps(asdict(built))) | {"out": str(out_folder), "manifest_sha256": digest})
