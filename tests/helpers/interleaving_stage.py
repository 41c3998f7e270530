"""Runs protocols step by step: actors write, move and read one lake in memory, in an order that the test chooses.

A step is one request to the lake or the catalog. Between two steps of an actor, any other actor may step, or the
actor may be killed. Each actor has a thread; only one runs at a time.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

STUCK_SECONDS = 30


class Killed(BaseException):
    """Simulates kill -9: no further request of the actor reaches the lake."""


class Actor:
    """Code that runs step by step: each request calls `step`, which waits for the actor's turn."""

    def __init__(self, name: str, act: Callable[[Actor], None]) -> None:
        self.name = name
        self.done = False
        self.killed = False
        self.error: BaseException | None = None
        self.steps = 0
        self._go, self._parked = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(act,), name=name, daemon=True)
        self._thread.start()

    def _run(self, act: Callable[[Actor], None]) -> None:
        self._go.acquire()
        try:
            act(self)
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - `turn` raises it
            self.error = error
        self.done = True
        self._parked.release()

    def step(self) -> None:
        """Called by the actor before each request."""
        if self.killed:
            raise Killed
        self._parked.release()
        assert self._go.acquire(timeout=STUCK_SECONDS), "no turn for the actor"
        if self.killed:
            raise Killed
        self.steps += 1

    def turn(self) -> None:
        """Lets the actor take one step. Returns when it waits for its next turn or has ended."""
        self._go.release()
        assert self._parked.acquire(timeout=STUCK_SECONDS), f"{self.name} does not return from its step"
        if self.error is not None:
            raise self.error

    def kill(self) -> None:
        """Ends the actor before its next request."""
        self.killed = True
        self.turn()
        assert self.done


class SharedState:
    """The shared state: files by path, and the catalog's locations by partition."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.locations: dict[str, str] = {}


class SteppedLake:
    """The lake as one actor sees it (jobs.lake.store.Lake)."""

    uri = "memory:"

    def __init__(self, store: SharedState, step: Callable[[], None]) -> None:
        self._files, self._step = store.files, step

    def put(self, path: str, content: BinaryIO) -> None:
        data = content.read()
        self._step()
        self._files[path] = data

    def put_if_absent(self, path: str, content: bytes) -> bool:
        self._step()
        return self._files.setdefault(path, content) == content

    def replace(self, path: str, expected: bytes, content: bytes) -> bool:
        self._step()
        if self._files.get(path) == expected:
            self._files[path] = content
        return self._files.get(path) == content

    def get(self, path: str) -> bytes | None:
        self._step()
        return self._files.get(path)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        self._step()
        return iter([(path, len(data)) for path, data in sorted(self._files.items()) if path.startswith(prefix)])

    def copy(self, source: str, target: str) -> bool:
        self._step()
        if source not in self._files:
            return False
        self._files[target] = self._files[source]
        return True

    def delete(self, paths: Iterable[str]) -> None:
        # One step per file: a DeleteObjects request is not atomic.
        for path in paths:
            self._step()
            self._files.pop(path, None)

    def clear_drafts(self) -> None:
        """No drafts in memory."""


class SteppedCatalog:
    """The catalog as one actor sees it: partition → location, relative to the lake."""

    root = "memory:"

    def __init__(self, store: SharedState, step: Callable[[], None]) -> None:
        self._locations, self._step = store.locations, step

    def register(self, table: str, partitions: Iterable[str], locations: dict[str, str]) -> None:
        self._step()
        for partition in partitions:
            self._locations.setdefault(partition, locations.get(partition) or f"{table}/{partition}/")

    def relocate(self, _table: str, partition: str, location: str) -> None:
        self._step()
        self._locations[partition] = location

    def point(self, wanted: Mapping[str, str]) -> None:
        """As GlueCatalog does it: looks the partitions up, then updates those that differ."""
        self._step()
        differ = {name: location for name, location in wanted.items() if self._locations.get(name) != location}
        if differ:
            self._step()
            self._locations.update(differ)

    def locations(self, _table: str) -> dict[str, str]:
        self._step()
        return {partition: f"{self.root}/{location}" for partition, location in self._locations.items()}


class AtOnce:
    """Replaces ThreadPoolExecutor: an actor's requests run one after the other, always in the same order."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> AtOnce:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, call: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        return [call(*given) for given in zip(*arguments, strict=True)]

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Any:
        found = call(*arguments)
        return type("Future", (), {"result": lambda _: found})()


def as_file(content: bytes) -> BinaryIO:
    return io.BytesIO(content)
