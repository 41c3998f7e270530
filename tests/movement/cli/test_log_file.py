"""The log of a command: what ends the command is in it, and a log that cannot be written is one clear line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jobs.common.errors import ConfigurationError, TerminalError
from movement.cli.log_file import log_to_file
from tests.helpers.commands import movement


def test_the_error_that_ends_a_command_is_in_the_log_with_its_traceback(tmp_path: Path) -> None:
    log = tmp_path / "state" / "x.log"
    with pytest.raises(TerminalError) as error, log_to_file(log):
        raise TerminalError("it broke")
    assert error.value.__notes__ == [f"log: {log}"]
    text = log.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "it broke" in text


def test_a_log_that_cannot_be_written_names_the_setting() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"/sys/x/y\.log cannot be written: .*set local\.state_dir"),
        log_to_file(Path("/sys/x/y.log")),
    ):
        pass


def test_on_a_full_disk_the_command_goes_on_and_says_once_that_lines_are_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with log_to_file(Path("/dev/full")):
        for _ in range(3):
            logging.getLogger("x").info("y" * 10000)
    said = capsys.readouterr().err
    assert said.count("lines are missing in /dev/full: [Errno 28] No space left on device") == 1
    assert "Traceback" not in said


def test_an_error_of_the_system_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = movement("sample", "--rows", "1", "--out", str(tmp_path / "file" / "x"), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: [Errno 20] Not a directory")
    assert "Traceback" not in done.stderr
