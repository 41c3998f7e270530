"""An interrupted run continues from its checkpoint: no row is missing, and duplicates are limited."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import ConfigurationError, TransientError
from jobs.settings.settings import Settings, load_settings
from producer.parallel import send_in_processes
from producer.produce import plan, produce, send
from producer.run import READ_AHEAD_ROWS, ProduceProgress
from producer.sample import write_sample
from tests.helpers.faulty_kinesis import FaultyKinesis, Status
from tests.helpers.input_records import read_records

pytestmark = pytest.mark.aws
ROWS = 6000


def command(kinesis: FaultyKinesis, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL_KINESIS": kinesis.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    program = [sys.executable, "-m", "movement", "produce", "--set", "stream.name=stream", *arguments]
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def expected(folder: Path) -> Counter[str]:
    return Counter(json.dumps(record, sort_keys=True) for record in read_records(folder))


def found(kinesis: FaultyKinesis) -> Counter[str]:
    return Counter(json.dumps(json.loads(data), sort_keys=True) for _, data in kinesis.accepted)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        time.sleep(0.01)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_row_is_missing_after_a_kill_and_a_resume(processes: str, tmp_path: Path) -> None:
    data, state = tmp_path / "data", f"local.state_dir={tmp_path / 'state'}"
    write_sample(ROWS, data, cities=4)
    arguments = [str(data), "--set", state, "--processes", processes]
    with FaultyKinesis(delay=0.02) as kinesis:
        first = command(kinesis, *arguments, "--rate", "2000")
        wait_until(lambda: len(kinesis.accepted) > ROWS / 3)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=120)
        time.sleep(0.5)
        before = len(kinesis.accepted)
        assert before < ROWS

        second = command(kinesis, *arguments, "--resume", "--json", str(tmp_path / "out.json"))
        output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    on_stream = found(kinesis)
    assert set(on_stream) == set(expected(data))
    result = json.loads((tmp_path / "out.json").read_text())
    skipped = sum(file["skipped"] for file in result["files"])
    assert 0 < skipped <= before
    assert result["produced"] + skipped == ROWS
    assert sum(on_stream.values()) - ROWS == before - skipped, "more duplicates than rows after the checkpoint"
    assert b"after" in output
    assert not list((tmp_path / "state").rglob("*.json")), "a run that ends normally deletes its checkpoint"


def test_ctrl_c_sends_the_rows_that_were_read_and_a_resume_duplicates_none(tmp_path: Path) -> None:
    data, state = tmp_path / "data", f"local.state_dir={tmp_path / 'state'}"
    write_sample(ROWS, data, cities=2)
    with FaultyKinesis(delay=0.02) as kinesis:
        first = command(kinesis, str(data), "--set", state, "--rate", "600")
        wait_until(lambda: len(kinesis.accepted) > 500)
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=120)
        assert first.returncode == 130, errors.decode()
        assert b"--resume" in errors
        assert b"Traceback" not in errors
        assert 0 < len(kinesis.accepted) < ROWS

        second = command(kinesis, str(data), "--set", state, "--resume")
        _, errors = second.communicate(timeout=120)
        assert second.returncode == 0, errors
        assert b"starts again" not in errors
    assert found(kinesis) == expected(data)


def settings(tmp_path: Path, *more: str) -> Settings:
    return load_settings(None, ["stream.name=stream", f"local.state_dir={tmp_path / 'state'}", *more])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_resume_after_a_timeout_counts_each_reject_once(
    processes: int, tmp_path: Path, aws_environment: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    sample = write_sample(ROWS, data, cities=2, bad_rate=0.1)
    dead = FaultyKinesis(lambda n: Status(400, "ProvisionedThroughputExceededException") if n >= 3 else None)
    with dead as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        with pytest.raises(TransientError):
            produce(
                [data],
                settings(tmp_path, "producer.delivery_timeout_seconds=0.5", "producer.max_in_flight=1"),
                keep_checkpoint=True,
            )
        assert 0 < len(kinesis.accepted) < ROWS - sample.bad
        kinesis.faults = lambda _n: None
        resumed = plan([data], settings(tmp_path), resume=True)
        result = send(resumed) if processes == 1 else send_in_processes(resumed, processes)
    assert set(found(kinesis)) <= set(expected(data))
    assert len(kinesis.accepted) == ROWS - sample.bad
    lines = [json.loads(line) for line in Path(result.rejects or "").read_text().splitlines()]
    assert len(lines) == result.rejected == sample.bad
    assert result.rejected_reasons == Counter(line["reason"] for line in lines), "of both runs"
    assert sum(resumed.rejected_before.values()) > 0
    assert len({(line["file"], line["line"]) for line in lines}) == sample.bad


def test_a_run_that_ended_normally_cannot_be_resumed(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    write_sample(10, tmp_path / "data", cities=1)
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        produce([tmp_path / "data"], settings(tmp_path), keep_checkpoint=True)
        with pytest.raises(ConfigurationError, match="nothing to go on with"):
            produce([tmp_path / "data"], settings(tmp_path), keep_checkpoint=True, resume=True)


def test_a_run_that_could_resume_but_starts_again_says_so(tmp_path: Path) -> None:
    data, state = tmp_path / "data", f"local.state_dir={tmp_path / 'state'}"
    write_sample(200, data, cities=1)
    with FaultyKinesis(lambda _n: Status(400, "AccessDeniedException")) as kinesis:
        _, errors = (first := command(kinesis, str(data), "--set", state)).communicate(timeout=90)
        assert first.returncode == 1
        assert b"with --resume continues" in errors
        kinesis.faults = lambda _n: None
        _, errors = (second := command(kinesis, str(data), "--set", state)).communicate(timeout=90)
    assert second.returncode == 0
    assert b"starts again" in errors
    assert len(kinesis.accepted) == 200


def test_a_changed_file_is_not_resumed(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    write_sample(3000, data, cities=1)
    stops = iter([False, False, True])
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        result = produce([data], settings(tmp_path), keep_checkpoint=True, stop=lambda: next(stops))
        assert (result.stopped, result.produced) == (True, 1000)
        write_sample(3000, data, cities=1, seed=2)
        with pytest.raises(ConfigurationError, match=r"Paris\.csv was changed"):
            produce([data], settings(tmp_path), keep_checkpoint=True, resume=True)


def test_a_compressed_file_is_resumed_by_its_rows(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    file = write_sample(3000, data, cities=1).files[0]
    rows = expected(data)
    file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    stops = iter([False, False, True])
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        produce([data], settings(tmp_path), keep_checkpoint=True, stop=lambda: next(stops))
        result = produce([data], settings(tmp_path), keep_checkpoint=True, resume=True)
    assert (result.files[0].skipped, result.produced) == (1000, 2000)
    assert found(kinesis) == rows


def test_reading_stays_within_the_limit_of_rows_not_accepted_yet(
    tmp_path: Path, aws_environment: pytest.MonkeyPatch
) -> None:
    write_sample(3 * READ_AHEAD_ROWS, tmp_path / "data", cities=1)
    ahead: list[int] = []
    progress: list[ProduceProgress] = []

    class Watched(FaultyKinesis):
        def accept(self, records: list[dict[str, str]], fault: Any) -> list[dict[str, str]]:
            ahead.append((progress[-1].read_rows if progress else 0) - len(self.accepted))
            return super().accept(records, fault)

    with Watched(delay=0.01) as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        produce([tmp_path / "data"], settings(tmp_path), on_progress=progress.append)
    assert READ_AHEAD_ROWS / 2 < max(ahead) <= READ_AHEAD_ROWS + 5 * 500
