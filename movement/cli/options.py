"""The options that several commands have, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="Settings as YAML: a path, or a name in conf/ such as emr.yaml."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting; may be repeated. Keys: conf/reference.yaml."
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write the result as JSON, for a program to read."),
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1. Default: local.port, which is 4566."),
]
