"""`movement report` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.settings.settings import Settings
from tests.helpers.clicks import CLICKS_YAML
from tests.helpers.commands import movement
from tests.helpers.gold_tables import corridor, write_gold
from tests.helpers.report_lakes import add_batch

pytestmark = pytest.mark.aws


def test_a_page_and_what_is_on_it(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    add_batch(lake, 0)
    write_gold(lake, [corridor("A", "1", "2", 60), corridor("B", "1", "2", 60), corridor("B", "2", "1", 60)])

    done = movement("report", "--out", "new/page.html", "--json", "out.json", "--set", f"lake={lake}", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    result = json.loads((tmp_path / "out.json").read_text())
    page = tmp_path / "new" / "page.html"
    assert result | {"seconds": 0} == {
        "out": str(page),
        "bytes": page.stat().st_size,
        "map": True,
        "gold": True,
        "gold_tables": {"corridors": 3, "corridor_history": None, "city_summary": 2, "zones": 4},
        "cities": ["A", "B"],
        "rows": 3,
        "rows_in_lake": 3,
        "left_out": [],
        "batches": 1,
        "stream": "uber-movement-stream",
        "lake": str(lake),
        "database": "uber_movement",
        "seconds": 0,
    }
    assert "3 corridors in 2 cities, 1 batch (" in done.stdout
    assert [each.name for each in page.parent.iterdir()] == ["page.html"]


def test_a_lake_without_zones_has_no_map_and_names_its_gold_tables(tmp_path: Path) -> None:
    (tmp_path / "clicks.yaml").write_text(CLICKS_YAML)
    add_batch(tmp_path / "lake", 0)
    settings = ("--set", f"lake={tmp_path}/lake", "--set", "contract=clicks.yaml")
    done = movement("report", "--json", "out.json", *settings, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    tables = dict.fromkeys(("users", "clicks", "per_day", "countries", "user_days"))
    assert (result["map"], result["gold"], result["gold_tables"]) == (False, False, tables)
    assert "5 gold tables, 1 batch (" in done.stdout
    assert "not computed yet: users, clicks, per_day, countries, user_days: run" in done.stderr


def test_an_empty_lake_makes_a_page_too_and_says_what_to_run(lake_settings: Settings, tmp_path: Path) -> None:
    done = movement("report", "--set", f"lake={lake_settings.lake}", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()
    assert " gold`, then this again" in done.stderr
    assert " stream`" in done.stderr


def test_a_lake_that_is_not_there_ends_with_1_and_no_page(lake_settings: Settings, tmp_path: Path) -> None:
    done = movement("report", "--set", "lake=s3://no-such-bucket-of-ours/lake", cwd=tmp_path)

    assert done.returncode == 1
    assert "s3://no-such-bucket-of-ours/lake" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "report.html").exists()
