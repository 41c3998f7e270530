"""Where a query goes on after somebody has changed its checkpoint or its lake: exactly, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from jobs.common.errors import BatchMismatchError, ConfigurationError, TerminalError
from jobs.lake.ledger import Ledger, LedgerEntry, queries
from jobs.lake.store import FolderLake
from jobs.stream.checkpoint import Checkpoint
from jobs.stream.resume import align_checkpoint
from tests.helpers.checkpointed_query import FINAL, KILLS, CheckpointedJob
from tests.helpers.operator import Operator
from tests.helpers.scripted import ScriptedStream


@pytest.fixture(params=["parquet", "delta"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointedJob:
    """A job that has written 40 records in 7 batches."""
    job = CheckpointedJob(ScriptedStream(2), tmp_path, request.param)
    job.put(*range(40))
    job.run()
    assert job.rows() == list(range(40))
    return job


def query_of(job: CheckpointedJob) -> str:
    (query,) = queries(job.lake)
    return query


def newest(job: CheckpointedJob, folder: str = "offsets") -> int:
    return max(int(path.name) for path in (job.checkpoint / folder).glob("[0-9]*"))


def forget(job: CheckpointedJob, batches: int) -> None:
    """What posts on the web advise for other sources: delete the newest offsets and commits."""
    last = newest(job)
    for number in range(last - batches + 1, last + 1):
        for folder in ("offsets", "commits"):
            (job.checkpoint / folder / str(number)).unlink(missing_ok=True)


def lose_entries(job: CheckpointedJob, count: int) -> None:
    """Deletes the ledger's newest entries."""
    ledger = Ledger(job.lake, query_of(job))
    for number in ledger.numbers()[-count:]:
        (job.folder / "lake" / "_ledger" / ledger.query / f"{number}.json").unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def reads_on(job: CheckpointedJob, **options: object) -> None:
    """Runs the job with ten new records: every record is in the lake once."""
    job.put(*range(100, 110))
    job.run(**options)  # type: ignore[arg-type]
    assert job.rows() == [*range(40), *range(100, 110)]


def test_a_checkpoint_put_back_from_a_backup_loses_and_doubles_nothing(tmp_path: Path) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path)
    job.put(*range(15))
    job.run()
    backup = shutil.copytree(job.checkpoint, tmp_path / "backup")
    job.put(*range(15, 40))
    job.run()
    empty(job.checkpoint)
    shutil.copytree(backup, job.checkpoint, dirs_exist_ok=True)
    reads_on(job)


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_newest_offsets_and_commits_deleted_by_hand_lose_nothing(job: CheckpointedJob, batches: int) -> None:
    forget(job, batches)
    reads_on(job)


def test_all_offsets_and_commits_deleted_lose_nothing(job: CheckpointedJob) -> None:
    for folder in ("offsets", "commits"):
        shutil.rmtree(job.checkpoint / folder)
    reads_on(job)


def test_metadata_deleted_goes_on_as_the_same_query(job: CheckpointedJob) -> None:
    query = query_of(job)
    (job.checkpoint / "metadata").unlink()
    reads_on(job)
    assert query_of(job) == query


def test_metadata_and_the_last_commit_deleted_doubles_nothing(job: CheckpointedJob) -> None:
    (job.checkpoint / "metadata").unlink()
    (job.checkpoint / "commits" / str(newest(job))).unlink()
    reads_on(job)


def test_an_empty_checkpoint_on_a_lake_with_the_streams_records_is_refused(job: CheckpointedJob) -> None:
    empty(job.checkpoint)
    with pytest.raises(TerminalError, match=r"already has records of stream scripted.*--start-from ledger") as caught:
        job.run()
    assert query_of(job) in str(caught.value)
    assert job.rows() == list(range(40))
    reads_on(job, start_from="ledger")


def test_an_empty_checkpoint_reads_the_stream_again_if_it_is_asked_to(tmp_path: Path) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path)
    job.put(*range(20))
    job.run()
    empty(job.checkpoint)
    job.run("stream")
    assert job.rows() == sorted([*range(20), *range(20)])
    job.put(20)
    job.run()  # the new query has a ledger of its own now
    assert len(job.rows()) == 41
    job.put(21)
    job.run("stream")  # EMR and Glue restart a driver with the arguments that it had
    assert len(job.rows()) == 42


