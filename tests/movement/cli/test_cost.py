"""`movement cost`: README's table is its output; --prices and --json."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from movement.cli.cost import PlatformName
from movement.cli.main import app
from movement.cost.estimate import PLATFORMS
from movement.cost.prices import SHIPPED
from tests.helpers.paths import ROOT

RUNNER = CliRunner()


def run(*arguments: str) -> str:
    done = RUNNER.invoke(app, ["cost", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_readmes_table_is_the_output_of_the_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "movement cost --mb-per-second 1 --record-bytes 415" in readme
    assert run("--mb-per-second", "1", "--record-bytes", "415") in readme


def test_the_runbooks_table_is_the_output_of_the_command() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = run("--platform", "glue").partition("\n\n")[0]
    assert table in runbook


def test_the_command_knows_each_platform_of_the_estimate() -> None:
    assert tuple(PlatformName) == PLATFORMS


def test_prices_of_the_users_own_replace_those_of_the_package(tmp_path: Path) -> None:
    file, result = tmp_path / "prices.yaml", tmp_path / "cost.json"
    text = SHIPPED.read_text(encoding="utf-8")
    file.write_text(text.replace("amount: 0.44", "amount: 4400").replace("us-east-1", "mars-1"), encoding="utf-8")
    table = run("--platform", "glue", "--prices", str(file), "--json", str(result))
    assert "mars-1" in table
    found = json.loads(result.read_text(encoding="utf-8"))
    (workers,) = (each for each in found["platforms"]["glue"]["lines"] if each["part"] == "compute")
    assert workers["amount"] == 2 * 730 * 4400
    assert found["platforms"]["glue"]["total"] > workers["amount"]
