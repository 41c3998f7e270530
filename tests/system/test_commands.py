"""The commands as real processes, with signals and `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jobs.common.aws import client
from jobs.lake.store import lake_at
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from local import server
from movement.cli.demo import example_paths
from tests.helpers.commands import environment, movement, stream_options
from tests.helpers.lakes import catalogued, folders, put, raw_lines, record, record_numbers
from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port

pytestmark = [pytest.mark.spark, pytest.mark.aws]


def start_stream(settings: Settings, folder: Path, *more: str) -> subprocess.Popen[str]:
    """`movement stream` in its own process group, as a terminal starts it."""
    options = stream_options(settings, folder, "stream_job.trigger_seconds=0", "spark.master=local[2]")
    return subprocess.Popen(
        [sys.executable, "-m", "movement", "stream", *options, *more],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def written(settings: Settings) -> int:
    return len(raw_lines(settings))


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="ctrl-c"), pytest.param(signal.SIGTERM, id="sigterm", marks=pytest.mark.nightly)],
)
def test_a_signal_ends_the_stream_cleanly_and_a_new_start_goes_on(
    lake_settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    put(lake_settings, (record(n=n) for n in range(40)))
    job = start_stream(lake_settings, tmp_path, "--json", "result.json")
    wait_for(lambda: written(lake_settings) == 40)
    os.killpg(job.pid, number)  # the whole group, as from a terminal
    output, _ = job.communicate(timeout=180)

    assert job.returncode == 0, output
    assert "Stopped: 40 records" in output
    assert "Traceback" not in output
    assert "WARN" not in output
    assert json.loads((tmp_path / "result.json").read_text())["processed"] == 40

    put(lake_settings, (record(n=n) for n in range(40, 60)))
    again = start_stream(lake_settings, tmp_path, "--until-drained")
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert record_numbers(lake_settings) == list(range(60))
    assert len(raw_lines(lake_settings)) == 60


@pytest.mark.nightly
def test_a_killed_stream_started_again_has_each_record_once(lake_settings: Settings, tmp_path: Path) -> None:
    put(lake_settings, (record(n=n) for n in range(300)))
    job = start_stream(lake_settings, tmp_path)
    # As soon as a file exists: in the middle of a batch, or just after one.
    wait_for(lambda: any(True for _ in lake_at(lake_settings.lake).list("raw/")))
    os.killpg(job.pid, signal.SIGKILL)
    job.wait(timeout=60)
    put(lake_settings, (record(n=n) for n in range(300, 400)))

    again = start_stream(lake_settings, tmp_path, "--until-drained")
    output, _ = again.communicate(timeout=240)

    assert again.returncode == 0, output
    assert record_numbers(lake_settings) == list(range(400))
    assert len(raw_lines(lake_settings)) == 400
    assert catalogued(lake_settings) == folders(lake_settings)


@pytest.mark.nightly
def test_the_same_job_runs_under_spark_submit(lake_settings: Settings, tmp_path: Path) -> None:
    """With arguments as Glue passes them: mixed with its own, one --set for all, a configuration in S3."""
    put(lake_settings, [record(), b"bad"])
    settings = {"lake": lake_settings.lake, "stream.name": lake_settings.stream.name}
    bucket = lake_settings.lake.split("/")[2]
    config = yaml.safe_dump({"database": lake_settings.database}).encode()
    client("s3").put_object(Bucket=bucket, Key="conf/mine.yaml", Body=config)
    arguments = {
        "--JOB_NAME": "uber-movement-streaming",
        "--job-language": "python",
        "--config": f"s3://{bucket}/conf/mine.yaml",
        "--set": json.dumps(settings),
        "--region": "us-east-1",
        "--conf": "spark.executorEnv.AWS_REGION=us-east-1",  # not an abbreviation of --config
    }

    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("spark-submit")),
            *("--master", "local[2]"),
            str(ROOT / "jobs" / "stream_job.py"),
            *("--until-drained", "--json", "result.json"),
            *(part for pair in arguments.items() for part in pair),
        ],
        cwd=tmp_path,
        env={name: text for name, text in environment().items() if name not in ("AWS_REGION", "AWS_DEFAULT_REGION")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["raw"], result["processed"], result["quarantined"]) == (2, 1, 1)


def test_the_demo_accounts_for_every_record_and_says_so(tmp_path: Path, exports: Path) -> None:
    port = str(free_port())
    try:
        done = movement("demo", "--csv", str(exports), "--port", port, "--json", "out.json", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads((tmp_path / "out.json").read_text())
        assert [result[key] for key in ("produced", "raw", "processed", "quarantined")] == [3153, 3153, 3153, 0]
        assert (
            result["partitions"]
            == result["catalog_partitions"]
            == [
                "city=Boston/start_date=2016-07-31",
                "city=Johannesburg and Pretoria/start_date=2016-07-31",
                "city=Paris/start_date=2016-09-03",
            ]
        )
        assert result["processed_batch"] == 3153
        assert result["parity"] == {"equal": True, "only_stream": 0, "only_batch": 0}
        assert result["gold"] == {"corridors": 3153, "corridor_history": 3153, "city_summary": 3, "zones": 3156}
        assert "Stream and batch path agree" in done.stdout
        assert "Every record is accounted for" in done.stdout
        for noise in ("Traceback", "WARN", "log4j", "Exception"):
            assert noise not in done.stdout + done.stderr
        assert (tmp_path / ".movement" / "demo.log").is_file()
        assert result["report"] == str(tmp_path / ".movement" / "report.html")
        assert f"page      {result['report']}" in done.stdout
        assert "a page to look at: 3,153 corridors in 3 cities" in done.stderr
        assert Path(result["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
        assert server.find(_state(tmp_path)) is not None, "the embedded AWS keeps running"
    finally:
        movement("local", "down", cwd=tmp_path)
    assert server.find(_state(tmp_path)) is None


# Records, those that the contract rejects, and rows of the gold tables.
EXAMPLES = {
    "clicks": (145, 5, {"visitors": 20, "events": 140}),
    "taxi": (300, 6, {"trips": 294}),
    "hourly": (500, 4, {}),
    "logs": (63, 3, {}),
}


@pytest.mark.parametrize(
    "name", [name if name == "clicks" else pytest.param(name, marks=pytest.mark.nightly) for name in EXAMPLES]
)
def test_the_demo_of_an_example_accounts_for_every_record(tmp_path: Path, name: str) -> None:
    records, rejected, gold = EXAMPLES[name]
    try:
        done = movement("demo", "--example", name, "--port", str(free_port()), "--json", "out.json", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads((tmp_path / "out.json").read_text())
        counts = [result[key] for key in ("produced", "raw", "processed", "quarantined", "processed_batch")]
        assert counts == [records, records, records - rejected, rejected, records - rejected]
        assert sum(result["reasons"].values()) == rejected
        assert result["parity"] == {"equal": True, "only_stream": 0, "only_batch": 0}
        assert result["partitions"] == result["catalog_partitions"]
        assert result["gold"].items() >= gold.items()
        assert set(result["gold"]) == set(load_contract(str(example_paths(name)[0])).gold or {})
        assert "gold tables" in done.stderr
    finally:
        movement("local", "down", cwd=tmp_path)


def test_an_unknown_example_ends_with_2_and_names_the_known_ones(tmp_path: Path) -> None:
    done = movement("demo", "--example", "cliks", cwd=tmp_path)

    assert done.returncode == 2
    assert "no example is named 'cliks'" in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_end_with_2_before_anything_starts(tmp_path: Path) -> None:
    done = movement("demo", "--set", "strem.name=x", cwd=tmp_path)

    assert done.returncode == 2
    assert "--set: strem: unknown key; did you mean 'stream'?" in done.stderr
    assert not (tmp_path / ".movement").exists()


def _state(folder: Path) -> Settings:
    from jobs.settings.settings import load_settings

    return load_settings(None, [f"local.state_dir={folder / '.movement'}"])