def test_a_checkpoint_kept_on_an_empty_lake_is_refused(job: CheckpointedJob) -> None:
    empty(job.folder / "lake")
    job.put(*range(100, 110))
    with pytest.raises(TerminalError, match=r"has no ledger of it.*--start-from checkpoint"):
        job.run()
    assert job.rows() == []
    job.run("checkpoint")
    assert job.rows() == list(range(100, 110))


def test_a_moved_lake_whose_ledger_begins_above_0_is_read_by_all(job: CheckpointedJob) -> None:
    empty(job.folder / "lake")
    job.put(*range(100, 110))
    job.run("checkpoint")
    first = min(Ledger(job.lake, query_of(job)).numbers())
    assert first > 0
    entries = list(Ledger(job.lake, query_of(job)).entries_after(-1))
    assert entries[0].batch == first
    assert sum(entry.report.processed for entry in entries) == 10
    job.put(110)
    job.run()
    assert job.rows() == list(range(100, 111))


def test_a_ledger_that_lost_its_last_entries_is_refused_then_read_again(tmp_path: Path) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path)
    job.put(*range(40))
    job.run()
    lose_entries(job, 2)
    with pytest.raises(TerminalError, match=r"is at batch 6, but the ledger .* ends with batch 4"):
        job.run()
    # The files of the two batches are deleted, and their records read again.
    reads_on(job, start_from="ledger")


def test_files_are_not_deleted_if_the_stream_may_have_lost_their_records(tmp_path: Path) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path)
    job.put(*range(40))
    job.run()
    lose_entries(job, 2)
    hours = [path.split("/")[1:3] for path, _ in job.lake.list("raw/")]
    day, hour = (part.partition("=")[2] for part in max(hours))
    arrived = datetime.fromisoformat(f"{day}T{hour}:00:00+00:00")
    for minutes in (0, 59, 600):  # within the hour of the files' partition, and after it
        job.kept_since = arrived + timedelta(minutes=minutes)
        with pytest.raises(TerminalError, match=r"could not be read again.*source.fail_on_data_loss=false"):
            job.run("ledger")
        assert job.rows() == list(range(40))
    job.kept_since = arrived - timedelta(days=1)
    reads_on(job, start_from="ledger")


def test_rows_of_a_lost_entry_that_a_delta_table_has_are_not_doubled(tmp_path: Path) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path, "delta")
    job.put(*range(40))
    job.run()
    ledger = Ledger(job.lake, query_of(job))
    (tmp_path / "lake" / "_ledger" / ledger.query / "6.json").unlink()
    with pytest.raises(TerminalError, match=r"processed has the rows of batch .*-6, but the job goes on after batch 5"):
        job.run("ledger")
    assert job.rows() == list(range(40))


def test_a_lake_put_back_to_an_older_state_reads_the_missing_records_again(tmp_path: Path) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path)
    job.put(*range(15))
    job.run()
    backup = shutil.copytree(tmp_path / "lake", tmp_path / "backup")
    job.put(*range(15, 40))
    job.run()
    shutil.rmtree(tmp_path / "lake")
    backup.rename(tmp_path / "lake")
    with pytest.raises(TerminalError, match="the lake was put back to an older state"):
        job.run()
    reads_on(job, start_from="ledger")


def test_old_entries_that_expired_do_not_stop_the_job(job: CheckpointedJob) -> None:
    folder = job.folder / "lake" / "_ledger" / query_of(job)
    for number in range(3):
        (folder / f"{number}.json").unlink()
    reads_on(job)


@pytest.mark.parametrize("kill", KILLS)
def test_an_offsets_file_that_a_power_cut_emptied_is_planned_anew(tmp_path: Path, kill: str) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path)
    job.put(*range(30))
    job.run(batches=2)
    job.run(kill=kill)
    (job.checkpoint / "offsets" / str(newest(job))).write_bytes(b"")
    job.put(*range(30, 40))
    reads_on(job)


