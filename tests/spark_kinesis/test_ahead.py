"""Reading ahead: when a page is offered, who takes it, and how it crosses from one worker process to another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spark_kinesis.ahead import ReadAhead
from spark_kinesis.client import Page, Record
from spark_kinesis.errors import TransientSourceError
from spark_kinesis.input_partitions import ShardRange
from spark_kinesis.offers import HostOffers, host_offers, private_folder
from spark_kinesis.offset import TRIM_HORIZON, after
from spark_kinesis.reader import RangeReader
from tests.helpers.fake_spark import ScriptedOffers
from tests.helpers.scripted import ScriptedClient, ScriptedStream, as_time, throttled
from tests.spark_kinesis.test_planner import DAY, put, query
from tests.spark_kinesis.test_reader import SHARD, values

PAGE = Page([Record("17", "Kéy", 1.25, b"\x00\xff"), Record("18")], "next", 250, 99.0, 1234, True)

NO_PAGE: Page[Record] = Page([], None, 0, 0.0)


# When a page is offered, and when it is taken


def test_the_batches_of_a_backlog_begin_with_the_page_that_the_batch_before_had_fetched() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 410, every=1)
    spark = query(stream, max_records=50, exact_caps=True)
    spark.drain()
    assert spark.values == wanted
    assert [len(rows) for rows in spark.rows.values()] == [50] * 8 + [10]
    assert len(spark.offers.offered) == 8
    assert spark.offers.taken == spark.offers.offered


def test_reading_ahead_makes_fewer_calls_and_none_in_vain() -> None:
    def calls(*, ahead: bool) -> tuple[int, int]:
        stream = ScriptedStream(1)
        put(stream, 510, every=1)
        spark = query(stream, max_records=100, exact_caps=True)
        if not ahead:
            spark.reader._ahead = None
        seen = 0
        original = spark.client.records

        def counted(iterator: str, limit: int) -> Page[Record]:
            nonlocal seen
            page = original(iterator, limit)
            seen += len(page.records)
            return page

        spark.client.records = counted  # type: ignore[method-assign]
        spark.drain()
        return seen, sum(spark.client.calls.values())

    (ahead, calls_ahead), (alone, calls_alone) = calls(ahead=True), calls(ahead=False)
    assert ahead == 510
    assert ahead < alone
    assert calls_ahead < calls_alone


def test_nothing_is_offered_at_a_tip_at_a_shards_end_or_at_the_querys_ending() -> None:
    stream = ScriptedStream(1)
    spark = query(stream)
    for turn in range(3):
        put(stream, 20, every=1, begin=20 * turn)
        spark.drain()
    stream.split(SHARD)
    spark.drain()
    ending = query(stream).reader._plan().tip()
    put(stream, 20, every=1, begin=60)
    ended = query(stream, max_records=200, ending=ending)
    ended.drain()
    assert len(ended.values) == 60
    assert spark.offers.offered == ended.offers.offered == []


def test_a_replayed_batch_offers_nothing_and_takes_nothing() -> None:
    stream = ScriptedStream(1)
    put(stream, 60, every=1)
    spark = query(stream, max_records=20, exact_caps=True)
    spark.step()
    assert len(spark.offers.offered) == 1
    assert spark.plan()
    spark.restart()
    assert len(spark.offers.offered) == 1
    assert spark.offers.taken == []
    spark.drain()
    assert spark.values == [f"{number:06}" for number in range(60)]


def test_a_page_of_a_stream_that_was_created_again_with_the_same_numbers_is_not_taken() -> None:
    stream = ScriptedStream(1)
    old = put(stream, 60, every=1)
    spark = query(stream, max_records=20, exact_caps=True, fail_on_data_loss=False)
    spark.step()
    assert len(spark.offers.offered) == 1
    again = ScriptedStream(1)
    new = put(again, 60, every=1, begin=100)
    numbers = [[record.number for record in each.shards[SHARD].records] for each in (stream, again)]
    assert numbers[0] == numbers[1]
    again.now = again.created_at = stream.now + 3600
    for record in again.shards[SHARD].records:
        record.arrival += 7200
    again.now += 7200
    spark.client.stream = spark.reader.stream = again
    spark.drain()
    assert spark.values == old[:20] + new


def test_a_page_that_waited_longer_than_an_iterator_lives_is_read_on_all_the_same() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 60, every=1)
    spark = query(stream, max_records=20, exact_caps=True, records_per_call=10)
    spark.step()
    stream.now += 301
    spark.drain()
    assert spark.values == wanted
    assert len(spark.offers.taken) >= 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_page_whose_records_have_all_expired_since_is_no_loss(strict: bool) -> None:
    stream = ScriptedStream(1)
    read = put(stream, 40, every=1)
    spark = query(stream, max_records=20, exact_caps=True)
    spark.client.strict = strict
    spark.drain()
    # The last batch was full, so more was expected.
    assert (len(spark.offers.offered), len(spark.offers.taken)) == (2, 1)
    for _ in range(12):
        stream.now += DAY / 4
        spark.drain()
    new = put(stream, 5, begin=40)
    spark.drain()
    assert len(spark.offers.taken) == 2
    assert spark.values == read + new


def test_a_call_that_fails_is_not_repeated_for_a_guess() -> None:
    stream = ScriptedStream(1)
    client = ScriptedClient(stream)
    first = stream.put("k", "0")
    offers = ScriptedOffers()
    client.faults = [None, throttled()]
    ReadAhead(client, offers).offer_next(capped(after("1"), after(str(first.number))), NO_PAGE, 10)
    assert len(offers.offered) == 1
    assert offers.take(offers.offered[0]) is None
    assert client.calls == {"iterator": 1, SHARD: 1}


@pytest.mark.parametrize(
    "part",
    [
        ShardRange(SHARD, after("1"), after("5"), more=True),
        ShardRange(SHARD, after("1"), after("5"), run="r"),
        ShardRange(SHARD, after("1"), after("5", 2), more=True, run="r"),
    ],
    ids=["of no planner", "nothing behind it", "ends within an aggregate"],
)
def test_a_range_that_no_other_follows_for_certain_offers_nothing(part: ShardRange) -> None:
    offers = ScriptedOffers()
    ReadAhead(ScriptedClient(ScriptedStream(1)), offers).offer_next(part, NO_PAGE, 10)
    assert offers.offered == []


@pytest.mark.parametrize("other", [{"shard_id": "shardId-000000000001"}, {"start": after("6")}, {"run": "q"}])
def test_a_page_is_for_one_start_in_one_shard_of_one_run(other: dict[str, Any]) -> None:
    stream = ScriptedStream(1)
    put(stream, 9, every=1)
    ahead = ReadAhead(ScriptedClient(stream), ScriptedOffers())
    ahead.offer_next(capped(TRIM_HORIZON, after("5")), NO_PAGE, 3)
    following = ShardRange(SHARD, after("5"), after("9"), run="r")
    assert ahead.first_page(replace(following, **other)) is None
    assert ahead.first_page(following) is not None


@pytest.mark.parametrize("limit", [20, 60])
def test_what_stood_behind_the_end_is_passed_on_and_read_on_behind_it(limit: int) -> None:
    stream = ScriptedStream(1)
    put(stream, 90, every=1)
    records = stream.shards[SHARD].records
    client, offers = ScriptedClient(stream), ScriptedOffers()
    last = client.records(client.iterator(SHARD, TRIM_HORIZON), 30)
    client.calls.clear()
    ReadAhead(client, offers).offer_next(capped(TRIM_HORIZON, after(str(records[19].number))), last, limit)
    page = offers.take(offers.offered[0])
    assert page is not None
    assert [record.data.decode() for record in page.records] == [f"{number:06}" for number in range(19, 19 + limit)]
    assert client.calls == {SHARD: 1}


def test_an_end_that_is_not_in_its_page_is_opened_anew() -> None:
    stream = ScriptedStream(1)
    put(stream, 9, every=1)
    records = stream.shards[SHARD].records
    client, offers = ScriptedClient(stream), ScriptedOffers()
    last = client.records(client.iterator(SHARD, after(str(records[5].number))), 2)
    ReadAhead(client, offers).offer_next(capped(TRIM_HORIZON, after(str(records[3].number))), last, 3)
    page = offers.take(offers.offered[0])
    assert page is not None
    assert [int(record.sequence_number) for record in page.records] == [record.number for record in records[3:6]]


# Between processes


def capped(start: Any, end: Any) -> ShardRange:
    return ShardRange(SHARD, start, end, bytes=1000, more=True, run="r")


@pytest.fixture
def base() -> Iterator[Path]:
    """Short enough for a socket's path, which pytest's own directories are not."""
    with tempfile.TemporaryDirectory() as found:
        yield Path(found)


@pytest.fixture
def folder(base: Path) -> Path:
    found = private_folder(str(base))
    assert found is not None
    return found


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not come to this"
        time.sleep(0.005)


def failing() -> Page[Record]:
    raise TransientSourceError("InternalFailureException")


def _offering(folder: Path, fetches: Any, answer: Any) -> None:
    """A worker that offers a page, and goes on until it is killed. `answer`: lets the fetch end."""

    def fetch() -> Page[Record]:
        fetches.set()
        answer.wait(60)
        return PAGE

    HostOffers(folder).offer("key", fetch, 1000)
    time.sleep(60)


@pytest.fixture
def worker(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Another process that offers `key` and is fetching it: the process, and what lets its fetch end."""
    context = multiprocessing.get_context("spawn")
    fetches, answer = context.Event(), context.Event()
    process = context.Process(target=_offering, args=(folder, fetches, answer))
    process.start()
    assert fetches.wait(60)
    yield process, answer
    process.kill()
    process.join()


