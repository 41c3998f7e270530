"""Bad records, a mended contract, a replay: the whole way against the embedded AWS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.common.aws import client
from jobs.settings.settings import Settings
from jobs.stream.job import StreamResult, run
from tests.helpers.commands import environment
from tests.helpers.lakes import contract_file, processed_rows, raw_lines
from tests.helpers.samples import LOWER, MEAN, good

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]

BELOW_ZERO = {f"{which}_travel_time_seconds": {"min": -100} for which in ("mean", "lower_bound")}


def drain(spark: SparkSession, settings: Settings, contract: str) -> StreamResult:
    return run(lambda: spark, settings.model_copy(update={"contract": contract}), until_drained=True)


def replay(settings: Settings, folder: Path, *options: str) -> dict[str, object]:
    """`movement replay --quarantine` as a user runs it; its `--json`."""
    result = folder / "result.json"
    places = [f"lake={settings.lake}", f"stream.name={settings.stream.name}", f"database={settings.database}"]
    done = subprocess.run(
        [sys.executable, "-m", "movement", "replay", "--quarantine", "--json", str(result), *options]
        + [word for place in places for word in ("--set", place)],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(result.read_text())
    return found | {"said": done.stdout}


def test_what_a_mended_contract_takes_ends_in_processed_once(
    spark: SparkSession, lake_settings: Settings, tmp_path: Path
) -> None:
    kinesis = client("kinesis")
    bad = [good(**{MEAN: -number, LOWER: -number, "City": f"City {number}"}) for number in range(1, 13)]
    for number, data in enumerate([good(), *bad, b"\xff not text"]):
        kinesis.put_record(StreamName=lake_settings.stream.name, Data=data, PartitionKey=f"key {number}")
    first = drain(spark, lake_settings, contract_file(tmp_path))
    assert (first.processed, first.quarantined) == (1, 13)
    (reason,) = set(first.reasons) - {"not_utf8"}

    planned = replay(lake_settings, tmp_path, "--dry-run")
    sent = replay(lake_settings, tmp_path, "--reason", reason, "--since", "2020-01-01")
    again = replay(lake_settings, tmp_path, "--reason", reason)
    second = drain(spark, lake_settings, contract_file(tmp_path, **BELOW_ZERO))

    assert (planned["sent"], planned["by_reason"]) == (13, {reason: 12, "not_utf8": 1})
    assert (sent["sent"], sent["by_reason"], sent["skipped"]) == (12, {reason: 12}, 1)
    assert (sent["stream"], sent["lake"]) == (lake_settings.stream.name, lake_settings.lake)
    assert f"12 records sent to stream '{lake_settings.stream.name}'" in str(sent["said"])
    assert (again["sent"], again["already_sent"]) == (0, 12)
    assert (second.read, second.processed, second.quarantined) == (12, 12, 0)
    means = sorted(row["mean_travel_time_seconds"] for row in processed_rows(lake_settings))
    assert means == [*range(-12, 0), 446]

    # What stays bad is a new line in quarantine, and nothing brings it back by itself.
    rest = replay(lake_settings, tmp_path)
    third = drain(spark, lake_settings, contract_file(tmp_path, **BELOW_ZERO))
    assert (rest["sent"], rest["already_sent"], third.quarantined) == (1, 12, 1)
    lines = [json.loads(line) for line in raw_lines(lake_settings, "quarantine")]
    assert [line["partition_key"] for line in lines if line["reason"] == "not_utf8"] == ["key 13"] * 2
    assert len(raw_lines(lake_settings)) == 14 + 12 + 1


def test_a_replay_without_a_mode_says_which_there_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "movement", "replay"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "movement replay --quarantine" in done.stderr
