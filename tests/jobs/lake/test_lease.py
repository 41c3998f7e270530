"""The lease: a second job on the same checkpoint stops; a dead job's lease is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import AlreadyRunningError, TransientError
from jobs.lake import lease as leases
from jobs.lake.lease import Lease
from jobs.lake.store import FolderLake, Lake
from tests.helpers.paths import ROOT

CHECKPOINT = "s3://bucket/lake/_checkpoints/stream"
HOLDS = """
import sys, time
from jobs.lake.lease import Lease
from jobs.lake.store import FolderLake
with Lease(FolderLake(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def lease(lake: Lake, **seconds: Any) -> Lease:
    return Lease(lake, CHECKPOINT, **({"heartbeat_seconds": 0.02, "lease_seconds": 0.2} | seconds))


def stored(lake: Lake) -> dict[str, Any]:
    ((path, _),) = lake.list("_claims/")
    found: dict[str, Any] = json.loads(lake.get(path) or b"")
    return found


def of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "machine", lambda: "elsewhere/boot/pid")


def test_a_second_job_gets_an_error_that_names_the_first_and_changes_nothing(lake: Lake) -> None:
    with lease(lake, heartbeat_seconds=100):
        before = stored(lake)
        with pytest.raises(AlreadyRunningError) as error, lease(lake):
            pass
        assert stored(lake) == before
    for words in (CHECKPOINT, f"process {os.getpid()} of this machine", "stream_job.checkpoint"):
        assert words in str(error.value)


def test_another_checkpoint_has_another_lease(lake: Lake) -> None:
    with lease(lake), Lease(lake, "s3://bucket/lake/_checkpoints/other"):
        assert len(list(lake.list("_claims/"))) == 2


def test_after_a_clean_end_the_next_job_starts_at_once_without_leftovers(lake: Lake) -> None:
    with lease(lake) as first:
        assert first.after_crash, "no record says how the job before it ended"
    assert stored(lake)["released"] == "clean"
    with lease(lake) as second:
        assert not second.after_crash
        assert stored(lake)["released"] is None


def test_after_an_error_the_next_job_starts_at_once_and_looks_for_leftovers(lake: Lake) -> None:
    with pytest.raises(ZeroDivisionError), lease(lake):
        _ = 1 / 0
    assert stored(lake)["released"] == "failed"
    with lease(lake) as second:
        assert second.after_crash


def test_a_job_that_ends_before_it_has_deleted_leftovers_leaves_them_to_the_next(lake: Lake) -> None:
    with pytest.raises(ZeroDivisionError), lease(lake):
        _ = 1 / 0
    with lease(lake):
        pass
    with lease(lake) as third:
        assert third.after_crash
        third.mark_clean()
    with lease(lake) as last:
        assert not last.after_crash


def test_a_killed_job_of_this_machine_is_taken_over_at_once(folder_lake: FolderLake, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "lake"), CHECKPOINT], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(AlreadyRunningError, match=f"process {process.pid} of this machine"):
        lease(folder_lake).__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with lease(folder_lake, lease_seconds=1000) as mine:
        assert mine.after_crash


