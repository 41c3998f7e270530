"""kill -9 of the job between any two steps and at random moments, while records are being produced.

`make test` kills once, `make crash N=200` kills 200 times.
`CRASH_SEED` repeats a run's choices.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from jobs.common.aws import client
from jobs.common.fault_points import DELTA_POINTS, HELD_POINTS, POINTS
from jobs.lake.store import lake_at
from jobs.settings.settings import Settings
from tests.helpers.job_process import FAST, Job, Producer, drain, wait_until
from tests.helpers.kinesis_mock import running_kinesis_mock
from tests.helpers.lake_audit import audit
from tests.helpers.lakes import make_lake
from tests.helpers.versitygw import versitygw

pytestmark = [pytest.mark.spark, pytest.mark.aws]

log = logging.getLogger(__name__)

KILLS = int(os.environ.get("CRASH_KILLS", "0"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
# For `make test`: between two files. The next run deletes them as leftovers.
ONE = ["file.put:2"]


def plan(kills: int, chance: random.Random, points: Sequence[str] = POINTS) -> list[str]:
    """Where to kill, in order: every fault point, then half as many random moments, and again."""
    if not kills:
        return ONE
    often = {"file.put": 6, "file.encoded": 6, "ledger.looked_up": 3, "ledger.committing": 3, "ledger.committed": 3}
    points = ["file.put:2", *points]  # the leftovers' points need a run that left files behind
    found: list[str] = []
    while len(found) < kills:
        found += [f"{name.partition(':')[0]}:{chance.randint(1, often.get(name, 1))}" for name in points]
        found += ["random"] * (len(points) // 2)
    return found[:kills]


def test_no_kill_loses_or_duplicates_a_record(embedded_aws: object, tmp_path: Path) -> None:
    kill_and_audit(make_lake(tmp_path, *FAST), plan(KILLS, random.Random(SEED)), tmp_path)


@pytest.mark.skipif(not KILLS, reason="make crash")
def test_no_kill_loses_or_duplicates_a_record_of_a_delta_table(embedded_aws: object, tmp_path: Path) -> None:
    points = [*DELTA_POINTS, *(name for name in POINTS if not name.startswith("catalog"))]
    settings = make_lake(tmp_path, *FAST, "sink.format=delta")
    kill_and_audit(settings, plan(KILLS // 2, random.Random(SEED), points), tmp_path)


@pytest.mark.nightly
def test_no_kill_around_the_second_pass_of_new_partitions_loses_or_duplicates_a_record(
    embedded_aws: object, tmp_path: Path
) -> None:
    settings = make_lake(tmp_path, *FAST, "sink.max_new_partitions_per_batch=1")
    kill_and_audit(settings, [*HELD_POINTS, "file.put:2", "held.read:2"], tmp_path)
    assert list(lake_at(settings.lake).list("_held/")) == [], "the held files of the killed batches are deleted"


@pytest.mark.nightly
def test_a_lake_in_a_local_folder_is_as_safe(embedded_aws: object, tmp_path: Path) -> None:
    settings = make_lake(tmp_path, *FAST, f"lake={tmp_path / 'lake'}")
    kill_and_audit(settings, ["file.put:3"], tmp_path)


@pytest.mark.nightly
def test_no_kill_loses_or_duplicates_a_record_on_real_servers_while_shards_are_split_and_merged(
    embedded_aws: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    with running_kinesis_mock() as kinesis, versitygw(tmp_path / "s3") as s3:
        record_property("server", "kinesis-mock")
        record_property("server", "versitygw")
        monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3)
        settings = make_lake(tmp_path, *FAST)
        kills = plan(int(os.environ.get("RESHARD_KILLS", "50")), random.Random(SEED))
        kill_and_audit(settings, kills, tmp_path, before_start=lambda number: reshard(settings.stream.name, number))


def reshard(stream: str, number: int) -> None:
    """Splits an open shard, or merges two that are neighbours: two splits, then two merges, and so on."""
    kinesis = client("kinesis")
    shards = kinesis.list_shards(StreamName=stream)["Shards"]
    parents = {parent for each in shards for parent in (each.get("ParentShardId"), each.get("AdjacentParentShardId"))}
    ranges = {
        each["ShardId"]: [int(each["HashKeyRange"][key]) for key in ("StartingHashKey", "EndingHashKey")]  # type: ignore[literal-required]
        for each in shards
        if each["ShardId"] not in parents
    }
    opened = sorted(ranges, key=lambda shard: ranges[shard])
    if number % 4 < 2:
        widest = max(opened, key=lambda shard: ranges[shard][1] - ranges[shard][0])
        kinesis.split_shard(StreamName=stream, ShardToSplit=widest, NewStartingHashKey=str(sum(ranges[widest]) // 2))
    else:
        kinesis.merge_shards(StreamName=stream, ShardToMerge=opened[0], AdjacentShardToMerge=opened[1])


def kill_and_audit(
    settings: Settings,
    faults: list[str],
    tmp_path: Path,
    before_start: Callable[[int], object] = lambda _: None,
) -> None:
    """Kills a job for each of `faults`, then drains the stream. `before_start` is called with the job's number."""
    chance = random.Random(SEED)
    missed = []
    with Producer(settings) as producer:
        for number, fault in enumerate(faults):
            before_start(number)
            if not end_at(settings, tmp_path / "job.log", fault, chance):
                missed.append(fault)
    drain(settings, tmp_path / "job.log")

    entries = audit(settings, producer.accepted)
    assert missed == [], "every planned kill happened"
    log.info("%d kills, %d batches, %d records", len(faults), len(entries), len(producer.accepted))


def end_at(settings: Settings, log_file: Path, fault: str, chance: random.Random) -> bool:
    """Runs the job until it is killed at `fault`; returns whether it was."""
    if fault == "random":
        job = Job(settings, log_file)
        # 30 % are killed during the start, the others within the batches that follow.
        if chance.random() < 0.7:
            wait_until(lambda: "Callback Server Starting" in job.output(), 300, "the query's start")
        assert job.wait(chance.uniform(0, 10)) is None, job.tail()
        job.kill() if chance.random() < 0.5 else job.lose_machine()
        return True
    job = Job(settings, log_file, fault=fault)
    code = job.wait(300)
    if chance.random() < 0.5:
        job.lose_machine()  # otherwise the JVM and its workers survive for a moment, into the next run
    if code is None:
        job.kill()
        return False
    assert code == -signal.SIGKILL, job.tail()
    return True
