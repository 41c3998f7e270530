"""A run that is cut short goes on where it was: nothing missing, and what may be doubled is bounded."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from jobs.common.errors import ConfigurationError, TransientError
from jobs.settings.settings import load_settings
from producer.csv_reader import read_records
from producer.produce import produce
from producer.run import READ_AHEAD_ROWS
from producer.sample import write_sample
from tests.helpers.faulty_kinesis import FaultyKinesis, Status

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


def wait_until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_killed_in_the_middle_and_resumed_nothing_is_missing(processes, tmp_path):
    data, state = tmp_path / "data", f"local.state_dir={tmp_path / 'state'}"
    write_sample(ROWS, data, cities=4)
    arguments = [str(data), "--set", state, "--processes", processes]
    with FaultyKinesis(delay=0.02) as kinesis:
        first = command(kinesis, *arguments, "--rate", "2000")
        wait_until(lambda: len(kinesis.accepted) > ROWS / 3)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)
        time.sleep(0.5)
        before = len(kinesis.accepted)
        assert before < ROWS

        second = command(kinesis, *arguments, "--resume", "--json", str(tmp_path / "out.json"))
        output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    there = found(kinesis)
    assert set(there) == set(expected(data))
    result = json.loads((tmp_path / "out.json").read_text())
    skipped = sum(file["skipped"] for file in result["files"])
    assert 0 < skipped <= before
    assert result["produced"] + skipped == ROWS
    assert sum(there.values()) - ROWS == before - skipped, "no more is doubled than was under way"
    assert b"after" in output
    assert not list((tmp_path / "state").rglob("*.json")), "a run that ends well leaves no journal"


def test_ctrl_c_finishes_what_was_read_and_resume_doubles_nothing(tmp_path):
    data, state = tmp_path / "data", f"local.state_dir={tmp_path / 'state'}"
    write_sample(ROWS, data, cities=2)
    with FaultyKinesis(delay=0.02) as kinesis:
        first = command(kinesis, str(data), "--set", state, "--rate", "600")
        wait_until(lambda: len(kinesis.accepted) > 500)
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=60)
        assert first.returncode == 130, errors.decode()
        assert b"--resume" in errors
        assert b"Traceback" not in errors
        assert 0 < len(kinesis.accepted) < ROWS

        second = command(kinesis, str(data), "--set", state, "--resume")
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 0, errors
        assert b"anew" not in errors
    assert found(kinesis) == expected(data)


def settings(tmp_path, *more: str):
    return load_settings(None, ["stream.name=stream", f"local.state_dir={tmp_path / 'state'}", *more])


def test_a_run_that_gave_up_goes_on_with_its_rejects_counted_once(tmp_path, aws_environment):
    data = tmp_path / "data"
    sample = write_sample(ROWS, data, cities=2, bad_rate=0.1)
    dead = FaultyKinesis(lambda n: Status(400, "ProvisionedThroughputExceededException") if n >= 3 else None)
    with dead as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        with pytest.raises(TransientError):
            produce(
                [data],
                settings(tmp_path, "producer.delivery_timeout_seconds=0.5", "producer.max_in_flight=1"),
                keep_journal=True,
            )
        assert 0 < len(kinesis.accepted) < ROWS - sample.bad
        kinesis.faults = lambda _n: None
        result = produce([data], settings(tmp_path), keep_journal=True, resume=True)
    assert set(found(kinesis)) <= set(expected(data))
    assert len(kinesis.accepted) == ROWS - sample.bad
    lines = [json.loads(line) for line in Path(result.rejects).read_text().splitlines()]
    assert len(lines) == result.rejected == sample.bad
    assert len({(line["file"], line["line"]) for line in lines}) == sample.bad


def test_there_is_nothing_to_resume_after_a_run_that_ended_well(tmp_path, aws_environment):
    write_sample(10, tmp_path / "data", cities=1)
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        produce([tmp_path / "data"], settings(tmp_path), keep_journal=True)
        with pytest.raises(ConfigurationError, match="nothing to go on with"):
            produce([tmp_path / "data"], settings(tmp_path), keep_journal=True, resume=True)


def test_a_run_that_does_not_resume_though_it_could_says_so(tmp_path):
    data, state = tmp_path / "data", f"local.state_dir={tmp_path / 'state'}"
    write_sample(200, data, cities=1)
    with FaultyKinesis(lambda _n: Status(400, "AccessDeniedException")) as kinesis:
        _, errors = (first := command(kinesis, str(data), "--set", state)).communicate(timeout=30)
        assert first.returncode == 1
        assert b"with --resume continues" in errors
        kinesis.faults = lambda _n: None
        _, errors = (second := command(kinesis, str(data), "--set", state)).communicate(timeout=30)
    assert second.returncode == 0
    assert b"starts again" in errors
    assert len(kinesis.accepted) == 200


def test_a_file_that_changed_since_is_not_resumed(tmp_path, aws_environment):
    data = tmp_path / "data"
    write_sample(3000, data, cities=1)
    stops = iter([False, False, True])
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        result = produce([data], settings(tmp_path), keep_journal=True, stop=lambda: next(stops))
        assert (result.stopped, result.produced) == (True, 1000)
        write_sample(3000, data, cities=1, seed=2)
        with pytest.raises(ConfigurationError, match=r"Paris\.csv was changed"):
            produce([data], settings(tmp_path), keep_journal=True, resume=True)


def test_a_compressed_file_is_resumed_by_its_rows(tmp_path, aws_environment):
    data = tmp_path / "data"
    file = write_sample(3000, data, cities=1).files[0]
    rows = expected(data)
    file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    stops = iter([False, False, True])
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        produce([data], settings(tmp_path), keep_journal=True, stop=lambda: next(stops))
        result = produce([data], settings(tmp_path), keep_journal=True, resume=True)
    assert (result.files[0].skipped, result.produced) == (1000, 2000)
    assert found(kinesis) == rows


def test_no_more_is_read_ahead_than_memory_is_meant_to_hold(tmp_path, aws_environment):
    write_sample(3 * READ_AHEAD_ROWS, tmp_path / "data", cities=1)
    ahead = []

    class Watched(FaultyKinesis):
        def _take(self, records, fault):
            ahead.append((progress[-1].read_rows if progress else 0) - len(self.accepted))
            return super()._take(records, fault)

    progress = []
    with Watched(delay=0.01) as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        produce([tmp_path / "data"], settings(tmp_path), on_progress=progress.append)
    assert READ_AHEAD_ROWS / 2 < max(ahead) <= READ_AHEAD_ROWS + 5 * 500
