"""Options of the JVMs that tests start: their code runs for seconds, so a fast start counts more than fast code."""

from __future__ import annotations

import sys

from tests.helpers.paths import ROOT

OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# `bootstrap/spark_classes.sh` writes it.
CLASSES = ROOT / ".venv" / "spark-classes.jsa"


def jvm_options() -> str:
    """For SPARK_SUBMIT_OPTS. Java goes on without an archive that does not fit; its warning is turned off."""
    if not CLASSES.is_file() or not CLASSES.stat().st_size:
        return OPTIONS
    return f"{OPTIONS} -XX:SharedArchiveFile={CLASSES} -Xlog:cds=off -Xlog:cds+dynamic=off"


if __name__ == "__main__":
    sys.stdout.write(OPTIONS)
