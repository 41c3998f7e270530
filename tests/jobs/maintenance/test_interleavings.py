"""The protocol of partition moves in random orders: two streams write, partitions move, any actor is killed between two
requests, and a reader through the catalog always counts right."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.common.errors import TransientError
from jobs.lake import store
from jobs.lake.ledger import Ledger, LedgerEntry, entries
from jobs.lake.partition_locations import (
    COMPACTED,
    REBUILT,
    LayoutFile,
    batch_of,
    copy_to_live_locations,
    point_to_files,
    read_layout,
)
from jobs.lake.task_report import TaskReport, WrittenFile
from jobs.maintenance import rewriter
from jobs.maintenance.compact import compaction_fill, copy_fill
from jobs.maintenance.partition_move import Mover, StoredFile
from jobs.maintenance.raw import RebuildPlan, commit_plan, execute_plan, staging_folder, unfinished_plans
from jobs.maintenance.rewriter import Rewriter
from jobs.write.processed import file_schema
from tests.helpers.examples import examples
from tests.helpers.interleaving_stage import Actor, AtOnce, SharedState, SteppedCatalog, SteppedLake, as_file
from tests.helpers.samples import TRAVEL_TIMES

NOW = datetime(2026, 11, 24, tzinfo=UTC)
GRACE = timedelta(seconds=60)
PARTITIONS = ["city=a/start_date=2016-09-03", "city=b/start_date=2016-09-03"]
SCHEMA = file_schema(TRAVEL_TIMES)
Row = tuple[str, str]  # batch, sequence number


@pytest.fixture(autouse=True, scope="module")
def one_request_at_a_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ThreadPoolExecutor", AtOnce)
        patch.setattr(rewriter, "ThreadPoolExecutor", AtOnce)
        yield


@cache
def parquet(batch: str, sequences: tuple[str, ...]) -> bytes:
    rows = {"sequence_number": sequences, "batch": [batch] * len(sequences)}
    columns = [pa.array(rows.get(field.name, [None] * len(sequences)), field.type) for field in SCHEMA]
    out = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), out)
    return out.getvalue()


@cache
def rows_in(content: bytes) -> tuple[Row, ...]:
    found = pq.read_table(io.BytesIO(content), columns=["batch", "sequence_number"]).to_pylist()
    return tuple((row["batch"], row["sequence_number"]) for row in found)


def rows_of(batch: str, partition: str) -> tuple[str, ...]:
    return tuple(f"{partition[5]}{number}" for number in range(3 if batch.endswith("1") else 2))


class World:
    """The lake, its actors, and the errors that the reader found."""

    def __init__(self, chance: random.Random, batches: int) -> None:
        self.store, self.chance, self.batches = SharedState(), chance, batches
        self.now = NOW
        self.polls = 0
        self.polling = False
        self.moves = 0
        self.errors: list[str] = []

    # The streaming job, with the steps of jobs.stream; its tasks' files are written one by one.
    def stream(self, query: str, after_crash: bool, actor: Actor) -> None:
        lake, catalog = SteppedLake(self.store, actor.step), SteppedCatalog(self.store, actor.step)
        layouts, ledger, layout = LayoutFile(lake, "processed"), Ledger(lake, query), None
        for batch in range(self.batches):
            if ledger.entry(batch) is not None:
                continue
            if after_crash:
                ledger.remove_leftovers(batch)
                after_crash = False
            layout = layout or layouts.read()
            report = TaskReport()
            # Another deployment may split a batch differently: its leftovers then have other names.
            tasks = self.chance.randint(1, 3)
            for partition in PARTITIONS:
                if (batch + len(partition)) % 5 == 0:
                    continue
                sequences = rows_of(f"{query}-{batch}", partition)
                for task in range(tasks):
                    content = parquet(f"{query}-{batch}", sequences[task::tasks])
                    path = f"{layout.location(partition).current}{query}-{batch}-{task:05d}-000.parquet"
                    lake.put(path, as_file(content))
                    report.files.append(WrittenFile("processed", path, partition, 1, len(content)))
            layout = copy_to_live_locations(lake, layouts, report, "processed", lambda: None)
            folders = report.partitions("processed")
            catalog.register("processed", folders, layout.relocated)
            ledger.commit(LedgerEntry(query, batch, "s", NOW, NOW, report, {"processed": folders}, {}))

    # Compaction, with the steps of jobs.maintenance.compact.
    def compact(self, wait_seconds: float, actor: Actor) -> None:
        lake, catalog = SteppedLake(self.store, actor.step), SteppedCatalog(self.store, actor.step)
        mover = self.mover(lake, catalog, wait_seconds, actor)
        self.moves += 1
        mover.recover()
        mover.sweep(GRACE)
        rewriter = Rewriter(lake, TRAVEL_TIMES, "processed", COMPACTED, "none", 1 << 30)
        if self.chance.random() < 0.5:
            with contextlib.suppress(TransientError):  # a batch is running: a later run completes the rebuild
                self.rebuild(lake, mover, dataclasses.replace(rewriter, prefix=REBUILT))
            return
        mover.move([name for name in PARTITIONS if name in self.store.locations], compaction_fill(rewriter))
        mover.sweep(GRACE)
        mover.move([name for name in PARTITIONS if mover.can_restore_default(name)], copy_fill(lake))

    # movement replay --raw, with the steps of jobs.maintenance.raw, under a contract that makes the same rows.
    def rebuild(self, lake: SteppedLake, mover: Mover, rewriter: Rewriter) -> None:
        for plan in unfinished_plans(lake):
            list(execute_plan(lake, plan, mover, rewriter))
        chosen = [entry for entry in entries(lake) if self.chance.random() < 0.5]
        run, staged = f"r{self.moves}", dict[str, list[StoredFile]]()
        for entry in chosen:
            batch = entry.name
            for partition in entry.partitions["processed"]:
                content = parquet(batch, rows_of(batch, partition))
                path = f"{staging_folder(run)}processed/{partition}/{batch}-00000-000.parquet"
                lake.put(path, as_file(content))
                staged.setdefault(partition, []).append(StoredFile(path, len(content)))
        if chosen:
            plan = RebuildPlan(run, chosen, staged, [], [])
            commit_plan(lake, plan)
            list(execute_plan(lake, plan, mover, rewriter))

    # One move of everything, and the recovery of a dead run.
    def move_all(self, actor: Actor) -> None:
        lake, catalog = SteppedLake(self.store, actor.step), SteppedCatalog(self.store, actor.step)
        mover = self.mover(lake, catalog, 0.0, actor)
        mover.recover()
        mover.move(PARTITIONS, compaction_fill(Rewriter(lake, TRAVEL_TIMES, "processed", COMPACTED, "none", 1 << 30)))

    # What `movement catalog repair` and the streaming job do with partitions that the catalog has elsewhere.
    def repair(self, actor: Actor) -> None:
        lake, catalog = SteppedLake(self.store, actor.step), SteppedCatalog(self.store, actor.step)
        point_to_files(lambda: read_layout(lake, "processed"), PARTITIONS, catalog.point)

    # A run that finds nothing to compact.
    def tidy(self, actor: Actor) -> None:
        lake, catalog = SteppedLake(self.store, actor.step), SteppedCatalog(self.store, actor.step)
        mover = self.mover(lake, catalog, 0.0, actor)
        self.moves += 1
        mover.recover()
        mover.sweep(GRACE)
        for plan in unfinished_plans(lake):
            rewriter = Rewriter(lake, TRAVEL_TIMES, "processed", REBUILT, "none", 1 << 30)
            list(execute_plan(lake, plan, mover, rewriter))
        mover.move([name for name in PARTITIONS if mover.can_restore_default(name)], copy_fill(lake))

    def mover(self, lake: SteppedLake, catalog: SteppedCatalog, wait_seconds: float, actor: Actor) -> Mover:
        return Mover(
            lake, catalog, "processed", lambda: None, wait_seconds=wait_seconds, now=lambda: self.now,
            sleep=lambda _: actor.step(),
        )  # fmt: skip

    # A reader through the catalog: GetPartitions, list each location, read each file.
    def poll(self, actor: Actor) -> None:
        lake, catalog = SteppedLake(self.store, actor.step), SteppedCatalog(self.store, actor.step)
        self.polling = True
        actor.step()
        final, batches = self.final_rows(), self.final_batches()
        found: Counter[Row] = Counter()
        for location in catalog.locations("processed").values():
            for path, _ in lake.list(location.removeprefix("memory:/")):
                content = lake.get(path)
                if content is not None:
                    found.update(rows_in(content))
                elif batch_of(path) is None or batch_of(path) in batches:
                    self.errors.append(f"{path} was deleted under the reader")
        self.polling = False
        self.polls += 1
        self.errors += [f"{row} counted {count} times" for row, count in found.items() if count > 1]
        self.errors += [f"{row} is missing" for row in final if row not in found]

    def final_batches(self) -> set[str]:
        paths = [path.split("/") for path in self.store.files if path.startswith("_ledger/")]
        return {f"{query}-{name.removesuffix('.json')}" for _, query, name in paths}

    def final_rows(self) -> list[Row]:
        return [
            (batch, sequence)
            for batch in sorted(self.final_batches())
            for partition in PARTITIONS
            if (int(batch.rpartition("-")[2]) + len(partition)) % 5
            for sequence in rows_of(batch, partition)
        ]

    def run(self, kills: float, compactions: int, wait_seconds: float) -> None:
        """Runs until the streams have ended and partitions have moved `compactions` times, with a reader throughout."""
        writers = {query: Actor(query, partial(self.stream, query, False)) for query in ("qa", "qb")}
        mover = Actor("mover", partial(self.compact, wait_seconds))
        reader = Actor("reader", self.poll)
        while any(not actor.done for actor in writers.values()) or self.moves <= compactions or not mover.done:
            actor = self.chance.choice([*writers.values(), mover, mover, reader])
            if actor is reader and reader.done:
                reader = Actor("reader", self.poll)
            elif actor is mover and mover.done:
                if not self.polling:
                    self.now += GRACE  # every reader ends within the grace time
                mover = Actor("mover", partial(self.compact, wait_seconds))
            elif actor.done:
                continue
            elif actor is not reader and self.chance.random() < kills:
                actor.kill()
                if actor is mover:
                    mover = Actor("mover", partial(self.compact, wait_seconds))
                else:
                    writers[actor.name] = Actor(actor.name, partial(self.stream, actor.name, True))
            else:
                # Often one actor gets far ahead: some races need many steps of it between two steps of another.
                for _ in range(self.chance.choice([1, 1, 1, 5, 80])):
                    actor.turn()
                    if actor.done:
                        break
            assert not self.errors, self.errors
        self.end(reader)

    def end(self, reader: Actor) -> None:
        """With all actors at rest: reads the lake, cleans it up and reads it again."""
        while not reader.done:
            reader.turn()
        for _ in range(4):
            self.now += GRACE
            for act in (self.tidy, self.poll):
                actor = Actor("last", act)
                while not actor.done:
                    actor.turn()
        assert not self.errors, self.errors
        assert len(self.final_batches()) == 2 * self.batches
        # All partitions are in their default folders, and no other files remain.
        data = [path for path in self.store.files if not path.startswith("_")]
        assert all(path.startswith("processed/") for path in data), data
        assert Counter(row for path in data for row in rows_in(self.store.files[path])) == Counter(self.final_rows())
        assert self.store.locations == {name: f"processed/{name}/" for name in PARTITIONS}


@settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    batches=st.integers(1, 4),
    kills=st.sampled_from([0.0, 0.01, 0.05]),
    compactions=st.integers(1, 4),
    wait_seconds=st.sampled_from([0.0, 1000.0]),
)
def test_a_reader_through_the_catalog_never_counts_wrong(
    seed: int, batches: int, kills: float, compactions: int, wait_seconds: float
) -> None:
    World(random.Random(seed), batches).run(kills, compactions, wait_seconds)


def run_to_end(actor: Actor) -> None:
    while not actor.done:
        actor.turn()


def world_with_a_batch() -> World:
    world = World(random.Random(3), batches=2)
    run_to_end(Actor("qa", partial(world.stream, "qa", False)))
    return world


@cache
def steps_of_a_move() -> int:
    world = world_with_a_batch()
    mover = Actor("mover", world.move_all)
    run_to_end(mover)
    return mover.steps


@pytest.mark.parametrize("later", range(0, 12, 3))
def test_after_a_kill_at_each_request_a_batch_and_a_reader_may_run_at_any_moment_of_the_next_run(later: int) -> None:
    for killed_at in range(1, steps_of_a_move() + 2):
        for more in range(later, later + 3):
            world = world_with_a_batch()
            first = Actor("first", world.move_all)
            for _ in range(killed_at):
                if not first.done:
                    first.turn()
            if not first.done:
                first.kill()
            second = Actor("second", world.move_all)
            for _ in range(more):
                if not second.done:
                    second.turn()
            run_to_end(Actor("qb", partial(world.stream, "qb", False)))
            run_to_end(Actor("reader", world.poll))
            assert not world.errors, (killed_at, more, world.errors)
            run_to_end(second)
            run_to_end(Actor("reader", world.poll))
            assert not world.errors, (killed_at, more, world.errors)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_repair_beside_a_move_leaves_the_catalog_where_the_files_are(seed: int) -> None:
    """A crawler points both partitions elsewhere at a drawn moment; repair and move then take turns."""
    chance, world = random.Random(seed), world_with_a_batch()
    mover = Actor("mover", world.move_all)
    for _ in range(chance.randrange(steps_of_a_move())):
        mover.turn()
    world.store.locations.update(dict.fromkeys(PARTITIONS, "processed/nowhere/"))
    actors = [mover, Actor("repair", world.repair)]
    while actors := [actor for actor in actors if not actor.done]:
        actor = chance.choice(actors)
        for _ in range(chance.choice([1, 1, 2, 5])):
            if not actor.done:
                actor.turn()
    layout = read_layout(SteppedLake(world.store, lambda: None), "processed")
    assert world.store.locations == {name: layout.location(name).for_readers for name in PARTITIONS}