def test_the_first_offsets_file_emptied_is_planned_anew(tmp_path: Path) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path)
    job.put(*range(40))
    job.run(kill="written")
    (job.checkpoint / "offsets" / "0").write_bytes(b"")
    reads_on(job)


def test_a_commits_file_that_a_power_cut_emptied_is_written_again(job: CheckpointedJob) -> None:
    (job.checkpoint / "commits" / str(newest(job, "commits"))).write_bytes(b"")
    reads_on(job)


def test_a_batch_of_other_records_under_a_final_number_is_never_skipped(job: CheckpointedJob) -> None:
    # Somebody changes the checkpoint while the job runs, after its start has compared both.
    job.put(*range(100, 105))
    last = newest(job)

    def change_ledger(entry: LedgerEntry) -> None:
        assert entry.offset is not None
        other = msgspec.structs.replace(entry, batch=last + 1)
        path = job.folder / "lake" / "_ledger" / entry.query / f"{last + 1}.json"
        path.write_bytes(msgspec.json.encode(other))

    entry = Ledger(job.lake, query_of(job)).entry(last)
    assert entry is not None
    with pytest.raises(BatchMismatchError, match=r"with other records"):
        job.run(before_batch=lambda: change_ledger(entry))


def test_without_id_and_ledger_a_batch_that_may_be_in_the_lake_is_not_written_again(job: CheckpointedJob) -> None:
    (job.checkpoint / "metadata").unlink()
    (job.checkpoint / "commits" / str(newest(job))).write_bytes(b"")
    shutil.rmtree(job.folder / "lake" / "_ledger")
    for option in (None, "checkpoint"):
        with pytest.raises(TerminalError, match="the query's id is lost and the lake has files of a query"):
            job.run(option)  # type: ignore[arg-type]
    assert job.rows() == list(range(40))


def test_files_of_batches_after_a_checkpoint_without_ledger_are_written_again(tmp_path: Path) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path)
    job.put(*range(40))
    job.run()
    forget(job, 2)
    shutil.rmtree(tmp_path / "lake" / "_ledger")
    with pytest.raises(TerminalError, match=r"--start-from checkpoint"):
        job.run()
    reads_on(job, start_from="checkpoint")


@pytest.mark.parametrize("table_format", ["parquet", "delta"])
def test_a_ledger_and_a_checkpoint_put_back_together_lose_and_double_nothing(tmp_path: Path, table_format: str) -> None:
    job = CheckpointedJob(ScriptedStream(2), tmp_path, table_format)
    operator = Operator(tmp_path)
    job.put(*range(20))
    job.run()
    operator.back_up_both()
    job.put(*range(20, 40))
    job.run()
    operator.put_back_what_the_job_remembers(0)
    with pytest.raises(TerminalError, match=r"raw has files of batch .*, but the ledger ends with batch"):
        job.run()
    assert job.rows() == list(range(40))
    if table_format == "parquet":  # rows of a Delta table cannot be taken out again
        reads_on(job, start_from="ledger")


def test_files_of_two_batches_without_an_entry_are_not_the_leftovers_of_a_crash(job: CheckpointedJob) -> None:
    last = newest(job)
    (job.folder / "lake" / "_claims" / "clean").unlink()
    for number in (last, last - 1):
        (job.folder / "lake" / "_ledger" / query_of(job) / f"{number}.json").unlink()
    forget(job, 2)
    with pytest.raises(TerminalError, match=rf"raw has files of batch {query_of(job)}-{last}"):
        job.run()
    assert job.rows() == list(range(40))


def test_a_damaged_metadata_names_the_remedy(job: CheckpointedJob) -> None:
    metadata = job.checkpoint / "metadata"
    metadata.write_bytes(b"")
    with pytest.raises(TerminalError, match=r"Delete this file and start the job again"):
        job.run()
    metadata.unlink()
    reads_on(job)


def test_files_without_any_ledger_are_not_taken_for_an_empty_lake(job: CheckpointedJob) -> None:
    shutil.rmtree(job.folder / "lake" / "_ledger")
    empty(job.checkpoint)
    with pytest.raises(TerminalError, match=r"has files such as raw/.*, but no ledger of their query"):
        job.run()


