"""The bound of new partitions: who gets in, nothing lost or doubled, and the same decision when a batch is repeated."""

from __future__ import annotations

import gzip
import json
import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.lake.partition_locations import partitions_in_lake
from jobs.lake.store import FolderLake
from jobs.lake.task_report import NewPartitions, TaskReport
from jobs.schema.rejections import TOO_MANY_PARTITIONS
from jobs.settings.sections import SinkSettings
from jobs.write import new_partitions
from jobs.write.merge_small_files import write_batch
from jobs.write.new_partitions import (
    KnownPartitions,
    PartitionLimit,
    admitted,
    alarm,
    remove_held,
)
from jobs.write.task import WriteTask
from tests.helpers.examples import examples
from tests.helpers.fake_frames import FakeFrame, FakeSession
from tests.helpers.samples import TRAVEL_TIMES, arrived, good


def write(
    lake: Path,
    tasks: list[pa.RecordBatch],
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    known: tuple[str, ...] = (),
    seed: int = 0,
    **sink: int,
) -> TaskReport:
    session = FakeSession(seed)
    for module in ("jobs.write.task", "jobs.write.merge_small_files"):
        monkeypatch.setattr(f"{module}.task_number", lambda: session.task)
    task = WriteTask(
        str(lake), "q-7", TRAVEL_TIMES, SinkSettings(**sink), limit=PartitionLimit(KnownPartitions(known), limit)
    )
    return write_batch(FakeFrame(session, [[each] for each in tasks]), task)  # type: ignore[arg-type]


def records(cities: list[str], task: int = 0) -> pa.RecordBatch:
    made = [b"not JSON" if city == "!" else good(City=city, extra=city) for city in cities]
    return arrived(made, shard=f"shard-{task}", first=1000 * task + 1)


def folder(city: str) -> str:
    return f"city={city}/start_date=2016-09-03"


def processed(lake: Path) -> Counter[str]:
    """By city: the rows in the lake."""
    return Counter(
        {
            city.name.removeprefix("city="): sum(pq.read_metadata(file).num_rows for file in city.rglob("*.parquet"))
            for city in (lake / "processed").glob("*")
        }
    )


def quarantined(lake: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in sorted((lake / "quarantine").rglob("*.gz"))
        for line in gzip.decompress(file.read_bytes()).splitlines()
    ]


def contents(lake: Path) -> dict[str, bytes]:
    return {file.relative_to(lake).as_posix(): file.read_bytes() for file in lake.rglob("*.*") if file.is_file()}


def test_an_explosion_writes_the_known_partitions_and_as_many_new_ones_as_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [records(["Paris"] * 5 + ["Lima"] * 3 + [f"x{task}-{n}" for n in range(10)], task) for task in range(3)]
    report = write(tmp_path, tasks, 2, monkeypatch, known=(folder("Paris"),))
    # Lima has 9 records and every other new city one: share 2 // 6 = 0, so the greatest are chosen.
    assert processed(tmp_path) == {"Paris": 15, "Lima": 9, "x0-0": 1}
    lines = quarantined(tmp_path)
    assert {line["reason"] for line in lines} == {TOO_MANY_PARTITIONS}
    assert len(lines) == 29
    assert lines[0]["value"].startswith("city=x")
    assert json.loads(lines[0]["payload"])["City"] in lines[0]["value"]
    assert (report.read, report.raw, report.processed, report.quarantined) == (54, 54, 25, 29)
    assert report.reasons == {TOO_MANY_PARTITIONS: 29}
    assert report.rescued == 25
    assert not list((tmp_path / "_held").rglob("*.arrow"))
    (text,) = alarm(report, "q-7", 2)
    assert "for up to 31 new partitions" in text
    assert "29 records" in text


def test_as_many_new_partitions_as_are_allowed_are_all_written_however_they_are_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each task sees all ten; its share is one.
    tasks = [records([f"c{(n + task) % 10}" for n in range(30)], task) for task in range(5)]
    report = write(tmp_path, tasks, 10, monkeypatch)
    assert processed(tmp_path) == {f"c{n}": 15 for n in range(10)}
    assert report.quarantined == 0
    assert report.read == report.raw == report.processed == 150
    assert alarm(report, "q-7", 10) == []


def test_a_batch_without_held_records_has_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_partitions.PartitionGate, "refuse", None)
    report = write(tmp_path, [records(["a", "b"]), records(["b", "c"], 1)], 8, monkeypatch)
    assert report.new_partitions == NewPartitions(written=[folder(city) for city in "abc"])
    assert {name.rpartition("/")[2][:9] for name in contents(tmp_path)} == {"q-7-00002"}


