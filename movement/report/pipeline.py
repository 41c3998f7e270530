"""Reads the pipeline's state, `model.Pipeline`, from the ledger and the listing of the lake.

It reads at most the latest `max_batches` entries and lists at most `MAX_LISTED` objects a layer. Entries do not change,
so the live page's reader fetches each entry once. AWS calls: ListObjectsV2, and GetObject of ledger entries, of the
last parity check and, if records were rejected, of the replay journal and of replayed quarantine files.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from jobs.common.errors import TerminalError
from jobs.lake.ledger import BATCH_PATH, LedgerEntry, decode_entry
from jobs.lake.replayed import ReplayedRecords
from jobs.lake.store import Lake, parallel_map
from jobs.lake.table_files import live_files
from jobs.parity.job import RESULT_PATH
from movement.report.model import Batch, Partition, Pipeline

MAX_LISTED = 200_000
LISTING_SECONDS = 60.0
_LAYERS = ("raw", "processed", "quarantine", "processed_batch", "gold")


class _Listing(msgspec.Struct):
    """The lake's files.

    layers       by layer: number of files, bytes
    partitions   the processed partitions by name
    sizes        bytes of each processed file
    complete     whether the listing ended before MAX_LISTED
    """

    layers: dict[str, tuple[int, int]]
    partitions: dict[str, Partition]
    sizes: list[int]
    complete: bool


class PipelineReader:
    """Reads one lake's pipeline, repeatedly.

    Raises AwsAccessError or TransientError if S3 does not answer, TerminalError for an unreadable ledger entry.
    """

    def __init__(self, lake: Lake, max_batches: int) -> None:
        self._lake = lake
        self._max_batches = max_batches
        self._entries: dict[str, LedgerEntry] = {}
        self._replayed = ReplayedRecords(lake)
        self._lock = threading.Lock()
        self._listed: _Listing | None = None
        self._listed_at = 0.0

    def read(self) -> Pipeline:
        """The current state of the pipeline."""
        with self._lock:
            return self._read()

    def _read(self) -> Pipeline:
        paths: dict[str, list[int]] = {}
        for path, _ in self._lake.list("_ledger/"):
            _, query, name = path.split("/", 2)
            number = name.removesuffix(".json")
            if number.isdecimal():
                paths.setdefault(query, []).append(int(number))
        batch_runs = len(paths.pop(BATCH_PATH, []))
        total = sum(map(len, paths.values()))
        latest = [
            f"_ledger/{query}/{number}.json"
            for query, numbers in paths.items()
            for number in sorted(numbers)[-self._max_batches :]
        ]
        entries = sorted(self._fetch(latest), key=lambda entry: entry.finished_at)[-self._max_batches :]
        listing = self._listing()
        partitions = {name: replace(found) for name, found in listing.partitions.items()}
        if len(entries) == total:
            _add_rows(partitions, entries)
        replayed = self._replayed.by_reason(entries)
        reasons: Counter[str] = Counter()
        for entry in entries:
            reasons += Counter(entry.report.reasons) - replayed.get(entry.name, Counter())
        return Pipeline(
            batches=[_batch(entry, replayed.get(entry.name, Counter()).total()) for entry in entries],
            batches_total=total,
            reasons=dict(reasons.most_common()),
            partitions=sorted(partitions.values(), key=lambda partition: partition.name),
            layers=listing.layers,
            sizes=listing.sizes,
            listed_all=listing.complete,
            batch_runs=batch_runs,
            parity=self._parity(),
        )

    def _fetch(self, paths: list[str]) -> list[LedgerEntry]:
        missing = [path for path in paths if path not in self._entries]
        contents = parallel_map(self._lake.get, missing)
        fetched = {path: _entry(path, content) for path, content in zip(missing, contents, strict=True) if content}
        # Older entries are dropped, so that a page that stays open for months does not grow.
        self._entries = {path: self._entries[path] for path in paths if path in self._entries} | fetched
        return list(self._entries.values())

    def _listing(self) -> _Listing:
        """The files of the lake. Listed at most once a minute, because 1,000 files take a request."""
        if self._listed is None or time.monotonic() - self._listed_at >= LISTING_SECONDS:
            self._listed, self._listed_at = _list(self._lake), time.monotonic()
        return self._listed

    def _parity(self) -> dict[str, Any] | None:
        content = self._lake.get(RESULT_PATH)
        if content is None:
            return None
        try:
            found: dict[str, Any] = msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise TerminalError(f"{self._lake.uri}/{RESULT_PATH} is not readable: {error}; delete it") from error
        return found


def _entry(path: str, content: bytes) -> LedgerEntry:
    try:
        return decode_entry(content)
    except msgspec.DecodeError as error:
        raise TerminalError(f"{path} is not readable as a ledger entry: {error}") from error


def _batch(entry: LedgerEntry, replayed: int) -> Batch:
    report = entry.report
    return Batch(
        query=entry.query,
        number=entry.batch,
        started_at=entry.started_at,
        finished_at=entry.finished_at,
        read=report.read,
        read_bytes=report.read_bytes,
        processed=report.processed,
        quarantined=report.quarantined,
        replayed=replayed,
        lag=None if entry.age is None else entry.age / 1000,
        alarms=entry.alarms,
    )


def _list(lake: Lake) -> _Listing:
    found = _Listing({}, {}, [], True)
    for layer in _LAYERS:
        listed = files = size = 0
        if layer == "processed":
            named: Iterable[tuple[str, str, int]] = live_files(lake, layer)
        else:
            named = (("", path, length) for path, length in lake.list(f"{layer}/"))
        for name, path, length in itertools.islice(named, MAX_LISTED):
            listed += 1
            if "/_" in path:  # Delta's own files
                continue
            files, size = files + 1, size + length
            if name:
                found.sizes.append(length)
                partition = found.partitions.setdefault(name, Partition(name))
                partition.files, partition.bytes = partition.files + 1, partition.bytes + length
        found.layers[layer] = (files, size)
        found.complete = found.complete and listed < MAX_LISTED
    return found


def _add_rows(partitions: dict[str, Partition], entries: Iterable[LedgerEntry]) -> None:
    for entry in entries:
        for file in entry.report.files:
            if file.kind == "processed" and file.partition in partitions:
                partition = partitions[file.partition]
                partition.rows = (partition.rows or 0) + file.rows
