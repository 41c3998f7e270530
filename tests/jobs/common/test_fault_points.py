"""Fault points: each is used once in the code, kills only when armed, and kills the driver from a worker too."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys

import pytest

from jobs.common.fault_points import (
    DELTA_POINTS,
    GOLD_POINTS,
    HELD_POINTS,
    MOVE_POINTS,
    POINTS,
    REBUILD_POINTS,
    REPLAY_POINTS,
)
from tests.helpers.paths import ROOT

PASS = """
from jobs.common.fault_points import fault_point
for _ in range(3):
    print("passing", flush=True)
    fault_point("file.put")
"""


def run(code: str, fault: str | None) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOVEMENT_FAULT")}
    if fault:
        environment["MOVEMENT_FAULT"] = fault
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=60)


def points_in_the_code() -> list[str]:
    """The argument of each call of `fault_point` in the jobs and commands."""
    return [
        node.args[0].value
        for package in ("jobs", "movement")
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault_point"
        if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    ]


def test_each_point_is_used_once_and_listed() -> None:
    listed = POINTS + HELD_POINTS + MOVE_POINTS + REBUILD_POINTS + REPLAY_POINTS + GOLD_POINTS + DELTA_POINTS
    assert sorted(points_in_the_code()) == sorted(listed)


def test_an_unarmed_point_does_nothing() -> None:
    found = run(PASS, None)
    assert (found.returncode, found.stdout) == (0, b"passing\n" * 3)
    assert run(PASS, "ledger.committed").returncode == 0


@pytest.mark.parametrize(("fault", "passed"), [("file.put", 1), ("file.put:1", 1), ("file.put:3", 3)])
def test_an_armed_point_kills_the_nth_time(fault: str, passed: int) -> None:
    found = run(PASS, fault)
    assert (found.returncode, found.stdout) == (-signal.SIGKILL, b"passing\n" * passed)


def test_a_point_passed_in_a_worker_kills_the_driver() -> None:
    driver = f"import subprocess, sys, jobs.common.fault_points\nsubprocess.run([sys.executable, '-c', {PASS!r}])"
    assert run(driver, "file.put").returncode == -signal.SIGKILL


def test_an_unknown_point_is_refused() -> None:
    found = run("import jobs.common.fault_points", "file.lost")
    assert found.returncode == 1
    assert b"MOVEMENT_FAULT=file.lost: unknown fault point; known: ledger.looked_up" in found.stderr
