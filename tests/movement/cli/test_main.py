"""The command line as a whole: the commands, the options that all of them have, and a help that answers at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from movement.cli.main import app
from tests.helpers.paths import ROOT

# Options that a command does not have, by its name, because it reads no settings or returns no result.
WITHOUT = {
    "package": {"--config", "--set"},
    "sample": {"--config", "--set"},
    "deploy stack": {"--config", "--set"},
    "deploy conf": {"--config", "--set"},
    "contract upgrade": {"--config", "--set"},
    "contract init": {"--config", "--set"},
    "cost": {"--config", "--set"},
    "serve": {"--json"},
}
# Modules that take a tenth of a second and more to import.
SLOW = ("boto3", "numpy", "pandas", "pyarrow", "pydantic", "pyspark", "rich.progress", "uvicorn", "yaml")


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_module_of_the_cli_is_named_as_its_command_is_typed() -> None:
    shared = {"__init__", "main", "console", "options", "log_file", "java"}
    modules = {file.stem for file in (ROOT / "movement" / "cli").glob("*.py")} - shared
    assert modules == {name.partition(" ")[0] for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_and_the_common_options(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--config", "--set", "--json"} - options == WITHOUT.get(name, set())
    first, _, more = str(COMMANDS[name].help).strip().partition("\n")
    assert first.endswith((".", ":"))
    assert more.strip() or name.startswith("local"), "when to use it"


def test_the_help_imports_nothing_slow() -> None:
    program = f"import sys, movement.cli.main; print([name for name in {SLOW!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
