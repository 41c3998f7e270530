"""Gives the virtual environment's Spark the jars that EMR's and Glue's bring along: S3A and Delta.

`python bootstrap/spark_jars.py` puts the artifacts of spark-jars.lock into pyspark's own `jars/` folder, so that
`spark-submit` works here with no further option, as on a cluster. Each is checked against its SHA-256; what is
already there is not fetched again. MAVEN_CENTRAL names a mirror where Maven Central itself is out of reach.
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
    """(jar's file name, path in a Maven repository, SHA-256) of each line of the lock."""
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            coordinates, digest = line.split()
            group, artifact, version = coordinates.split(":")
            name = f"{artifact}-{version}.jar"
            yield name, f"{group.replace('.', '/')}/{artifact}/{version}/{name}", digest


def fetch(url: str, digest: str, target: Path) -> None:
    """Downloads `url` to `target`, whole or not at all. Raises ValueError where the SHA-256 differs."""
    with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310 - https or a mirror that the user named
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{url}: not the file that {LOCK.name} names (its SHA-256 differs)")
    draft = target.with_suffix(".part")
    draft.write_bytes(content)
    draft.replace(target)


def main() -> int:
    """Fetches what is missing; exit code 1 with one line for each jar that could not be had."""
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
