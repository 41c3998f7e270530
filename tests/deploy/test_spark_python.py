"""`make setup` compiles the archive that Spark's Python workers import pyspark from."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = "def where():\n    return 1 / 0\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "lib" / "spark.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("spark/", "")
        target.writestr("spark/__init__.py", "")
        target.writestr("spark/part.py", SOURCE)
        target.writestr("spark/table.txt", "kept")
    return path


def compiled(path: Path) -> bool:
    program = "import pathlib, sys, spark_python; print(spark_python.compile_archive(pathlib.Path(sys.argv[1])))"
    return _python(program, str(path), path=ROOT / "bootstrap") == "True"


def test_what_is_imported_from_it_was_compiled_before(archive: Path) -> None:
    assert compiled(archive)
    with zipfile.ZipFile(archive) as found:
        assert found.read("spark/part.py").decode() == SOURCE
        assert found.read("spark/table.txt") == b"kept"
    program = "import builtins; builtins.compile = None; import spark.part, spark; print(spark.part.__cached__)"
    assert _python(program, path=archive).endswith("spark/part.pyc")


def test_a_traceback_names_the_archive_and_shows_the_line(archive: Path) -> None:
    compiled(archive)
    program = (
        "import traceback, spark.part\ntry: spark.part.where()\nexcept ZeroDivisionError: print(traceback.format_exc())"
    )
    shown = _python(program, path=archive)
    assert f'File "{archive}/spark/part.py", line 2, in where' in shown
    assert "return 1 / 0" in shown


def test_it_is_compiled_once_and_again_for_another_python(archive: Path) -> None:
    assert compiled(archive)
    before = archive.read_bytes()
    assert not compiled(archive)
    assert archive.read_bytes() == before
    with zipfile.ZipFile(archive) as found:
        contents = {entry.filename: found.read(entry) for entry in found.infolist()}
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in contents.items():
            target.writestr(name, b"\0\0\r\n" + content[4:] if name.endswith(".pyc") else content)
    assert _python("import spark.part; print(spark.part.__name__)", path=archive) == "spark.part"
    assert compiled(archive)
    with zipfile.ZipFile(archive) as found:
        assert {entry.filename: found.read(entry) for entry in found.infolist()} == contents
        assert sorted(found.namelist()) == sorted(set(found.namelist()))


def _python(program: str, *arguments: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
