"""The source as a whole: options reach the workers, shards are searched concurrently, memory stays small, triggers end
where they should."""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from spark_kinesis import boto_client, data_source
from spark_kinesis.data_source import ShardTask, read_task
from spark_kinesis.errors import DataLossError, TransientSourceError
from spark_kinesis.offset import TRIM_HORIZON, Position, ShardRange, after
from spark_kinesis.options import KinesisOptions
from spark_kinesis.planner import Planner
from tests.helpers.fake_spark import DAY, SHARD, put, query, reader, values
from tests.helpers.scripted import ScriptedClient, ScriptedStream, throttled

# Options on their way to the workers


@pytest.fixture
def stream() -> ScriptedStream:
    return ScriptedStream(1)


@pytest.fixture
def client(stream: ScriptedStream, monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    """The worker's Kinesis client."""
    found = ScriptedClient(stream)
    monkeypatch.setattr(boto_client, "worker_client", lambda _options: found)
    return found


def task(stream: ScriptedStream, start: Position = TRIM_HORIZON) -> ShardTask:
    return ShardTask((ShardRange(SHARD, start, after(str(stream.shards[SHARD].records[-1].number))),))


def test_a_worker_takes_aggregates_apart_where_the_option_says_so(
    stream: ScriptedStream, client: ScriptedClient
) -> None:
    aggregates = pytest.importorskip("tests.spark_kinesis.test_kpl", reason="needs aws_kinesis_agg (extra 'kpl')")
    whole = aggregates.aggregate("a", "b")
    aggregates.put(stream, whole)
    apart = read_task(KinesisOptions(stream="s", deaggregate=True), task(stream))
    assert values(apart) == ["a", "b"]
    (kept,) = read_task(KinesisOptions(stream="s"), task(stream))
    assert kept["data"].to_pylist() == [whole]


def test_a_worker_stops_at_a_loss_unless_the_option_allows_it(
    stream: ScriptedStream, client: ScriptedClient, caplog: pytest.LogCaptureFixture
) -> None:
    gone = stream.put("k", "gone")
    stream.now += DAY + 60
    stream.put("k", "left")
    lossy = task(stream, after(str(gone.number)))
    with pytest.raises(DataLossError, match=SHARD):
        list(read_task(KinesisOptions(stream="s"), lossy))
    assert values(read_task(KinesisOptions(stream="s", fail_on_data_loss=False), lossy)) == ["left"]
    assert "Continuing, because failOnDataLoss=false" in caplog.text


def test_a_worker_repeats_a_call_for_as_long_as_the_option_says(stream: ScriptedStream, client: ScriptedClient) -> None:
    stream.put("k", "1")
    client.faults = [throttled() for _ in range(1000)]
    with pytest.raises(TransientSourceError, match=r"tried \d+ times in 0.05 s"):
        list(read_task(KinesisOptions(stream="s", retry_seconds=0.05), task(stream)))


# Concurrency


@pytest.mark.parametrize("capped", [0, 100])
def test_the_tips_of_many_shards_are_looked_up_at_the_same_time(capped: int) -> None:
    stream = ScriptedStream(8)
    for shard in list(stream.shards):
        stream.put("x", shard, shard)
    client = ScriptedClient(stream)
    together = threading.Barrier(8)
    # Each lookup waits until all eight are on their way.
    client.after_call = lambda name: together.wait(60) and None if name == "iterator" else None
    options = KinesisOptions(stream="s", initial="TRIM_HORIZON", planning_threads=8, max_records=capped)
    planner = Planner(options, client, clock=lambda: stream.now)
    cap = data_source.KinesisStreamReader(options).cap(None)
    end = planner.latest(options.initial_offset, cap=cap)
    planner.close()
    assert all(position.is_record for position in end.shards.values())


def test_the_next_page_is_fetched_while_spark_works_on_this_one() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 9)
    client = ScriptedClient(stream)
    second = threading.Event()
    client.after_call = lambda name: second.set() if client.calls.get(SHARD) == 2 else None
    part = ShardRange(SHARD, TRIM_HORIZON, after(str(stream.shards[SHARD].records[-1].number)))
    batches = reader(client, records_per_call=3).read(part)
    first = next(batches)
    assert second.wait(60)
    assert values(itertools.chain([first], batches)) == wanted


