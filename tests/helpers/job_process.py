"""The streaming job as a separate process that tests kill, and a producer that runs meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from jobs.common.aws import client
from jobs.settings.settings import Settings
from tests.helpers.lake_audit import RecordKey
from tests.helpers.paths import ROOT
from tests.helpers.samples import GOOD, MEAN, UPPER


class Job:
    """A driver process that runs `jobs.stream_job`. It leads a process group with its JVM and Python workers."""

    def __init__(
        self,
        settings: Settings,
        log: Path,
        *,
        fault: str | None = None,
        until_drained: bool = False,
        endpoint: str | None = None,
        start_from: str | None = None,
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MOVEMENT_FAULT")}
        environment |= {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
        if endpoint:
            environment["AWS_ENDPOINT_URL"] = endpoint
        if fault:
            environment["MOVEMENT_FAULT"] = fault
        config = log.parent / "settings.yaml"
        config.write_text(json.dumps(settings.model_dump(mode="json")), encoding="utf-8")
        self.log = log
        with log.open("ab") as output:
            output.write(f"\n=== fault {fault}\n".encode())
            output.flush()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jobs.stream_job", "--config", str(config)]
                + (["--until-drained"] if until_drained else [])
                + (["--start-from", start_from] if start_from else []),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None if the process still runs after `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """kill -9 of the driver alone: its JVM and workers run until they notice."""
        self.process.kill()
        self.process.wait()

    def lose_machine(self) -> None:
        """kill -9 of the driver and all processes it has started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # all of them have ended
        self.process.wait()

    def output(self) -> str:
        """The output of this run so far."""
        return self.log.read_text(encoding="utf-8", errors="replace").rpartition("\n=== ")[2]

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Producer:
    """Puts records, some of them bad, until the `with` block ends. `accepted`: the records that the stream accepted."""

    def __init__(self, settings: Settings, *, pause: float = 0.3, size: int = 10) -> None:
        self.accepted: dict[RecordKey, bytes] = {}
        self.error: Exception | None = None
        self._stream = settings.stream.name
        self._pause = pause
        self._size = size
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="producer")

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self.error is not None and error is None:
            raise self.error

    def _run(self) -> None:
        try:
            kinesis, payloads = client("kinesis"), self._payloads()
            while not self._ended.wait(self._pause):
                records = [next(payloads) for _ in range(self._size)]
                answer = kinesis.put_records(
                    StreamName=self._stream,
                    Records=[{"Data": data, "PartitionKey": str(number)} for number, data in enumerate(records)],
                )
                for data, result in zip(records, answer["Records"], strict=True):
                    if "SequenceNumber" in result:
                        self.accepted[result["ShardId"], result["SequenceNumber"]] = data
        except Exception as error:  # noqa: BLE001 - raised at the end of the `with` block
            self.error = error

    def _payloads(self) -> Iterator[bytes]:
        number = 0
        while True:
            number += 1
            if number % 11 == 0:
                yield b"\xff not text %d" % number
            elif number % 13 == 0:
                yield json.dumps(GOOD | {MEAN: -number}).encode()
            else:
                city = ("Paris", "São Paulo", "a/b", f"City {number // 100}")[number % 4]
                name = "x" * 5000 if number % 50 == 0 else "A street"
                record = GOOD | {"City": city, "Origin Display Name": f"{name} {number}", UPPER: 900 + number}
                yield json.dumps(record, ensure_ascii=False).encode()


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Waits until `condition()` is true. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)


# One task for each shard, so that small files are merged (ADR 18).
FAST = (
    "stream.shards=2", "stream_job.trigger_seconds=0.2", "spark.master=local[2]",
    "spark.conf={spark.sql.shuffle.partitions: 1}", 'source.options={"bytesPerTask": 0}',
)  # fmt: skip


def drain(settings: Settings, log_file: Path) -> None:
    """Runs the job once more, to the end of the stream."""
    job = Job(settings, log_file, until_drained=True)
    code = job.wait(240)
    job.lose_machine()
    assert code == 0, job.tail()
