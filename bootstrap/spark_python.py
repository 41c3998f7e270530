"""Compiles the Python that Spark's workers import, once, as pip does with every other package.

Spark puts the archive `pyspark.zip` of its home before the installed pyspark, and it holds sources alone: each Python
process that a session starts (a query's planner, a daemon for each kind of worker) compiles them anew, some 0.4 s
each. `python bootstrap/spark_python.py` puts compiled modules beside the sources; another version of Python ignores
them and takes the sources. Safe to repeat.

Source: https://docs.python.org/3/library/zipimport.html
"""

from __future__ import annotations

import compileall
import importlib.util
import sys
import zipfile
from pathlib import Path
from py_compile import PycInvalidationMode
from tempfile import TemporaryDirectory

import pyspark


def compile_archive(path: Path) -> bool:
    """Adds the compiled modules, whole or not at all; False where this version of Python has them there already."""
    with zipfile.ZipFile(path) as archive, TemporaryDirectory() as folder:
        modules = [name for name in archive.namelist() if name.endswith(".pyc")]
        if modules and archive.read(modules[0]).startswith(importlib.util.MAGIC_NUMBER):
            return False
        entries = [entry for entry in archive.infolist() if entry.filename not in modules]
        archive.extractall(folder, entries)
        compileall.compile_dir(
            folder,
            quiet=2,
            legacy=True,  # beside the source: zipimport knows no __pycache__
            stripdir=folder,
            prependdir=path,  # tracebacks name the archive
            # Taken as they are: in one archive with its source, a module cannot grow old.
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )
        draft = path.with_suffix(".part")
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as target:
            for entry in entries:
                target.writestr(entry, archive.read(entry))
            for module in sorted(Path(folder).rglob("*.pyc")):
                # Not deflated: that would give back a fifth of the time.
                target.write(module, module.relative_to(folder), zipfile.ZIP_STORED)
    draft.replace(path)
    return True


def main() -> int:
    for path in sorted((Path(pyspark.__file__).parent / "python" / "lib").glob("*.zip")):
        compile_archive(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
