"""A real Spark standalone cluster on 127.0.0.1, from the pyspark package's own jars: a master and workers.

Every process has its own environment without the tests' Python: a worker imports from
the submitted archive or from Spark.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

HOME = Path(pyspark.__file__).parent
START_SECONDS = 180.0


def machine_environment() -> dict[str, str]:
    """The environment of a cluster's machine: Java, Spark, and credentials as from an instance's role."""
    java = Path(shutil.which("java") or "/usr/bin/java").parent
    kept = {name: os.environ[name] for name in ("JAVA_HOME", "HOME", "LANG") if name in os.environ}
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    return kept | keys | {"PATH": f"{java}:/usr/bin:/bin", "SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": "127.0.0.1"}


@dataclass
class Cluster:
    """A cluster's address and its processes: the master first, then the workers."""

    folder: Path
    url: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, workers: int) -> None:
        """Starts the master and the workers, one core each, and waits until all have registered."""
        master = self._run("master", "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0")
        self.url = self._said(master, r"Starting Spark master at (spark://\S+)")
        logs = [
            self._run(
                f"worker{number}",
                "org.apache.spark.deploy.worker.Worker",
                *("--host", "127.0.0.1", "--port", "0", "--cores", "1", "--memory", "1g"),
                *("--work-dir", str(self.folder / f"work{number}"), self.url),
            )
            for number in range(workers)
        ]
        for log in logs:
            self._said(log, r"(Successfully registered) with master")

    def kill_worker(self, number: int) -> None:
        """Kills a worker and its executors, as when its machine fails."""
        os.killpg(self.processes[1 + number].pid, signal.SIGKILL)
        self.processes[1 + number].wait(timeout=30)

    def stop(self) -> None:
        """Ends all processes."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=30)

    def _run(self, name: str, what: str, *arguments: str) -> Path:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            self.processes.append(
                subprocess.Popen(
                    [str(HOME / "bin" / "spark-class"), what, "--webui-port", "0", *arguments],
                    env=machine_environment(),
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return log

    def _said(self, log: Path, pattern: str) -> str:
        deadline = time.monotonic() + START_SECONDS
        while (found := re.search(pattern, log.read_text(errors="replace"))) is None:
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            assert all(process.poll() is None for process in self.processes), log.read_text(errors="replace")[-2000:]
            time.sleep(0.1)
        return found.group(1)


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """A cluster for the block."""
    running = Cluster(folder)
    try:
        running.start(workers)
        yield running
    finally:
        running.stop()


def tasks_by_executor(events: Path) -> Counter[str]:
    """Successful tasks by executor, from Spark's event logs in a folder."""
    found: Counter[str] = Counter()
    for log in events.rglob("*"):
        if not log.is_file() or log.name.startswith((".", "appstatus")):
            continue
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith('{"Event":"SparkListenerTaskEnd"'):
                event = json.loads(line)
                if event["Task End Reason"]["Reason"] == "Success":
                    found[event["Task Info"]["Executor ID"]] += 1
    return found
