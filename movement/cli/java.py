"""Spark needs Java 17 or 21: found before a JVM is started, so that its absence is one clear line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from jobs.common.errors import ConfigurationError

# Of a process, and of a JVM that shuts itself down.
ENDED_BY_A_SIGNAL = {code for number in (signal.SIGINT, signal.SIGTERM) for code in (-number, 128 + number)}
OLDEST, NEWEST, SUPPORTED = 17, 21, "17 or 21"


def require_java() -> None:
    """Raises ConfigurationError where Spark would find no Java, or one that it does not run on."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        where = f"JAVA_HOME is {home}, and {java} is not there" if home else "there is no `java` on the PATH"
        raise ConfigurationError(f"Spark needs Java {SUPPORTED}: {where}; `make setup` installs it, or says how")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    if answer.returncode in ENDED_BY_A_SIGNAL:
        return  # the whole process group was told to stop, and the command itself obeys once Spark has started
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    if found is None or not OLDEST <= int(found.group(1)) <= NEWEST:
        version = found.group(1) if found else "unknown"
        raise ConfigurationError(
            f"Spark needs Java {SUPPORTED}: {java} is version {version}; set JAVA_HOME to one of these"
        )