def test_a_deleted_ledger_is_noticed_beside_that_of_another_stream(job: CheckpointedJob) -> None:
    ledgers, query = job.folder / "lake" / "_ledger", query_of(job)
    shutil.copytree(ledgers / query, ledgers / "0123456789ab")  # of another stream
    for path in (ledgers / "0123456789ab").iterdir():
        path.write_bytes(path.read_bytes().replace(query.encode(), b"0123456789ab").replace(b"scripted", b"another"))
    shutil.rmtree(ledgers / query)
    shutil.rmtree(job.checkpoint)
    with pytest.raises(TerminalError, match="but no ledger of their query"):
        job.run()


def test_a_second_stream_may_be_written_to_a_lake(job: CheckpointedJob, tmp_path: Path) -> None:
    # The lake has the ledger and the files of another stream only.
    align_checkpoint(Checkpoint(FolderLake(str(tmp_path / "second"))), job.lake, "second", after_crash=True)


def test_the_offsets_before_the_last_ones_are_restored(job: CheckpointedJob) -> None:
    (job.checkpoint / "offsets" / str(newest(job) - 1)).unlink()
    reads_on(job)


def test_a_batch_whose_offset_cannot_be_read_is_not_written(job: CheckpointedJob) -> None:
    job.put(*range(100, 110))
    last = newest(job)
    with pytest.raises(TerminalError, match=rf"offsets/{last + 1}, which Spark has just written, is missing"):
        job.run(before_batch=lambda: (job.checkpoint / "offsets" / str(last + 1)).unlink())
    assert job.rows() == list(range(40))


def test_a_restore_that_is_cut_off_leaves_no_later_batch_of_another_plan(
    job: CheckpointedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderLake(str(job.checkpoint))
    query, last = query_of(job), newest(job)
    offset = Checkpoint(store).offset(last - 1)
    assert offset is not None
    monkeypatch.setattr(store, "put", lambda *_: pytest.fail("the process ends here"))
    with pytest.raises(pytest.fail.Exception):
        Checkpoint(store).restore(query, last - 1, offset, None)
    assert newest(job) == last - 1
    assert newest(job, "commits") == last - 1


@pytest.mark.parametrize(
    ("prepare", "option", "why"),
    [
        (lambda job: None, "stream", "has already read with the checkpoint"),
        (lambda job: empty(job.checkpoint), "checkpoint", "does not apply"),
        (lambda job: empty(job.folder / "lake"), "ledger", "there is nothing to go on from"),
        (lambda job: empty(job.folder / "lake"), "stream", "does not apply"),
    ],
)
def test_an_option_that_does_not_apply_is_an_error(
    job: CheckpointedJob, prepare: Callable[[CheckpointedJob], None], option: str, why: str
) -> None:
    prepare(job)
    with pytest.raises(ConfigurationError, match=why):
        job.run(option)  # type: ignore[arg-type]


def of_an_older_release(job: CheckpointedJob) -> None:
    for path in (job.folder / "lake" / "_ledger").rglob("*.json"):
        content = json.loads(path.read_bytes())
        del content["offset"]
        path.write_text(json.dumps(content), encoding="utf-8")


def test_entries_of_an_older_release_are_compared_by_their_ranges(job: CheckpointedJob) -> None:
    of_an_older_release(job)
    (job.checkpoint / "commits" / str(newest(job))).unlink()
    reads_on(job)


def test_a_checkpoint_behind_entries_of_an_older_release_is_refused_with_the_positions(job: CheckpointedJob) -> None:
    of_an_older_release(job)
    forget(job, 1)
    with pytest.raises(TerminalError, match=r"did not store where it ended. It read up to .*shardId-"):
        job.run()
    assert job.rows() == list(range(40))


@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_at_each_step_loses_and_doubles_nothing(job: CheckpointedJob, kill: str) -> None:
    job.put(*range(100, 105))
    killed = job.run(kill=kill)
    assert len(killed) == (kill == FINAL)
    job.put(*range(105, 110))
    job.run()
    assert job.rows() == [*range(40), *range(100, 110)]