# The end of a range


@pytest.mark.parametrize("closed", [False, True])
def test_an_end_that_never_comes_is_a_loss(closed: bool, caplog: pytest.LogCaptureFixture) -> None:
    stream = ScriptedStream(1)
    put(stream, 3)
    if closed:
        stream.split(SHARD)
    part = ShardRange(SHARD, TRIM_HORIZON, after(str(stream._next + 1)))
    with pytest.raises(DataLossError, match=SHARD):
        list(reader(ScriptedClient(stream)).read(part))
    assert len(values(reader(ScriptedClient(stream), fail_on_data_loss=False).read(part))) == 3
    assert "Continuing, because failOnDataLoss=false" in caplog.text


# The planner's memory


def test_the_planner_forgets_shards_that_were_read_to_their_end() -> None:
    stream = ScriptedStream(2)
    spark = query(stream)
    for turn in range(12):
        put(stream, 6, begin=6 * turn)
        spark.drain()
        for shard in stream.open:
            stream.split(shard.shard_id)
        spark.drain()
        halves = [shard.shard_id for shard in stream.open]
        for left, right in zip(halves[::2], halves[1::2], strict=True):
            stream.merge(left, right)
        spark.drain()
    assert len(stream.shards) > 70
    assert len(spark.planner.remembered_shards) <= 4


def test_children_are_listed_as_soon_as_their_parent_was_read_to_its_end() -> None:
    stream = ScriptedStream(1)
    spark = query(stream, discovery_seconds=3600)
    wanted = put(stream, 5)
    spark.drain()
    spark.client.calls.clear()
    stream.now += 2
    stream.split(SHARD)
    wanted += put(stream, 5, begin=5)
    # The children are not listed yet; the parent's null iterator shows its end.
    spark.drain()
    assert sorted(spark.values) == wanted
    assert spark.client.calls["list_shards"] == 1


# Triggers


@pytest.mark.parametrize("with_start", [False, True])
@pytest.mark.parametrize("caps", [{}, {"max_records": 7}, {"max_seconds": 2}])
def test_available_now_ends_at_the_tip_of_its_start_although_producers_go_on(
    with_start: bool, caps: dict[str, Any]
) -> None:
    stream = ScriptedStream(2)
    wanted = put(stream, 30, every=0.3, key="a") + put(stream, 20, key="b", begin=30)
    spark = query(stream, with_start=with_start, **caps)
    spark.reader.prepareForTriggerAvailableNow()
    later = put(stream, 20, key="a", begin=50)
    stream.split(SHARD)
    while spark.step():
        assert len(later) < 500, "it follows the producers"
        later += put(stream, 3, key="b", begin=50 + len(later))
        # Spark may call it again; the tip stays.
        spark.reader.prepareForTriggerAvailableNow()
    assert sorted(spark.values) == wanted
    # The next run continues there.
    spark.restart()
    spark.drain()
    assert sorted(spark.values) == wanted + later


@dataclass
class Rows:
    max_rows: int


class Everything:
    """Replaces Spark 4.2's ReadAllAvailable."""


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark 4.2's limits, on any Spark."""
    monkeypatch.setattr(data_source, "ReadAllAvailable", Everything)
    monkeypatch.setattr(data_source, "ReadMaxRows", Rows)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(("limit", "read"), [(Everything(), 60), (Rows(5), 5), (None, 20)])
def test_once_reads_to_the_tip_past_the_caps_and_a_limit_of_sparks_counts_instead_of_the_option(
    limit: Any, read: int
) -> None:
    stream = ScriptedStream(1)
    put(stream, 60)
    spark = query(stream, max_records=20, exact_caps=True, with_start=True)
    start = spark.reader.initialOffset()
    spark.offsets.append(json.dumps(spark.reader.latestOffset(start, limit)))
    put(stream, 10, begin=60)
    assert len(spark.run_batch()) == read


def test_a_single_batch_ends_at_the_tip_of_its_planning() -> None:
    stream = ScriptedStream(1)
    wanted = put(stream, 60, every=0.5)
    spark = query(stream)
    assert spark.plan()
    put(stream, 10, begin=60)
    assert [value for _, _, value in spark.run_batch()] == wanted
