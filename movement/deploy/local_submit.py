"""Runs a release's script by spark-submit from this machine, with the release's Python alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.common.errors import ConfigurationError
from jobs.settings.config_files import find_configuration
from jobs.settings.settings import Settings
from movement.packaging.release import EMR_ENVIRONMENT, read_manifest

LOG = "smoke.log"
# Variables by which this process's Python would get into the job's.
_OWN_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")
END_SECONDS = 30.0


class LocalSubmit:
    """A run by spark-submit. The driver runs here, the executors where the master says."""

    def __init__(self, master: str, release: Path, script: str, arguments: Sequence[str], settings: Settings) -> None:
        self.title = f"Spark at {master}"
        self._master, self._release, self._script = master, release, script
        self._arguments, self._settings = list(arguments), settings
        self._log = Path(settings.local.state_dir).absolute() / LOG
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, step: Callable[[str], None]) -> str:
        """Unpacks the release's environment for the driver and starts spark-submit; returns its process id."""
        manifest = read_manifest(self._release)
        if EMR_ENVIRONMENT not in manifest.artifacts:
            raise ConfigurationError(f"{self._release} has no {EMR_ENVIRONMENT}; `movement package` builds it")
        self._folder = tempfile.TemporaryDirectory(prefix="movement-smoke-")
        folder = Path(self._folder.name)
        step("unpacking the release's environment")
        with tarfile.open(self._release / EMR_ENVIRONMENT) as archive:
            archive.extractall(folder / "environment", filter="fully_trusted")  # noqa: S202 - our own, checked above
        python = "./environment/bin/python"
        command = [
            *(_spark_submit(), "--master", self._master),
            *("--archives", f"{(self._release / EMR_ENVIRONMENT).absolute()}#environment"),
            *("--conf", f"spark.executorEnv.PYSPARK_PYTHON={python}", "--conf", "spark.ui.enabled=false"),
            *(part for key, value in self._settings.deploy.spark_conf.items() for part in ("--conf", f"{key}={value}")),
            *(str((self._release / self._script).absolute()), *self._arguments),
        ]
        environment = {name: value for name, value in os.environ.items() if name not in _OWN_PYTHON}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - spark-submit with our own arguments
                command,
                env=environment | {"PYSPARK_DRIVER_PYTHON": python, "PYSPARK_PYTHON": python},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return f"spark-submit {self._process.pid}"

    def state(self) -> tuple[str, bool, str]:
        """(state, whether it has ended, the log's last line)."""
        if self._process is None:
            return "not started", True, ""
        code = self._process.poll()
        if code is None:
            return "RUNNING", False, ""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"exit code {code}", True, lines[-1] if lines else ""

    def where(self) -> str:
        """The log's path."""
        return str(self._log)

    def clean_up(self, _pause: Callable[[float], None], _clock: Callable[[], float]) -> None:
        """Waits for the end of a run that has written its findings, ends another one, and deletes the environment."""
        if self._process is not None:
            try:
                self._process.wait(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()


def submit_arguments(config: str | None, overrides: Sequence[str], run: str) -> list[str]:
    """The script's arguments. It runs in another folder, so a settings file is passed by its whole path."""
    named = config if config is None or config.startswith("s3://") else str(find_configuration(config).absolute())
    settings = ["--config", named] if named else []
    return [*settings, *(part for each in overrides for part in ("--set", each)), "--run", run]


def _spark_submit() -> str:
    """The path of spark-submit: SPARK_HOME's, the PATH's, or that of the installed pyspark."""
    home = os.environ.get("SPARK_HOME")
    if home is None and (found := shutil.which("spark-submit")):
        return found
    if home is None:
        import importlib.util

        spec = importlib.util.find_spec("pyspark")
        if spec is None or spec.origin is None:
            raise ConfigurationError("no spark-submit: set SPARK_HOME, or install the extra spark")
        home = str(Path(spec.origin).parent)
    return str(Path(home) / "bin" / "spark-submit")
