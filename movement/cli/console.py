"""What every command shares: its options, its two consoles, and the result that `--json` writes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from jobs.common.terminal_text import printable


class SafeConsole(Console):
    """A console that shows text of records, which stands in paths and errors, without obeying it."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Escaped before it is laid out, so that columns are wide enough."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever else comes by, such as a Text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


# Results go to standard output; progress, notices and errors to standard error.
out = SafeConsole(highlight=False)
err = SafeConsole(stderr=True, highlight=False)

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


def command() -> str:
    """How this very command is typed here: `movement` where that finds it, else the way it was started."""
    started = Path(sys.argv[0])
    found = shutil.which("movement")
    if started.name != "movement" or (found and Path(found).resolve() == started.resolve()):
        return "movement"
    return os.path.relpath(started) if started.is_relative_to(Path.cwd()) else str(started)


def write_result(file: Path | None, result: dict[str, Any]) -> None:
    """Writes a command's result to the file of `--json`, whole or not at all."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".part")
    draft.write_text(json.dumps(result, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    draft.replace(file)
