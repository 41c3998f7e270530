"""A run of every component on the embedded AWS, each with its own access key, for the recorder.

The first streaming job is killed in a batch, so that the second has to clean up after it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import httpx
import yaml

from jobs.common.aws import client
from jobs.settings.settings import Settings
from lambdas import crawler_trigger, gluejob_trigger, sqs_batch
from local import batch_path
from local.job_runner import spark_submit
from producer.sample import write_sample
from tests.helpers.call_recorder import component_environment
from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port
from tests.helpers.samples import GOOD

Handler = Callable[[dict[str, Any], object], Any]


class WholeRun:
    """The run on one lake. `endpoint` is the recorder's; every `movement` command is a process."""

    def __init__(self, settings: Settings, endpoint: str, folder: Path, names: batch_path.ResourceNames) -> None:
        self._settings, self._endpoint, self._folder, self._names = settings, endpoint, folder, names
        self._config = folder / "settings.yaml"
        self._config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")

    def do(self) -> None:
        """Runs every component, in the order of a record's way."""
        write_sample(60, self._folder / "exports", bad_rate=0.2)
        self.movement("producer", "produce", str(self._folder / "exports"), "--no-check")
        self.serve()
        # Killed after it registered partitions: the next job cleans up and takes them to a wider contract.
        self.movement("stream-job", "stream", "--until-drained", fault="ledger.committing")
        self.widen_contract()
        self.movement("stream-job", "stream", "--until-drained")
        # Only a part of each batch's rejected records: status and report then read quarantine files.
        self.movement("replay", "replay", "--quarantine", "--reason", "failed_check")
        self.batch()
        self.movement("compact", "compact", "--min-files", "2", "--grace", "0")
        self.movement("parity", "parity")  # reads the moved partitions
        self.movement("compact", "compact", "--min-files", "2", "--grace", "0")
        self.movement("gold", "gold")
        client("glue").delete_table(DatabaseName=self._settings.database, Name="processed")
        self.movement("catalog", "catalog", "repair")
        self.movement("status", "status")
        self.movement("report", "report", "--out", "report.html")

    def widen_contract(self) -> None:
        """Adds a column to the contract, so that existing tables and partitions must be updated."""
        contract = yaml.safe_load((ROOT / "conf" / self._settings.contract).read_text(encoding="utf-8"))
        contract["columns"]["note"] = {"source": "Note", "type": "string"}
        file = self._folder / "wider.yaml"
        file.write_text(yaml.safe_dump(contract, sort_keys=False), encoding="utf-8")
        settings = self._settings.model_copy(update={"contract": str(file)})
        self._config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")

    def movement(self, component: str, command: str, *arguments: str, fault: str | None = None) -> None:
        """Runs one command as `component`; with `fault` it must die at that fault point."""
        environment = self._environment(component) | ({"MOVEMENT_FAULT": fault} if fault else {})
        done = subprocess.run(
            [sys.executable, "-m", "movement", command, *arguments, "--config", str(self._config)],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        expected = -9 if fault else 0
        assert done.returncode == expected, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"

    def serve(self) -> None:
        """One record through the HTTP API."""
        port = free_port()
        command = [sys.executable, "-m", "movement", "serve", "--port", str(port), "--config", str(self._config)]
        process = subprocess.Popen(command, cwd=self._folder, env=self._environment("producer"))
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:  # the server needs time to start
                answer = client.post(f"http://127.0.0.1:{port}/uber_movement", json=GOOD, timeout=30)
            assert answer.status_code == 200, answer.text
        finally:
            process.terminate()
            process.wait(20)

    def batch(self) -> None:
        """The batch path, as `movement batch` runs it, with a key for each function and for the job."""
        command, environment = spark_submit()
        path = batch_path.BatchPath(
            self._settings,
            _as_component("crawler-trigger", crawler_trigger.handler),
            _as_component("gluejob-trigger", gluejob_trigger.handler),
            script=str(ROOT / "jobs" / "batch_job.py"),
            submit=[*command, "--master", "local[1]", "--conf", "spark.ui.enabled=false"],
            job_environment={**environment, **component_environment("batch-job"), "SPARK_LOCAL_IP": "127.0.0.1"},
            job_arguments={"--config": str(self._config)},
            names=self._names,
        )
        ran = path.run()
        assert ran.error is None, ran.error
        assert [run.state for run in ran.job_runs] == ["SUCCEEDED"]

    def _environment(self, component: str) -> dict[str, str]:
        ours = {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, "AWS_ENDPOINT_URL": self._endpoint}
        return {**os.environ, **ours, **component_environment(component)}


def _as_component(component: str, handler: Handler) -> Handler:
    """The handler with the component's key, as a function's container has its own role."""

    def handle(event: dict[str, Any], context: object) -> Any:
        before = {name: os.environ.get(name) for name in component_environment(component)}
        os.environ.update(component_environment(component))
        sqs_batch.glue.cache_clear()
        boto3.DEFAULT_SESSION = None  # it caches credentials
        try:
            return handler(event, context)
        finally:
            sqs_batch.glue.cache_clear()
            boto3.DEFAULT_SESSION = None
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    return handle
