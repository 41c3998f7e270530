"""docs/your-own-stream.md: its files and commands work as written, and its draft is the one that `init` writes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from local import server
from movement.cli.main import app
from tests.helpers.commands import environment
from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port

PAGE = (ROOT / "docs" / "your-own-stream.md").read_text(encoding="utf-8")
# (what the block is, its content): `sh` are commands, `sh spark` those that start the job, and others files.
BLOCKS = re.findall(r"^```(\w+(?: \S+)?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def files() -> Iterator[tuple[str, str]]:
    yield from ((kind.split()[1], text) for kind, text in BLOCKS if kind.startswith(("json ", "yaml ")))


def test_the_commands_without_spark_work_and_the_draft_is_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, text in BLOCKS:
        name = kind.partition(" ")[2]
        if kind == "yaml draft":
            assert text in Path("clicks.yaml").read_text(encoding="utf-8")
        elif kind == "sh":
            for line in text.splitlines():
                done = CliRunner().invoke(app, shlex.split(line)[1:])
                assert done.exit_code == 0, (line, done.output, done.exception)
        elif name != "spark":
            Path(name).write_text(text, encoding="utf-8")
    assert {kind for kind, _ in BLOCKS} >= {"sh", "sh spark", "yaml draft"}


@pytest.mark.nightly
@pytest.mark.spark
def test_the_commands_that_run_the_job_work_in_their_order(tmp_path: Path) -> None:
    for name, text in files():
        (tmp_path / name).write_text(text, encoding="utf-8")
    [commands] = [text for kind, text in BLOCKS if kind == "sh spark"]
    movement = f'movement() {{ {sys.executable} -m movement "$@"; }}'
    with (tmp_path / "clicks-settings.yaml").open("a", encoding="utf-8") as settings:
        settings.write(f"local:\n  port: {free_port()}\n  state_dir: {tmp_path / 'state'}\n")
    try:
        done = subprocess.run(
            ["bash", "-ec", f"{movement}\n{commands}"],
            cwd=tmp_path,
            env={name: value for name, value in environment().items() if not name.startswith("AWS_")},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        from jobs.settings.settings import load_settings

        server.down(load_settings(str(tmp_path / "clicks-settings.yaml"), []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 records" in done.stdout
