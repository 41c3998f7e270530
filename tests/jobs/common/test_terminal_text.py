"""Control characters in the text of records are shown, not executed, in logs and on terminals."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from unicodedata import category

import pytest
from rich.progress import Progress
from rich.table import Table

from jobs.common.errors import TransientError
from jobs.common.logging import JsonLines, TextLines
from jobs.common.terminal_text import printable
from jobs.schema.partitions import partition_path
from movement.cli import main as cli
from movement.cli.console import SafeConsole
from movement.cli.log_file import log_to_file

UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
# One-character CSI, right-to-left override, line separator, tag, lone surrogate.
HOSTILE = "Par\x9b2Jis\u202e\u2028\U000e0041\ud800\u0085東京"
FOLDER = partition_path(["city"], {"city": HOSTILE})
SHOWN = r"city=Par\u009b2Jis\u202e\u2028\udb40\udc41\ud800\u0085東京"


def test_invisible_characters_are_escaped_and_visible_ones_stay() -> None:
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        unseen = category(char) in UNSEEN and char not in "\n\t"
        found = printable(f"a{char}b")
        assert found.isascii() if unseen else found == f"a{char}b", hex(code)
    assert printable(FOLDER) == SHOWN


def test_escaped_json_is_still_the_same_json() -> None:
    written = json.dumps({"city": HOSTILE}, ensure_ascii=False)
    assert json.loads(printable(written)) == {"city": HOSTILE}


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_a_hostile_city_in_a_path_or_a_traceback_is_escaped_in_the_log(form: logging.Formatter) -> None:
    try:
        raise TransientError(f"write s3://b/lake/processed/{FOLDER}/x: SlowDown")
    except TransientError:
        record = logging.LogRecord("jobs", logging.ERROR, "f", 1, "%s", (FOLDER,), sys.exc_info())
    record.fields = {"partition": FOLDER}
    line = form.format(record)
    assert not [char for char in line if category(char) in UNSEEN and char != "\n"]
    assert r"Par\u009b2Jis\u202e" in line
    assert "東京" in line
    if isinstance(form, JsonLines):
        assert json.loads(line)["message"] == SHOWN, "not even after it is decoded"


def test_a_hostile_city_is_escaped_on_a_terminal() -> None:
    shown = io.StringIO()
    console = SafeConsole(file=shown, force_terminal=True, width=200)
    table = Table("partition")
    table.add_row(FOLDER)
    console.print(table)
    console.print(f"[bold]{FOLDER}[/]", soft_wrap=True)
    with Progress(console=console) as progress:
        progress.add_task(FOLDER, total=1)
    found = shown.getvalue()
    assert SHOWN in found
    assert "\x1b[" in found, "our own colours stay"
    for char in HOSTILE:
        assert char.isprintable() or char not in found


def test_an_error_of_a_command_is_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # Without surrogates: pytest-xdist cannot send a report that contains one.
    folder, shown = FOLDER.replace("\ud800", ""), SHOWN.replace(r"\ud800", "")

    def fails() -> None:
        with log_to_file(tmp_path / "log"):
            logging.getLogger("jobs").error("%s", folder)
        raise TransientError(f"delete {folder}")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == f"error: delete {shown}\n"
    assert shown in (tmp_path / "log").read_text(encoding="utf-8")
