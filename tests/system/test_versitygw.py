"""The lake on a real S3 server: of two writers one wins, and compaction and Delta commits lose and double nothing.

moto serves one request at a time, so it cannot show a race. versitygw decides conditional writes itself.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import pyarrow as pa
import pytest

from jobs.common.errors import AlreadyRunningError
from jobs.lake.delta import open_delta
from jobs.lake.ledger import Ledger
from jobs.lake.store import S3Lake, lake_at
from jobs.maintenance import compact
from jobs.settings.settings import Settings
from jobs.stream.delta_commits import DeltaCommitter
from tests.helpers.commands import environment
from tests.helpers.compaction_lakes import poll, set_compact, write_batch
from tests.helpers.lakes import make_lake
from tests.helpers.samples import TRAVEL_TIMES, good
from tests.helpers.versitygw import versitygw

pytestmark = pytest.mark.aws

T = TypeVar("T")
ROUNDS = 20
WRITERS = 4


@pytest.fixture(scope="module")
def _s3(embedded_aws: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """S3 is versitygw, and every other service is the embedded AWS."""
    with versitygw(tmp_path_factory.mktemp("versitygw")) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        yield


@pytest.fixture
def new_lake(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None], tmp_path: Path
) -> Callable[..., Settings]:
    """Creates a lake on versitygw: `new_lake("sink.format=delta")`."""
    record_property("server", "versitygw")
    request.getfixturevalue("_s3")
    return lambda *overrides: make_lake(tmp_path, *overrides)


def clients(settings: Settings) -> list[S3Lake]:
    """The same lake for each of the writers, through connections of its own."""
    return [S3Lake(settings.lake) for _ in range(WRITERS)]


def at_once(*calls: Callable[[], T]) -> list[T | Exception]:
    """The results, or errors, of calls that start at the same moment."""
    start = threading.Barrier(len(calls))
    results: list[T | Exception] = [RuntimeError("it did not end")] * len(calls)

    def run(position: int, call: Callable[[], T]) -> None:
        start.wait()
        try:
            results[position] = call()
        except Exception as error:  # noqa: BLE001 - compared by the test
            results[position] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_writers_of_a_new_file_exactly_one_wins(new_lake: Callable[..., Settings]) -> None:
    lakes = clients(new_lake())
    contents = [b"writer %d" % number for number in range(WRITERS)]
    for number in range(ROUNDS):
        path = f"_ledger/q/{number}.json"
        won = at_once(*[
            partial(lake.put_if_absent, path, content)
            for lake, content in zip(lakes, contents, strict=True)
        ])  # fmt: skip
        assert sorted(map(str, won)) == ["False"] * (WRITERS - 1) + ["True"]
        assert lakes[0].get(path) == contents[won.index(True)]


def test_of_writers_that_replace_the_same_content_exactly_one_wins(new_lake: Callable[..., Settings]) -> None:
    lakes, path = clients(new_lake()), "_layout/processed.json"
    assert lakes[0].put_if_absent(path, b"0")
    for number in range(ROUNDS):
        before = lakes[0].get(path) or b""
        contents = [b"%d by %d" % (number + 1, writer) for writer in range(WRITERS)]
        won = at_once(*[
            partial(lake.replace, path, before, content)
            for lake, content in zip(lakes, contents, strict=True)
        ])  # fmt: skip
        assert sorted(map(str, won)) == ["False"] * (WRITERS - 1) + ["True"]
        assert lakes[0].get(path) == contents[won.index(True)]


def test_a_request_that_is_repeated_after_a_lost_answer_succeeds(new_lake: Callable[..., Settings]) -> None:
    lake = lake_at(new_lake().lake)
    assert lake.put_if_absent("a", b"1")
    assert lake.put_if_absent("a", b"1")
    assert lake.replace("a", b"1", b"2")
    assert lake.replace("a", b"1", b"2")
    assert not lake.put_if_absent("a", b"3")
    assert not lake.replace("a", b"1", b"3")
    assert not lake.replace("missing", b"1", b"3")
    assert lake.get("a") == b"2"


def test_of_jobs_that_commit_the_same_batch_exactly_one_makes_it_final(new_lake: Callable[..., Settings]) -> None:
    settings = new_lake()
    entry = write_batch(settings, 0, [[good()]], final=False)
    entries = [msgspec.structs.replace(entry, alarms=[f"job {number}"]) for number in range(WRITERS)]
    results = at_once(*[
        partial(Ledger(lake, entry.query).commit, one)
        for lake, one in zip(clients(settings), entries, strict=True)
    ])  # fmt: skip
    assert results.count(None) == 1
    assert sum(isinstance(result, AlreadyRunningError) for result in results) == WRITERS - 1
    assert Ledger(lake_at(settings.lake), entry.query).entry(0) == entries[results.index(None)]


TAKE_THE_LEASE = """
import sys
from jobs.common.errors import AlreadyRunningError
from jobs.lake.lease import Lease
from jobs.lake.store import lake_at

