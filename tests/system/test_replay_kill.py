"""kill -9 of `movement replay --quarantine` between any two steps and at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jobs.common.fault_points import REPLAY_POINTS
from jobs.lake.store import FolderLake
from jobs.maintenance.quarantine import CHUNK_RECORDS
from tests.helpers.faulty_kinesis import FaultyKinesis
from tests.helpers.paths import ROOT
from tests.helpers.replay_lakes import numbered, reject

pytestmark = pytest.mark.aws

RECORDS = 2 * CHUNK_RECORDS + 100
KILLS = int(os.environ.get("CRASH_KILLS", "0")) // 10
SEED = int(os.environ.get("CRASH_SEED", "1"))


class Command:
    """A process of `movement replay --quarantine` on a lake in a local folder."""

    def __init__(self, kinesis: FaultyKinesis, folder: Path, fault: str | None = None) -> None:
        self._result = folder / "result.json"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MOVEMENT_", "AWS_"))}
        environment |= {
            "PYTHONPATH": str(ROOT), "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": kinesis.url,
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        }  # fmt: skip
        if fault:
            environment["MOVEMENT_FAULT"] = fault
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "movement", "replay", "--quarantine", "--json", str(self._result),
                "--set", f"lake={folder / 'lake'}", "--set", "stream.name=stream",
            ],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def result(self) -> dict[str, int]:
        _, said = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, said.decode()
        found: dict[str, int] = json.loads(self._result.read_text())
        return found


@pytest.mark.parametrize(
    ("point", "duplicated", "in_doubt"),
    [
        ("replay.opening", 0, 0),
        ("replay.opened", 0, CHUNK_RECORDS),
        ("replay.sent", CHUNK_RECORDS, CHUNK_RECORDS),  # the one gap that duplicates: accepted, but not yet recorded
        ("replay.closed", 0, 0),
    ],
)
def test_a_kill_loses_no_record_and_duplicates_at_most_the_current_chunk(
    point: str, duplicated: int, in_doubt: int, tmp_path: Path
) -> None:
    assert point in REPLAY_POINTS
    reject(FolderLake(str(tmp_path / "lake")), 0, numbered(RECORDS, keys=RECORDS), files=3)
    with FaultyKinesis() as kinesis:
        killed = Command(kinesis, tmp_path, f"{point}:2")
        assert killed.process.wait(60) == -signal.SIGKILL
        result = Command(kinesis, tmp_path).result()
        times = Counter(data for _, data in kinesis.accepted)
        assert set(times) == {record.payload for record in numbered(RECORDS)}
        assert sum(count - 1 for count in times.values()) == duplicated
        assert result["possible_duplicates"] == in_doubt, "possible duplicates are reported"
        assert result["sent"] + result["already_sent"] == RECORDS
        assert Command(kinesis, tmp_path).result()["sent"] == 0


@pytest.mark.skipif(not KILLS, reason="make nightly")
def test_random_kills_lose_no_record_and_duplicate_at_most_one_chunk_each(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    lake = FolderLake(str(tmp_path / "lake"))
    with FaultyKinesis(delay=0.02) as kinesis:
        for round_ in range(KILLS):
            reject(lake, round_, numbered(RECORDS, keys=50, first=round_ * RECORDS))
            command = Command(kinesis, tmp_path)
            try:
                command.process.wait(chance.uniform(0.5, 3))
            except subprocess.TimeoutExpired:
                command.process.kill()
                command.process.wait()
        Command(kinesis, tmp_path).result()
        times = Counter(data for _, data in kinesis.accepted)
        assert set(times) == {record.payload for record in numbered(KILLS * RECORDS)}
        assert sum(count - 1 for count in times.values()) <= KILLS * CHUNK_RECORDS
