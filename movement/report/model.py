"""What the page shows, apart from where it was read and from how it is drawn.

Times of travel are whole seconds; `NONE` stands where there is no value. Zones are numbers: positions in the
city's list of zones.
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
    """A city's zones, by number: id, name and geometry (JSON, as in the export), each None where there is none."""

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
    """The corridors of one city and date range, sorted by origin and destination. The arrays are equally long.

    `total`: the corridors that the lake holds of it, more than the arrays where the slice was cut.
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
    """The gold tables. `version` changes whenever a table does.

    `total`: corridors in the lake; `left_out`: "city, date range" of the slices that the limit had no room for.
    """

    version: str
    cities: list[City]
    rows: int
    total: int
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """A micro-batch, from its ledger entry. Times are UTC, `lag`: how many seconds before its end its last record
    had arrived, of the slowest shard; None where the ledger does not say."""

    query: str
    number: int
    started_at: datetime
    finished_at: datetime
    read: int
    read_bytes: int
    processed: int
    quarantined: int
    lag: float | None
    alarms: list[str]


@dataclass
class Partition:
    """A partition of the processed layer as it lies in the lake; `rows` None where the ledger was not read whole."""

    name: str
    files: int = 0
    bytes: int = 0
    rows: int | None = None


@dataclass(frozen=True)
class Pipeline:
    """How the pipeline does. `batches` are the latest, oldest first, of `batches_total` in the ledger.

    `layers`: folder → (files, bytes); `sizes`: sizes of the processed files; `listed_all`: whether the listing came
    to its end before the limit. `parity`: the last check's result, None where none was kept.
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
    """All of it. `gold` is None where there are no gold tables yet."""

    generated_at: datetime
    stream: str
    lake: str
    database: str
    gold: Gold | None
    pipeline: Pipeline
