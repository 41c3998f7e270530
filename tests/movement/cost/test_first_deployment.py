"""The daily costs in docs/operations.md, "First deployment", are those of `movement cost`."""

from __future__ import annotations

import re

from movement.cost.estimate import PLATFORMS, Platform, Workload, bill
from movement.cost.prices import load_prices
from tests.helpers.paths import ROOT

LIST = load_prices(None)
PRICES = LIST.prices
DAYS = 365 / 12
# What the stack has before there is a job, and the data that only a job reads and writes.
BASE = ("alarms", "dashboard", "encryption key", "on-demand stream", "records in", "kept beyond 24 h")


def a_day(platform: Platform, *parts: str, base: bool | None = None) -> str:
    """Dollars of these parts; `base`: only, or without, what exists before there is a job."""
    lines = [each for each in bill(Workload(0.01, 415), platform, PRICES) if each.part in parts]
    chosen = [each for each in lines if base is None or each.what.endswith(BASE) == base]
    return f"{sum(each.amount for each in chosen) / DAYS:.1f}"


def test_each_step_of_a_first_deployment_names_what_it_costs() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    steps = {int(number): costs for number, costs in re.findall(r"(?m)^\| (\d)\. .* \| ([^|]*) \|$", page)}
    job = ("stream", "compute", "S3", "monitoring")

    assert steps[2] == a_day("glue", "stream", "monitoring", base=True)
    network, cluster = a_day("emr-serverless", "network"), a_day("emr", "network", "compute")
    assert steps[5] == f"0 on Glue, {network} on EMR Serverless (network), {cluster} on EMR (network, cluster)"
    glue, serverless = (a_day(each, *job, base=False) for each in ("glue", "emr-serverless"))
    emr = a_day("emr", "stream", "S3", "monitoring", base=False)
    assert steps[6] == f"{glue} on Glue, {serverless} on EMR Serverless, {emr} on EMR"
    assert steps[7] == a_day("glue", "batch path")
    assert LIST.as_of.isoformat() in page
    assert {"glue", "emr", "emr-serverless"} <= set(PLATFORMS)