@pytest.mark.parametrize("ready", [True, False])
def test_a_page_crosses_to_another_process(folder: Path, worker: tuple[Any, Any], ready: bool) -> None:
    _, answer = worker
    if ready:
        answer.set()
    else:
        threading.Timer(0.2, answer.set).start()
    offers = HostOffers(folder, patience_seconds=60)
    assert offers.take("key") == PAGE
    assert offers.take("key") is None, "a page is for one reader"
    assert list(folder.iterdir()) == []


def test_a_worker_killed_while_it_fetches_leaves_the_reader_to_itself(folder: Path, worker: tuple[Any, Any]) -> None:
    process, _ = worker
    offers = HostOffers(folder, patience_seconds=60)
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(offers.take("key")))
    waiting.start()
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    waiting.join(30)
    assert found == [None]
    assert [path.name for path in folder.iterdir()] == ["key"]
    assert offers.take("key") is None
    assert list(folder.iterdir()) == [], "what the dead worker left behind"


def test_a_range_is_read_from_a_page_that_another_reader_offered(folder: Path) -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 60, every=1)
    numbers = [str(record.number) for record in stream.shards[SHARD].records]
    client = ScriptedClient(stream)
    got = []
    for start, end in ((0, 20), (20, 40), (40, 59)):
        # Each has a book of its own, as each worker process has.
        offers = HostOffers(folder, patience_seconds=60)
        reader = RangeReader(
            client, "s", clock=lambda: as_time(stream.now), prefetch=False, ahead=ReadAhead(client, offers)
        )
        got += values(reader.read(capped(after(numbers[start]), after(numbers[end]))))
    assert got == wanted[1:]
    assert client.calls["iterator"] == 1, "only the first reader had to open the shard"


