"""`movement batch` and `movement parity`: the whole path with spark-submit, and both exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from jobs.settings.settings import Settings
from jobs.stream import job as stream_job
from movement.cli.main import app
from tests.helpers.delivered import numbers, record
from tests.helpers.lakes import put

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]


def test_the_batch_path_runs_once_and_parity_compares_it_with_the_stream(
    spark: SparkSession, lake_settings: Settings, tmp_path: Path
) -> None:
    config = tmp_path / "settings.yaml"
    settings = lake_settings.model_copy(update={"spark": lake_settings.spark.model_copy(update={"master": "local[1]"})})
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))

    def movement(command: str) -> tuple[Result, dict[str, Any]]:
        found = CliRunner().invoke(app, [command, "--config", str(config), "--json", str(tmp_path / "out.json")])
        return found, json.loads((tmp_path / "out.json").read_text())

    put(lake_settings, [record(n=number) for number in range(5)] + [b"bad"])

    ran, result = movement("batch")
    assert ran.exit_code == 0, ran.output
    assert (result["files"], result["read"], result["processed"], result["quarantined"]) == (1, 6, 5, 1)
    assert result["partitions"] == ["city=Paris/start_date=2016-09-03"]
    assert [run["state"] for run in result["job_runs"]] == ["SUCCEEDED"]
    assert (result["lake"], result["stream"], result["database"]) == (
        lake_settings.lake,
        lake_settings.stream.name,
        lake_settings.database,
    )
    assert numbers(lake_settings) == list(range(5))
    steps = [ran.output.find(step) for step in ("delivered 6 records", "crawled 1 files", "RUNNING", "SUCCEEDED")]
    assert -1 not in steps
    assert steps == sorted(steps)

    ran, result = movement("parity")
    assert ran.exit_code == 1
    assert (result["equal"], result["only_stream"], result["only_batch"]) == (False, 0, 5)
    assert "only batch, 1×: city='Paris'" in ran.output
    assert "Not equal: 0 rows on the stream's side alone, 5 on the batch side alone" in ran.output

    stream_job.run(lambda: spark, lake_settings, until_drained=True)
    ran, result = movement("parity")
    assert ran.exit_code == 0, ran.output
    assert (result["equal"], result["stream"], result["batch"]) == (True, 5, 5)
