"""What `write_batch` needs of Spark, in this process: tasks one after the other, a shuffle that mixes all rows."""

from __future__ import annotations

import pickle
import random
from typing import Any

import pyarrow as pa


class FakeFrame:
    """What `write_batch` uses of a DataFrame: stages run in this process, with a shuffle that mixes all rows."""

    def __init__(self, session: FakeSession, tasks: list[list[pa.RecordBatch]]) -> None:
        self.sparkSession = session
        self.rdd = self
        self._tasks = tasks

    def getNumPartitions(self) -> int:
        return len(self._tasks)

    def mapInArrow(self, function: Any, _schema: str) -> FakeFrame:
        found = []
        for number, batches in enumerate(self._tasks):
            self.sparkSession.task = number
            found.append(list(pickle.loads(pickle.dumps(function))(iter(batches))))
        return FakeFrame(self.sparkSession, found)

    def repartition(self, count: int, column: str) -> FakeFrame:
        rows = [row for task in self._tasks for row in task]
        self.sparkSession.chance.shuffle(rows)
        tasks: list[list[pa.RecordBatch]] = [[] for _ in range(count)]
        for row in rows:
            tasks[sum(row[column][0].as_py().encode()) % count].append(row)
        return FakeFrame(self.sparkSession, tasks)

    def collect(self) -> list[Any]:
        return [Row(row["report"][0].as_py()) for task in self._tasks for row in task]


class Row:
    def __init__(self, report: bytes) -> None:
        self.report = report


class FakeSession:
    """The session of a FakeFrame. `task`: the number of the task that runs."""

    def __init__(self, seed: int = 0) -> None:
        self.task = 0
        self.chance = random.Random(seed)
        self.defaultParallelism = 2
        self.sparkContext = self.conf = self

    def getLocalProperty(self, _key: str) -> str:
        return "3f2a91b0-7c44-4000-8000-000000000000"

    def set(self, _key: str, _value: str) -> None:
        return None

    def range(self, start: int, end: int, _step: int, tasks: int) -> FakeFrame:
        numbers = [list(range(start + task, end, tasks)) for task in range(tasks)]
        return FakeFrame(self, [[pa.record_batch({"id": pa.array(each, pa.int64())})] for each in numbers])
