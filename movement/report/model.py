"""The data of the report page, independent of where it was read and how it is drawn.

Travel times are whole seconds; `NONE` is a missing value. A zone is a number: its index in the city's list of zones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

NONE = -(2**31)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Zones:
    """A city's zones, by number: id, name and geometry (JSON, as in the export), each None if unknown."""

    ids: list[str]
    names: list[str | None]
    geometry: list[str | None]


@dataclass(frozen=True)
class Summary:
    """A city's figures of one date range, from the gold table `city_summary`: seconds, and reliability as a share."""

    mean: float | None
    median: float | None
    p90: float | None
    reliability: float | None


@dataclass(frozen=True)
class Slice:
    """The corridors of one city and date range, sorted by origin and destination. The arrays have one length.

    `total`: the corridors in the lake; greater than the arrays' length if the slice was cut.
    """

    date_range: str
    start_date: date | None
    end_date: date | None
    day_filter: str | None
    time_filter: str | None
    origin: Ints
    destination: Ints
    mean: Ints
    lower: Ints
    upper: Ints
    total: int
    summary: Summary | None = None


@dataclass(frozen=True)
class City:
    """A city with its slices, the newest period first."""

    name: str
    zones: Zones
    slices: list[Slice]


@dataclass(frozen=True)
class Gold:
    """The gold tables. `version` changes with each change of a table.

    `total`: corridors in the lake; `left_out`: "city, date range" of each slice beyond the limit.
    """

    version: str
    cities: list[City]
    rows: int
    total: int
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GoldTable:
    """A gold table of the contract. Rows, files and bytes are None if it has not been computed yet."""

    name: str
    kind: str
    comment: str
    rows: int | None
    files: int | None
    bytes: int | None


@dataclass(frozen=True)
class Batch:
    """A micro-batch, from its ledger entry. Times are UTC.

    `lag`: seconds from the arrival of a shard's last record to the end of the batch, of the slowest shard; for example
    3.0 if that record arrived at 12:00:00 and the batch ended at 12:00:03. None if the ledger has no arrival times.
    `quarantined`: its rejected records, of which `replayed` were sent to the stream again.
    """

    query: str
    number: int
    started_at: datetime
    finished_at: datetime
    read: int
    read_bytes: int
    processed: int
    quarantined: int
    replayed: int
    lag: float | None
    alarms: list[str]


@dataclass
class Partition:
    """A partition of processed/. `rows` is None if only a part of the ledger was read."""

    name: str
    files: int = 0
    bytes: int = 0
    rows: int | None = None


@dataclass(frozen=True)
class Pipeline:
    """The state of the pipeline. `batches`: the latest of `batches_total` in the ledger, oldest first.

    `layers`: (files, bytes) by folder; `sizes`: sizes of the processed files; `listed_all`: whether the listing ended
    before the limit; `parity`: the last check's result, None if there is none.
    """

    batches: list[Batch]
    batches_total: int
    reasons: dict[str, int]
    partitions: list[Partition]
    layers: dict[str, tuple[int, int]]
    sizes: list[int]
    listed_all: bool
    batch_runs: int
    parity: dict[str, Any] | None


@dataclass(frozen=True)
class ReportData:
    """The whole report.

    gold     the travel times; None if there are no gold tables of them yet
    tables   every gold table of the contract
    has_map  whether the page has the section with travel times and map
    """

    generated_at: datetime
    stream: str
    lake: str
    database: str
    gold: Gold | None
    pipeline: Pipeline
    tables: list[GoldTable] = field(default_factory=list)
    has_map: bool = True
