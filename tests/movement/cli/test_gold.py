"""`movement gold`: what it prints, and what `--json` holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.common.errors import ConfigurationError
from jobs.gold.job import GoldResult
from jobs.gold.redshift import scripts
from jobs.settings.settings import Settings
from movement.cli.gold import print_gold
from movement.cli.main import app


def test_redshift_sql_is_for_the_lake_of_the_settings(tmp_path: Path) -> None:
    folder, result = tmp_path / "sql", tmp_path / "out.json"
    arguments = ["gold", "--redshift-ddl", str(folder), "--set", "lake=s3://my-own/lake", "--json", str(result)]

    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in folder.iterdir()) == sorted(scripts(Settings()))
    assert "'s3://my-own/lake/gold/corridors/_copy_manifest/manifest.json'" in (folder / "copy.sql").read_text()
    assert len(json.loads(result.read_text())["files"]) == 3


def test_follow_and_upkeep_exclude_each_other() -> None:
    done = CliRunner().invoke(app, ["gold", "--follow", "--upkeep"])

    assert isinstance(done.exception, ConfigurationError)
    assert "one at a time" in str(done.exception)


@pytest.mark.aws
def test_on_an_empty_lake_it_says_so_without_spark(lake_settings: Settings, tmp_path: Path) -> None:
    result = tmp_path / "out.json"
    settings = [f"lake={lake_settings.lake}", f"database={lake_settings.database}", f"local.state_dir={tmp_path}"]
    options = [part for each in settings for part in ("--set", each)]

    done = CliRunner().invoke(app, ["gold", *options, "--json", str(result)])

    assert done.exit_code == 0, done.output
    assert "the stream has written no batch yet" in done.output
    found = json.loads(result.read_text())
    assert (found["tables"], found["batches"], found["lake"]) == ({}, {}, lake_settings.lake)


def test_a_run_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"corridors": {"rows": 1500, "new": 1200}, "zones": {"rows": 7, "new": 0}}

    print_gold(GoldResult(2, {"q": 3}, 2000, tables, 4.2))

    shown = capsys.readouterr().out
    assert "corridors   1,500  1,200" in shown
    assert "2,000 rows of 3 batches taken (4.2 s)" in shown