lake = lake_at(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with Lease(lake, "checkpoint"):
        print("taken", flush=True)
        sys.stdin.readline()
except AlreadyRunningError as error:
    print("refused", error, flush=True)
"""


def test_of_jobs_that_start_at_once_exactly_one_takes_the_lease(new_lake: Callable[..., Settings]) -> None:
    settings = new_lake()
    for before in ("no job", "a job that ended"):
        jobs = [
            subprocess.Popen(
                [sys.executable, "-c", TAKE_THE_LEASE, settings.lake],
                env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            )
            for _ in range(WRITERS)
        ]  # fmt: skip
        try:
            assert [said_by(job) for job in jobs] == ["ready"] * WRITERS
            for job in jobs:
                say_to(job, "start")
            answers = [said_by(job) for job in jobs]
            say_to(jobs[answers.index("taken")], "end")
            assert [job.wait(30) for job in jobs] == [0] * WRITERS
        finally:
            for job in jobs:
                job.kill()
                job.communicate()
        refused = [answer for answer in answers if answer.startswith("refused another job on the checkpoint")]
        assert (answers.count("taken"), len(refused)) == (1, WRITERS - 1), before


def say_to(job: subprocess.Popen[str], text: str) -> None:
    assert job.stdin is not None
    print(text, file=job.stdin, flush=True)


def said_by(job: subprocess.Popen[str]) -> str:
    assert job.stdout is not None
    return job.stdout.readline().rstrip("\n")


def test_compaction_beside_a_stream_loses_and_doubles_no_row(new_lake: Callable[..., Settings]) -> None:
    settings = set_compact(new_lake(), min_files=2, grace_seconds=0.0)
    for number in range(4):
        write_batch(settings, number, [[good(City="Paris"), good(City="a/b")]])

    def stream() -> None:
        for number in range(4, 12):
            write_batch(settings, number, [[good(City="Paris"), good(City="a/b")]])

    done, streamed = at_once(lambda: compact.run(settings), stream)

    assert streamed is None
    assert isinstance(done, compact.CompactResult), done
    assert done.files_before > done.files_after > 0
    compact.run(settings)
    rows, files = poll(settings)
    assert (len(rows), set(rows.values())) == (24, {1})
    assert files == 2


def test_delta_commits_of_two_queries_beside_compaction_lose_and_double_no_row(
    new_lake: Callable[..., Settings],
) -> None:
    settings = set_compact(new_lake("sink.format=delta"), min_files=2)
    lake = lake_at(settings.lake)
    DeltaCommitter(lake, TRAVEL_TIMES).ensure_table()

    def stream(query: str) -> None:
        log = DeltaCommitter(lake, TRAVEL_TIMES)
        for number in range(8):
            entry = write_batch(settings, number, [[good(), good(City="a/b")]], query=query, final=False)
            Ledger(lake, query).commit(entry)
            log.commit(entry)

    def compact_often() -> None:
        for _ in range(3):
            compact.run(settings)

    assert at_once(partial(stream, "one"), partial(stream, "two"), compact_often) == [None, None, None]
    compact.run(settings)

    table = open_delta(f"{settings.lake}/processed")
    assert table is not None
    rows = pa.table(table.to_pyarrow_table()).to_pylist()
    assert Counter(row["batch"] for row in rows) == {f"{q}-{n}": 2 for q in ("one", "two") for n in range(8)}
    assert (table.transaction_version("one"), table.transaction_version("two")) == (7, 7)
    assert len(table.file_uris()) == 2