@pytest.mark.parametrize("small", [0, 1024, 33554432], ids=["each task's own files", "large files", "merged"])
def test_a_repeated_batch_writes_the_same_bytes_whatever_the_order_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(new_partitions, "FILE_BYTES", 2000)
    chance = random.Random(1)
    tasks = [records(["!" if n % 9 == 4 else f"c{chance.randrange(15)}" for n in range(60)], task) for task in range(3)]
    found = []
    for seed in range(2):
        report = write(
            tmp_path / str(seed), tasks, 7, monkeypatch, known=(folder("c3"),), seed=seed, small_file_bytes=small
        )
        found.append(contents(tmp_path / str(seed)))
        assert {file.path for file in report.files} == set(found[-1])
    assert found[0] == found[1]


@pytest.mark.parametrize("dies_at", ["the first pass", "the second pass"])
def test_a_batch_that_died_decides_the_same_when_it_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    tasks = [records([f"c{n % (12 + task)}" for n in range(30)], task) for task in range(3)]
    whole = tmp_path / "whole"
    write(whole, tasks, 7, monkeypatch)

    lake = tmp_path / "lake"
    number = {"the first pass": 5, "the second pass": 16}[dies_at]
    puts, put = [0], FolderLake.put

    def dying(self: FolderLake, path: str, content: Any) -> None:
        puts[0] += 1
        if puts[0] == number:
            raise KeyboardInterrupt
        put(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(FolderLake, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            write(lake, tasks, 7, patch, small_file_bytes=0)
    assert (dies_at == "the second pass") == any("-00004-" in path for path in contents(lake))
    left = [path for path in contents(lake) if not path.startswith("_held")]
    FolderLake(str(lake)).delete(left)  # what `Ledger.remove_leftovers` does
    remove_held(FolderLake(str(lake)), "q")
    assert contents(lake) == {}
    # The attempt may have registered partitions in the catalog; what is known comes from the lake's files.
    known = tuple(partitions_in_lake(FolderLake(str(lake)), "processed", TRAVEL_TIMES.partition_by))
    write(lake, tasks, 7, monkeypatch, known=known)
    assert contents(lake) == contents(whole)


@settings(max_examples=examples(20), deadline=None)
@given(
    tasks=st.lists(st.lists(st.sampled_from("abcdefgh!"), max_size=12), min_size=1, max_size=4),
    limit=st.integers(1, 6),
    known=st.sets(st.sampled_from("abc")),
    small=st.sampled_from([0, 33554432]),
)
def test_no_record_is_lost_or_doubled_and_the_bound_holds(
    tmp_path_factory: pytest.TempPathFactory, tasks: list[list[str]], limit: int, known: set[str], small: int
) -> None:
    lake = tmp_path_factory.mktemp("lake")
    batches = [records(cities, task) for task, cities in enumerate(tasks)]
    with pytest.MonkeyPatch.context() as patch:
        report = write(lake, batches, limit, patch, known=tuple(map(folder, known)), small_file_bytes=small)
    cities = [city for task in tasks for city in task if city != "!"]
    new = set(cities) - known
    rows = processed(lake)
    assert len(set(rows) - known) == min(limit, len(new))
    assert all(rows[city] == cities.count(city) for city in rows), "a partition is written whole or not at all"
    assert all(rows[city] for city in set(cities) & known)
    lines = Counter(line["reason"] for line in quarantined(lake))
    assert rows.total() + lines.total() == sum(map(len, tasks)) == report.read == report.raw
    assert (report.processed, report.quarantined) == (rows.total(), lines.total())
    assert +lines == +Counter(report.reasons)


def test_without_a_limit_nothing_is_held_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = WriteTask(str(tmp_path), "q-7", TRAVEL_TIMES, SinkSettings())
    report = task.write(iter([records([f"c{n}" for n in range(50)])]), "q-7-00000")
    assert report.processed == 50
    assert report.new_partitions is None


def test_the_greatest_held_partitions_are_admitted_and_written_ones_always() -> None:
    new = NewPartitions(written=["a"], held={"a": 1, "b": 5, "d": 7, "c": 7, "e": 1})
    assert admitted(new, 3) == {"a", "c", "d"}
    assert admitted(new, 5) == {"a", "b", "c", "d", "e"}


def test_known_partitions_are_the_folders_with_files_and_what_was_added(tmp_path: Path) -> None:
    for path in (
        "city=a%2Fb/start_date=2016-01-01/f.parquet",
        "city=c/start_date=2016-01-02/f.parquet",
        "_delta_log/0",
    ):
        file = tmp_path / "processed" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
    (tmp_path / "processed" / "city=empty" / "start_date=2016-01-01").mkdir(parents=True)
    found = partitions_in_lake(FolderLake(str(tmp_path)), "processed", TRAVEL_TIMES.partition_by)
    assert sorted(found) == ["city=a%2Fb/start_date=2016-01-01", "city=c/start_date=2016-01-02"]
    known = KnownPartitions(found)
    known.add(["x", "x", found[0]])
    assert len(known) == 3
    assert all(name in pickle.loads(pickle.dumps(known)) for name in [*found, "x"])
    assert "city=c" not in known
    assert "x" not in KnownPartitions()
