"""Compiles the Python that Spark's workers import, once, as pip does with every other package.

Spark puts `pyspark.zip` of its own home before the installed pyspark, and the archive holds sources alone: each
Python process that a session starts (a query's planner, a daemon for each kind of worker) compiles them anew, which
takes some 0.4 s. `python bootstrap/spark_python.py` puts compiled modules beside the sources; another version of
Python ignores them and takes the sources. Safe to repeat.

Source: https://docs.python.org/3/library/zipimport.html
"""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[import-not-found]
from pathlib import Path

import pyspark


def compiled(source: bytes, path: str) -> bytes:
    """A module's .pyc that is taken as it is: beside its source in one archive it cannot grow old."""
    code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    return bytes(_code_to_hash_pyc(code, importlib.util.source_hash(source), False))


def is_compiled(archive: zipfile.ZipFile) -> bool:
    """Whether this version of Python finds its compiled modules there."""
    modules = [name for name in archive.namelist() if name.endswith(".pyc")]
    return bool(modules) and archive.read(modules[0]).startswith(importlib.util.MAGIC_NUMBER)


def compile_archive(path: Path) -> bool:
    """Adds the compiled modules, whole or not at all; False where they are there already."""
    draft = path.with_suffix(".part")
    with zipfile.ZipFile(path) as archive:
        if is_compiled(archive):
            return False
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as target:
            for entry in archive.infolist():
                if entry.filename.endswith(".pyc"):
                    continue
                content = archive.read(entry)
                target.writestr(entry, content)
                if entry.filename.endswith(".py"):
                    module = zipfile.ZipInfo(entry.filename + "c", entry.date_time)
                    # As it stands: to unpack the modules took a fifth of what the sources took to compile.
                    target.writestr(module, compiled(content, os.path.join(path, entry.filename)))
    draft.replace(path)
    return True


def main() -> int:
    for path in sorted((Path(pyspark.__file__).parent / "python" / "lib").glob("*.zip")):
        compile_archive(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
