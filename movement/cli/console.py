"""How every command talks: two consoles, progress on standard error, a graceful stop, and the result of `--json`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from jobs.common.terminal_text import printable

if TYPE_CHECKING:
    from jobs.settings.settings import Settings

# The exit code after Ctrl-C, as shells use it.
INTERRUPTED = 130


class SafeConsole(Console):
    """A console that prints control characters in paths and errors as escapes: records can hold any text."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape before the layout, so that columns are wide enough."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escape renderables that did not pass `render_str`, such as a Text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


# Results go to standard output; progress, notices and errors to standard error.
out = SafeConsole(highlight=False)
err = SafeConsole(stderr=True, highlight=False)


class Spinner:
    """A line with a spinner, a text and the time elapsed."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show

    def update(self, text: str) -> None:
        """Replaces the text."""
        self._show(escape(text))

    def log(self, text: str) -> None:
        """Replaces the text; prints it as a line of its own if standard error is not a terminal."""
        self.update(text)
        if not err.is_terminal:
            err.print(escape(text), soft_wrap=True)


@contextmanager
def spinner(text: str) -> Iterator[Spinner]:
    """Shows a spinner while the block runs."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(escape(text))
        yield Spinner(lambda description: progress.update(task, description=description))


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """Shows a bar while the block runs; yields a function that takes the amount done, the total and the text.

    The total is None while it is unknown.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    bar, description = BarColumn(bar_width=24), TextColumn("{task.description}")
    columns = (SpinnerColumn(), bar, TaskProgressColumn(), description, TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(escape(text), total=None)

        def show(done: int, total: int | None, text: str) -> None:
            progress.update(task, completed=done, total=total, description=escape(text))

        yield show


@contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C and SIGTERM into a request to stop; yields a function that says whether one was made.

    A second Ctrl-C raises KeyboardInterrupt at once.
    """
    import pyarrow

    requested = False

    def request(number: int, _frame: object) -> None:
        nonlocal requested
        if requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested = True
        err.print("stopping: finishing what is in flight (Ctrl-C again to end at once)")

    # Arrow's own handlers would end the run with an error if the signal arrives while it reads a block.
    pyarrow.enable_signal_handlers(False)
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        pyarrow.enable_signal_handlers(True)


def note(line: str) -> None:
    """Prints a notice to standard error."""
    err.print(f"[yellow]note:[/] {escape(line)}", soft_wrap=True)


def command_name() -> str:
    """The command to type in hints: `movement` if the shell finds it, otherwise the path it was started by."""
    started = Path(sys.argv[0])
    found = shutil.which("movement")
    if started.name != "movement" or (found and Path(found).resolve() == started.resolve()):
        return "movement"
    return os.path.relpath(started) if started.is_relative_to(Path.cwd()) else str(started)


def resources(settings: Settings) -> dict[str, Any]:
    """The part of a result that names what the command worked on."""
    return {"stream": settings.stream.name, "lake": settings.lake, "database": settings.database}


def write_result(file: Path | None, result: dict[str, Any]) -> None:
    """Writes a command's result to the file of `--json`, if that is given."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False, default=str) + "\n"
    write_whole(file, text.encode("utf-8"))


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file by rename: readers see the old content or the new one."""
    draft = file.with_name(file.name + ".part")
    draft.write_bytes(content)
    draft.replace(file)