def test_a_reader_does_not_wait_long_for_a_page(folder: Path) -> None:
    answer = threading.Event()

    def fetch() -> Page[Record]:
        answer.wait(60)
        return PAGE

    offers = HostOffers(folder, patience_seconds=0.05)
    offers.offer("key", fetch, 0)
    assert offers.take("key") is None
    answer.set()
    wait_until(lambda: not offers._held)
    assert list(folder.iterdir()) == []


def test_a_page_that_nobody_wants_is_given_up(folder: Path) -> None:
    offers = HostOffers(folder, kept_seconds=0.05)
    offers.offer("key", lambda: PAGE, 0)
    wait_until(lambda: not offers._held)
    assert offers.take("key") is None
    assert list(folder.iterdir()) == []


def test_three_wrong_guesses_end_the_guessing_and_right_ones_allow_more(folder: Path) -> None:
    fetched: list[str] = []
    offers = HostOffers(folder, patience_seconds=60)

    def offer(key: str, *, wrong: bool) -> None:
        def fetch() -> Page[Record]:
            fetched.append(key)
            return failing() if wrong else PAGE

        offers.offer(key, fetch, 0)

    def settled() -> None:
        wait_until(lambda: not offers._held)

    for turn in range(10):
        offer(f"right-{turn}", wrong=False)
        assert offers.take(f"right-{turn}") == PAGE
        settled()
    for turn in range(6):
        offer(f"wrong-{turn}", wrong=True)
        settled()
    assert [key for key in fetched if key.startswith("wrong")] == ["wrong-0", "wrong-1", "wrong-2", "wrong-3"]


