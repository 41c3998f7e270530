"""`movement catalog check` and `catalog repair`: what they print, their exit codes and their JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from jobs.common.aws import client
from jobs.settings.settings import Settings
from jobs.stream.status import catalog_status
from movement.cli.main import app
from tests.helpers.compaction_lakes import catalog_of, write_batch
from tests.helpers.samples import good

pytestmark = pytest.mark.aws

PARIS, LIMA = (f"city={city}/start_date=2016-09-03" for city in ("Paris", "Lima"))


def invoke(command: str, settings: Settings, file: Path) -> tuple[Result, dict[str, Any]]:
    given = [f"lake={settings.lake}", f"database={settings.database}", f"stream.name={settings.stream.name}"]
    options = [part for each in given for part in ("--set", each)]
    done = CliRunner().invoke(app, [*command.split(), *options, "--json", str(file)])
    return done, json.loads(file.read_text())


def test_check_names_each_difference_and_repair_corrects_them(lake_settings: Settings, tmp_path: Path) -> None:
    write_batch(lake_settings, 0, [[good(City="Paris"), good(City="Lima")]])
    checked, found = invoke("catalog check", lake_settings, tmp_path / "check.json")
    assert (checked.exit_code, found["ok"]) == (0, True), checked.output
    assert "processed: 2 partitions, each where its files are" in checked.output

    glue = client("glue")
    glue.delete_table(DatabaseName=lake_settings.database, Name="raw")
    glue.delete_partition(
        DatabaseName=lake_settings.database, TableName="processed", PartitionValues=["Lima", "2016-09-03"]
    )
    catalog_of(lake_settings).relocate("processed", PARIS, "processed/elsewhere/")
    catalog_of(lake_settings).register("quarantine", ["ingest_date=2016-09-03"])

    checked, found = invoke("catalog check", lake_settings, tmp_path / "check.json")
    assert checked.exit_code == 1
    assert found["ok"] is False
    assert found["database"] == lake_settings.database
    tables = found["tables"]
    assert tables["raw"]["missing"] is True
    assert tables["processed"] == {
        "missing": False,
        "partitions": 1,
        "unregistered": [LIMA],
        "elsewhere": {PARIS: f"{lake_settings.lake}/processed/elsewhere/"},
        "empty": [],
    }
    assert tables["quarantine"]["empty"] == ["ingest_date=2016-09-03"]
    for text in ("raw: the table is missing", f"not registered: {LIMA}", f"elsewhere: {PARIS}", "catalog repair"):
        assert text in checked.output
    status = catalog_status(lake_settings)
    assert status == {
        "error": None, "missing_tables": ["raw"], "partitions": 2, "unregistered": 2, "elsewhere": 1, "empty": 1,
    }  # fmt: skip

    repaired, done = invoke("catalog repair", lake_settings, tmp_path / "repair.json")
    assert repaired.exit_code == 0, repaired.output
    assert (done["ok"], done["left"]) == (True, {})
    assert done["repaired"]["processed"]["unregistered"] == [LIMA]
    for text in (
        "raw: table created; 1 partitions registered",
        "processed: 1 partitions registered; 1 partitions pointed to their files",
        "quarantine: 1 partitions without files left: --remove-empty removes them",
    ):
        assert text in repaired.output
    removed, _ = invoke("catalog repair --remove-empty", lake_settings, tmp_path / "repair.json")
    assert "quarantine: 1 partitions without files removed" in removed.output

    checked, found = invoke("catalog check", lake_settings, tmp_path / "check.json")
    assert (checked.exit_code, found["ok"]) == (0, True), checked.output
    again, done = invoke("catalog repair", lake_settings, tmp_path / "repair.json")
    assert again.exit_code == 0
    assert "processed: nothing to do" in again.output


def test_status_shows_whether_the_catalog_is_right(lake_settings: Settings, tmp_path: Path) -> None:
    write_batch(lake_settings, 0, [[good(City="Paris")]])
    shown, found = invoke("status", lake_settings, tmp_path / "status.json")
    assert "all 2 partitions are where their files are" in shown.output
    assert found["catalog"]["unregistered"] == 0
    client("glue").delete_table(DatabaseName=lake_settings.database, Name="processed")
    shown, _ = invoke("status", lake_settings, tmp_path / "status.json")
    assert shown.exit_code == 0
    assert "table processed is missing · 1 partitions not registered" in " ".join(shown.output.split())


def test_a_partition_that_glue_refuses_is_named_and_the_exit_code_is_1(
    lake_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batch(lake_settings, 0, [[good(City="Paris")]])
    client("glue").delete_table(DatabaseName=lake_settings.database, Name="processed")
    from jobs.catalog.glue import GlueCatalog

    monkeypatch.setattr(GlueCatalog, "refused", lambda _self, table, names: [f"{table} {name}: no" for name in names])
    repaired, done = invoke("catalog repair", lake_settings, tmp_path / "repair.json")
    assert repaired.exit_code == 1
    assert done["left"][f"processed/{PARIS}"] == f"processed {PARIS}: no"
    assert "not repaired:" in repaired.output
