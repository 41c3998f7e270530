"""`movement doctor`: read-only checks of the account, roles and resources, each with a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from movement.cli.console import out, resources, spinner, write_result
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from jobs.common.findings import Finding

STYLES = {"pass": "green", "fail": "bold red", "unknown": "yellow"}


def doctor(
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="COMPONENT=ARN",
            help="Check this role too, such as producer=arn:aws:iam::…:role/x or batch-job=…; may be repeated. The "
            "streaming job's role (stream-job) is found by itself.",
        ),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            metavar="RELEASE",
            help="The release to check, such as 0.1.0-5f0c2a91. Default: the Glue job's, or the newest in "
            "deploy.artifacts.",
        ),
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Check account, roles and resources before a deployment, and when something fails. Changes nothing.

    Each check passes, fails or stays unknown: AWS refused the question, the thing is not there yet, or no read call can
    tell. A failure comes with a remedy, and exit code 1. It sends read calls only (Describe, Get, List, Head,
    Simulate); docs/doctor.md lists them. Next: movement deploy smoke, which proves what reading cannot.
    """
    from jobs.settings.settings import load_settings
    from movement.doctor.all_checks import all_checks
    from movement.doctor.checks import Account, run
    from movement.doctor.roles import parse_roles

    settings = load_settings(config, overrides or ())
    account = Account(settings, parse_roles(role or ()), release)
    checks = all_checks(account)
    with spinner("checking") as line:
        names = {check.name: number for number, check in enumerate(checks, 1)}
        findings = list(run(checks, account, lambda name: line.update(f"{names[name]}/{len(checks)} {name}")))
    counts = print_findings(findings)
    result = {"ok": not counts["fail"], "counts": {status: counts[status] for status in STYLES}}
    write_result(json_file, result | {"checks": [asdict(each) for each in findings]} | resources(settings))
    if counts["fail"]:
        raise typer.Exit(1)


def print_findings(findings: Sequence[Finding]) -> Counter[str]:
    """Prints a table of findings and a line of counts; returns the counts by status."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("check", "status", "found"):
        table.add_column(column, overflow="fold")
    for each in findings:
        found = Text(each.found)
        if each.remedy:
            found.append(f"\n→ {each.remedy}", style="dim" if each.status != "fail" else "bold")
        table.add_row(escape(each.name), Text(each.status, STYLES[each.status]), found)
    out.print(table)
    counts: Counter[str] = Counter(each.status for each in findings)
    out.print(f"\n{counts['pass']} pass, {counts['fail']} fail, {counts['unknown']} unknown")
    return counts
