"""Nights of an operator with Spark, real processes and kills. Without Spark: tests/jobs/stream/test_operators_night."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from jobs.common.aws import client
from jobs.common.fault_points import POINTS
from jobs.settings.settings import Settings
from tests.helpers.job_process import FAST, Job
from tests.helpers.lakes import make_lake, put, record, record_numbers
from tests.helpers.operator import Operator

pytestmark = [pytest.mark.spark, pytest.mark.aws, pytest.mark.nightly]

NIGHTS, HOURS = 20, 5


@pytest.mark.parametrize("night", range(NIGHTS))
def test_every_record_is_in_the_lake_once_or_the_job_has_refused(
    embedded_aws: object, tmp_path: Path, night: int
) -> None:
    chance = random.Random(night)
    settings = make_lake(
        tmp_path, *FAST, f"lake={tmp_path / 'lake'}", f"stream_job.checkpoint={tmp_path / 'checkpoint'}"
    )
    operator, count, were_in_a_lake, may_be_missing = Operator(tmp_path), 0, set[int](), set[int]()

    def start(fault: str | None) -> bool:
        """Runs the job; if it refuses, once more with the option that its error names. Returns whether it ran."""
        nonlocal may_be_missing
        output = run(settings, tmp_path / "job.log", fault)
        option = next((each for each in ("ledger", "checkpoint") if f"--start-from {each}" in output), None)
        if option == "checkpoint":
            may_be_missing |= were_in_a_lake - set(record_numbers(settings))
        return not output or (option is not None and not run(settings, tmp_path / "job.log", None, option))

    for hour in range(HOURS):
        put(settings, (record(n=number) for number in range(count, count + 20)))
        count += 20
        if hour == 2:
            shard = client("kinesis").list_shards(StreamName=settings.stream.name)["Shards"][0]
            middle = (int(shard["HashKeyRange"]["StartingHashKey"]) + int(shard["HashKeyRange"]["EndingHashKey"])) // 2
            client("kinesis").split_shard(
                StreamName=settings.stream.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle)
            )
        if not start(chance.choice([None, chance.choice(POINTS)])):
            return
        operator.back_up(chance.choice(["checkpoint", "lake"]))
        were_in_a_lake |= set(record_numbers(settings))
        chance.choice(
            [
                lambda: operator.restore("checkpoint", chance.randrange(9)),
                lambda: operator.restore("lake", chance.randrange(9)),
                lambda: operator.empty("checkpoint"),
                lambda: operator.empty("lake"),
                lambda: operator.trim_checkpoint(chance.randint(1, 3)),
                operator.delete_metadata,
                lambda: operator.cut_the_power(chance.choice(["offsets", "commits"])),
                lambda: operator.expire_ledger_entries(0.5),
            ]
        )()
    put(settings, [record(n=count)])
    if not start(None):
        return
    found = Counter(record_numbers(settings))
    assert not [number for number, times in found.items() if times > 1]
    assert not set(range(count + 1)) - set(found) - may_be_missing


def run(settings: Settings, log: Path, fault: str | None, start_from: str | None = None) -> str:
    """Runs the job to the end of the stream, or to the fault point. Returns its output if it refused to start."""
    job = Job(settings, log, fault=fault, until_drained=True, start_from=start_from)
    code = job.wait(300)
    job.lose_machine()
    assert code is not None, job.tail()
    if code in (0, -signal.SIGKILL):
        return ""
    output = job.output()
    assert "Traceback" not in output, output[-3000:]
    return output
