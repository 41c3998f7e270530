"""Adds the jars that EMR and Glue have and pyspark does not, S3A and Delta, to the virtual environment's Spark.

`python bootstrap/spark_jars.py` downloads the artifacts of spark-jars.lock to pyspark's `jars/` folder, so that
`spark-submit` needs no option for them, as on a cluster. It checks each against its SHA-256 and skips those that exist.
Set MAVEN_CENTRAL to a mirror if Maven Central cannot be reached.
"""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import pyspark
from rich.progress import Progress

LOCK = Path(__file__).with_name("spark-jars.lock")
CENTRAL = "https://repo1.maven.org/maven2"


def locked() -> Iterator[tuple[str, str, str]]:
    """For each line of the lock: the jar's file name, its path in a Maven repository, its SHA-256."""
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            coordinates, digest = line.split()
            group, artifact, version = coordinates.split(":")
            name = f"{artifact}-{version}.jar"
            yield name, f"{group.replace('.', '/')}/{artifact}/{version}/{name}", digest


def fetch(url: str, digest: str, target: Path) -> None:
    """Downloads `url` to `target`, by rename. Raises ValueError if the SHA-256 differs."""
    with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310 - https or a mirror that the user named
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{url}: not the file that {LOCK.name} names (its SHA-256 differs)")
    draft = target.with_suffix(".part")
    draft.write_bytes(content)
    draft.replace(target)


def main() -> int:
    """Downloads missing jars; returns 1 and prints a line for each that failed."""
    jars = Path(pyspark.__file__).parent / "jars"
    missing = [(name, path, digest) for name, path, digest in locked() if not (jars / name).is_file()]
    if not missing:
        return 0
    root = os.environ.get("MAVEN_CENTRAL", CENTRAL).rstrip("/")
    failures = 0
    with Progress() as progress, ThreadPoolExecutor(8) as pool:
        bar = progress.add_task("Spark's jars (S3A, Delta)", total=len(missing))
        work = [(name, pool.submit(fetch, f"{root}/{path}", digest, jars / name)) for name, path, digest in missing]
        for name, done in work:
            try:
                done.result()
            except (URLError, OSError, ValueError) as error:
                failures += 1
                progress.console.print(f"error: {name}: {error}", style="red", markup=False)
            progress.advance(bar)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