def test_a_reused_process_id_is_not_mistaken_for_the_dead_job(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(leases, "process_start", lambda _pid: "1")
        dead = lease(lake)
        dead.acquire()
    with lease(lake, lease_seconds=1000) as mine:
        assert mine.after_crash


def test_a_job_on_another_machine_with_a_heartbeat_keeps_its_lease(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with lease(lake):
        of_another_machine(monkeypatch)
        with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} of "), lease(lake, lease_seconds=100):
            pass


def test_a_job_on_another_machine_without_a_heartbeat_loses_its_lease(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease(lake).acquire()
    of_another_machine(monkeypatch)
    started = time.monotonic()
    with lease(lake) as mine:
        assert mine.after_crash
        assert time.monotonic() - started >= 0.2, "not before the lease has expired"


def test_a_job_that_lost_its_lease_while_suspended_stops_before_its_next_step(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = lease(lake, heartbeat_seconds=1000, lease_seconds=0)
    with slept:
        slept.check()
        of_another_machine(monkeypatch)
        with lease(lake, heartbeat_seconds=0.01, lease_seconds=0.02):
            with pytest.raises(AlreadyRunningError, match="has taken over"):
                slept.check()
            with pytest.raises(AlreadyRunningError, match="has taken over"):
                slept.check()
        theirs = stored(lake)
    assert stored(lake) == theirs, "a job that lost its lease does not release the new one"


def test_the_heartbeat_goes_on_while_the_job_runs(lake: Lake) -> None:
    with lease(lake, heartbeat_seconds=0.01) as mine:
        deadline, seen = time.monotonic() + 30, set[int]()
        while len(seen) < 4 and time.monotonic() < deadline:
            seen.add(stored(lake)["beat"])
            time.sleep(0.005)
        assert len(seen) == 4, "no heartbeat"
        mine.check()


def test_a_failing_store_stops_the_job_only_when_the_lease_may_be_lost(
    folder_lake: FolderLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> bool:
        raise TransientError("S3 is away")

    with lease(folder_lake, heartbeat_seconds=1000, lease_seconds=1000) as mine:
        monkeypatch.setattr(folder_lake, "replace", fails)
        mine.check()
        mine._lease_seconds = 0
        with pytest.raises(TransientError, match="S3 is away"):
            mine.check()


def test_if_many_jobs_start_at_once_one_runs(folder_lake: FolderLake) -> None:
    start, done = threading.Barrier(6), threading.Barrier(6)
    outcomes: list[str] = []

    def run() -> None:
        start.wait()
        try:
            with lease(folder_lake, heartbeat_seconds=100):
                outcomes.append("runs")
                done.wait()
        except AlreadyRunningError:
            outcomes.append("refused")
            done.wait()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 5 + ["runs"]


def reader(lake: Lake, checkpoint: str, stream: str = "trips", **seconds: Any) -> Lease:
    return Lease(lake, checkpoint, stream=stream, **({"heartbeat_seconds": 0.02, "lease_seconds": 0.2} | seconds))


def test_a_first_job_that_ends_before_a_batch_leaves_the_leftovers_to_the_next(lake: Lake) -> None:
    """The lease of a job that was killed may be lost, with the folder or by a new name of the checkpoint."""
    with reader(lake, "one"):
        pass
    with reader(lake, "one") as next_job:
        assert next_job.after_crash
        next_job.mark_clean()
    with reader(lake, "one") as last:
        assert not last.after_crash


def test_a_second_job_on_the_stream_is_refused_although_it_has_another_checkpoint(lake: Lake) -> None:
    with reader(lake, "one") as first:
        first.mark_clean()
    with reader(lake, "two") as other:
        with pytest.raises(AlreadyRunningError) as error, reader(lake, "one"):
            pass
        with reader(lake, "three", "another-stream"):
            pass
        other.check()
    for words in (
        "the stream trips",
        "the checkpoint two",
        f"process {os.getpid()} of this machine",
        "lake of its own",
    ):
        assert words in str(error.value)
    with reader(lake, "one") as again:
        assert not again.after_crash, "the refused job has written nothing"


def test_of_two_jobs_on_one_stream_that_start_at_once_at_most_one_runs(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another_machine(monkeypatch)  # each looks at the other's heartbeat
    barrier, running, refused = threading.Barrier(2), list[str](), list[str]()

    def start(checkpoint: str) -> None:
        barrier.wait()
        try:
            with reader(lake, checkpoint):
                running.append(checkpoint)
                time.sleep(0.5)
        except AlreadyRunningError:
            refused.append(checkpoint)

    threads = [threading.Thread(target=start, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(running) <= 1
    assert len(running) + len(refused) == 2


def test_a_dead_reader_of_the_stream_is_waited_for_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = reader(lake, "one", heartbeat_seconds=1000, lease_seconds=0)
    with slept:
        with monkeypatch.context() as patched:
            of_another_machine(patched)
            started = time.monotonic()
            with reader(lake, "two") as second:
                assert second.after_crash, "its checkpoint may be a copy of the dead one's"
                assert time.monotonic() - started >= 0.2
            started = time.monotonic()
            with reader(lake, "three", lease_seconds=1000):
                assert time.monotonic() - started < 10
        with pytest.raises(AlreadyRunningError, match="has taken over"):
            slept.check()