@pytest.mark.parametrize(("size", "held"), [(0, 16), (1024 * 1024, 16), (6 * 1024 * 1024, 2), (10**9, 1)])
def test_a_process_holds_few_pages_and_few_bytes(folder: Path, size: int, held: int) -> None:
    offers = HostOffers(folder, kept_seconds=0.05)
    answer = threading.Event()

    def fetch() -> Page[Record]:
        answer.wait(60)
        return PAGE

    for turn in range(20):
        offers.offer(f"{turn}", fetch, size)
    assert len(list(folder.iterdir())) == held
    answer.set()
    wait_until(lambda: not offers._held)


def test_two_attempts_of_one_task_offer_a_page_once(folder: Path) -> None:
    first, second = HostOffers(folder, patience_seconds=60), HostOffers(folder)
    first.offer("key", lambda: PAGE, 0)
    second.offer("key", failing, 0)
    assert second._held == []
    assert second.take("key") == PAGE


def test_a_worker_that_can_have_no_more_threads_reads_on_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    offers = HostOffers(folder)
    offers.offer("key", failing, 0)
    assert offers._held == []
    assert list(folder.iterdir()) == []


def test_what_killed_workers_left_behind_is_swept(folder: Path) -> None:
    for name, age in (("old", 300), ("new", 0)):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / name))
        os.utime(folder / name, (time.time() - age,) * 2)
    HostOffers(folder)
    assert [path.name for path in folder.iterdir()] == ["new"]


@pytest.mark.parametrize("body", [b"", b"\x93", b"\xc0 and more"])
def test_half_a_page_is_no_page(folder: Path, body: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "key"))
        listener.listen(1)

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(body)

        thread = threading.Thread(target=answer)
        thread.start()
        assert HostOffers(folder).take("key") is None
        thread.join()


# The directory


def test_a_private_folder_is_made_and_found_again(base: Path) -> None:
    folder = private_folder(str(base))
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder(str(base)) == folder


def test_a_folder_that_others_may_enter_is_not_used(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = private_folder(str(base))
    assert folder is not None
    folder.chmod(0o750)
    assert private_folder(str(base)) is None
    assert str(folder) in caplog.text


def test_a_folder_of_someone_else_is_not_used(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    (base / f"movement-ahead-{own + 1}").mkdir(mode=0o700)
    assert private_folder(str(base)) is None


def test_a_link_to_a_folder_is_not_used(base: Path) -> None:
    (base / "elsewhere").mkdir(mode=0o700)
    (base / f"movement-ahead-{os.getuid()}").symlink_to(base / "elsewhere")
    assert private_folder(str(base)) is None


def test_a_path_too_long_for_a_socket_and_a_missing_directory_turn_it_off(base: Path) -> None:
    long = base / ("x" * 100)
    long.mkdir()
    assert private_folder(str(long)) is None
    assert private_folder(str(base / "missing")) is None


def test_without_unix_sockets_nothing_is_offered(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert private_folder(str(base)) is None
    off = HostOffers(None)
    off.offer("key", failing, 0)
    assert off.take("key") is None


@pytest.mark.parametrize("reused", [True, False])
def test_workers_that_end_with_their_task_offer_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch, reused: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    monkeypatch.setenv("SPARK_REUSE_WORKER", "1") if reused else monkeypatch.delenv("SPARK_REUSE_WORKER", False)
    host_offers.cache_clear()
    try:
        offers = host_offers()
        assert host_offers() is offers, "one for all of a process's tasks"
        offers.offer("key", lambda: PAGE, 0)
        assert offers.take("key") == (PAGE if reused else None)
    finally:
        host_offers.cache_clear()
