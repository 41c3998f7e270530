"""Java is checked before Spark starts: a wrong or missing one is one clear line, by `make` and by `movement`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.common.errors import ConfigurationError
from movement.cli.java import require_java
from tests.helpers.paths import ROOT

SCRIPT = ROOT / "bootstrap" / "java.sh"


def java_home(folder: Path, version: str) -> str:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    java.chmod(0o755)
    return str(folder)


def by_script(**environment: str) -> tuple[int, str]:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, SCRIPT], env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("version", ["17.0.15", "21.0.1"])
def test_java_17_and_21_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    home = java_home(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", home)

    require_java()

    assert by_script(JAVA_HOME=home) == (0, "")


@pytest.mark.parametrize(("version", "shown"), [("11.0.2", "11"), ("1.8.0_402", "1"), ("25.0.1", "25")])
def test_another_java_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, shown: str
) -> None:
    home = java_home(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", home)

    with pytest.raises(ConfigurationError, match=rf"17 or 21: .* is version {shown}; set JAVA_HOME"):
        require_java()

    code, error = by_script(JAVA_HOME=home)
    assert code == 1
    assert f"is version {shown}." in error
    assert "set JAVA_HOME" in error


def test_a_wrong_java_home_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    with pytest.raises(ConfigurationError, match=r"JAVA_HOME is .* is not there"):
        require_java()

    code, error = by_script(JAVA_HOME=str(tmp_path))
    assert code == 1
    assert f"there is no {tmp_path}/bin/java" in error


def test_a_stop_of_the_whole_process_group_is_not_taken_for_a_wrong_java(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = java_home(tmp_path, "17.0.15")
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\nkill -TERM $$\n")
    monkeypatch.setenv("JAVA_HOME", home)

    require_java()
