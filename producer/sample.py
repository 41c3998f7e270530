"""Writes synthetic export files that look like the real ones; the same seed gives the same bytes.

In: numbers of rows and cities. Out: one file for each city, named `Travel_Times - <City>.csv`. As in the real
exports, one city in three has geometry (which makes its records ten times as large), zones are neighbours, times grow
with the distance, names have non-ASCII letters, and a pair of zones occurs once in each period.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from jobs.common.errors import ConfigurationError

_CITIES = (
    "Paris", "Boston", "São Paulo", "Johannesburg and Pretoria", "Bogotá", "Manchester", "Washington DC", "Kyiv",
    "Cincinnati", "Perth", "Nairobi", "Hyderabad",
)  # fmt: skip
_STREETS = ("Rue de l'Église", "Harbour Road", "Avenida Ipiranga", "Calle 26", "0 Quai des Orfèvres", "High Street")
_QUARTERS = ("Centre", "Waterfront", "Vila Olímpia", "Hillbrow", "Chapinero", "Північ", "Fordsburg", "Old Town")
_DAYS = ("Every day", "Weekdays", "Weekends")
_TIMES = ("Daily Average", "AM Peak", "PM Peak", "Midday", "Evening", "Early Morning")
_FIRST_DAY = date(2016, 7, 31)
# Factors on the travel time; 1 at the other times of the day.
_TIME_FACTOR = {"AM Peak": 1.35, "PM Peak": 1.45, "Early Morning": 0.8}
# The south-west corner of a city with geometry, and the size of its zones, in degrees of longitude and latitude.
_CORNER, _STEP = (-71.2, 42.25), (0.02, 0.015)

_MEAN = "Mean Travel Time (Seconds)"
_LOWER = "Range - Lower Bound Travel Time (Seconds)"
_UPPER = "Range - Upper Bound Travel Time (Seconds)"
_PERIOD = "Date Range"


@dataclass(slots=True)
class Sample:
    """The files written, the number of their rows, and the number of bad rows: in total and by kind."""

    files: list[Path] = field(default_factory=list)
    rows: int = 0
    bad: int = 0
    bad_kinds: dict[str, int] = field(default_factory=dict)


_Row = dict[str, str | int]


def write_sample(rows: int, out: Path, *, cities: int = 3, seed: int = 0, bad_rate: float = 0.0) -> Sample:
    """Writes `rows` rows in all to `cities` files in the folder `out`; a share `bad_rate` (0 to 1) of them is bad.

    Exactly round(rows × bad_rate) rows are bad, at random positions. Existing files of the same names are replaced.
    Example: 7 rows and 3 cities give files of 3, 2 and 2 rows. Raises ConfigurationError for a number out of range.
    """
    if rows < 0 or cities < 1 or not 0 <= bad_rate <= 1:
        raise ConfigurationError(
            f"--rows {rows}, --cities {cities}, --bad-rate {bad_rate:g}: allowed are 0 or more rows, 1 or more cities "
            "and a rate from 0 to 1"
        )
    out.mkdir(parents=True, exist_ok=True)
    bad = set(random.Random(seed).sample(range(rows), round(rows * bad_rate)))  # noqa: S311  (test data)
    kinds: Counter[str] = Counter()
    sample = Sample(rows=rows, bad=len(bad))
    start = 0
    for index in range(cities):
        count = rows // cities + (index < rows % cities)
        file = out / f"Travel_Times - {_city(index)}.csv"
        rng = random.Random(f"{seed}/{index}")  # noqa: S311
        header, good = _header(index), _rows(rng, index, count)
        with file.open("w", encoding="utf-8", newline="") as target:
            # Like the real exports: text is quoted, numbers are not.
            writer = csv.writer(target, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            writer.writerow(header)
            for number, row in enumerate(good, start):
                if number in bad:
                    kind = rng.choice(sorted(BAD_KINDS))
                    kinds[kind] += 1
                    row |= BAD_KINDS[kind](row)
                writer.writerow([row[name] for name in header])
        sample.files.append(file)
        start += count
    sample.bad_kinds = dict(sorted(kinds.items()))
    return sample


def _city(index: int) -> str:
    repetition = index // len(_CITIES)
    return _CITIES[index % len(_CITIES)] + (f" {repetition + 1}" if repetition else "")


def _has_geometry(index: int) -> bool:
    return index % 3 == 1


def _header(index: int) -> list[str]:
    parts = ["Movement ID", "Display Name"] + (["Geometry"] if _has_geometry(index) else [])
    return [f"{end} {part}" for end in ("Origin", "Destination") for part in parts] + [_PERIOD, _MEAN, _LOWER, _UPPER]


def _rows(rng: random.Random, index: int, count: int) -> Iterator[_Row]:
    """The valid rows of a city: every pair of its zones in one period, then in the next."""
    # The number of zones grows with the rows and the number of periods does not: each start date is a partition.
    number_of_zones = max(20, math.isqrt(count // 6) + 2) - 1
    across = math.isqrt(number_of_zones) + 1
    zones = [
        (cell, _zone(rng, index, number, cell))
        for number, cell in enumerate((divmod(each, across)[::-1] for each in range(number_of_zones)), 1)
    ]
    pairs = [(origin, destination) for origin in zones for destination in zones if origin is not destination]
    periods = itertools.cycle(itertools.product(_DAYS, _TIMES, range(3)))
    made = 0
    while made < count:
        days, time, block = next(periods)
        first = _FIRST_DAY + timedelta(days=28 * block)
        period = f"{first:%m/%d/%Y} - {first + timedelta(days=28):%m/%d/%Y}, {days}, {time}"
        for (start, origin), (end, destination) in pairs[: count - made]:
            mean = int((150 + 210 * math.dist(start, end)) * _TIME_FACTOR.get(time, 1.0) * rng.uniform(0.8, 1.25))
            lower, upper = int(mean * rng.uniform(0.4, 1)), int(mean * rng.uniform(1, 2.5))
            row: _Row = {f"Origin {part}": value for part, value in origin.items()}
            row |= {f"Destination {part}": value for part, value in destination.items()}
            yield row | {_PERIOD: period, _MEAN: mean, _LOWER: lower, _UPPER: upper}
        made += len(pairs)


def _zone(rng: random.Random, index: int, number: int, cell: tuple[int, int]) -> dict[str, str]:
    city = _city(index)
    # Some names are empty in the real exports.
    name = f"{rng.choice(_STREETS)} {rng.randint(0, 999)}, {rng.choice(_QUARTERS)}, {city}"
    zone = {"Movement ID": str(number), "Display Name": "" if rng.random() < 0.01 else name}
    if _has_geometry(index):
        column, row = cell
        corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
        ring = [
            point for start, end in itertools.pairwise([*corners, corners[0]]) for point in _side(index, start, end)
        ]
        zone["Geometry"] = json.dumps([*ring, ring[0]], separators=(",", ":"))
    return zone


def _side(index: int, start: tuple[int, int], end: tuple[int, int]) -> list[list[float]]:
    """The crooked border between two neighbouring corners, without its end. Both zones at the border get the same."""
    if start > end:
        border = _border(index, end, start)
        return border[:0:-1]
    return _border(index, start, end)[:-1]


def _border(index: int, start: tuple[int, int], end: tuple[int, int]) -> list[list[float]]:
    rng = random.Random(f"{index}/{start}/{end}")  # noqa: S311
    bends = rng.randint(1, 14)
    (x, y), (to_x, to_y) = _shifted(index, start), _shifted(index, end)
    inner = [
        (x + (to_x - x) * share + rng.uniform(-0.05, 0.05), y + (to_y - y) * share + rng.uniform(-0.05, 0.05))
        for share in (bend / (bends + 1) for bend in range(1, bends + 1))
    ]
    return [
        [round(_CORNER[0] + across * _STEP[0], 6), round(_CORNER[1] + up * _STEP[1], 6)]
        for across, up in ((x, y), *inner, (to_x, to_y))
    ]


def _shifted(index: int, corner: tuple[int, int]) -> tuple[float, float]:
    """A corner of the grid, moved at random so that zones are not square."""
    rng = random.Random(f"{index}/{corner}")  # noqa: S311
    return corner[0] + rng.uniform(-0.3, 0.3), corner[1] + rng.uniform(-0.3, 0.3)


# For each kind of bad row, the fields that it changes. The contract rejects every kind.
BAD_KINDS: dict[str, Callable[[_Row], _Row]] = {
    "bounds_out_of_order": lambda row: {_LOWER: row[_UPPER], _UPPER: row[_LOWER], _MEAN: int(row[_UPPER]) + 1},
    "date_not_in_the_calendar": lambda _row: {_PERIOD: "02/30/2017 - 03/27/2017, Every day, Daily Average"},
    "date_range_malformed": lambda _row: {_PERIOD: "2016-07-31/2016-08-28"},
    "mean_missing": lambda _row: {_MEAN: ""},
    "mean_negative": lambda row: {_MEAN: -1 - int(row[_MEAN])},
    "mean_not_a_number": lambda _row: {_MEAN: "n/a"},
    "origin_missing": lambda _row: {"Origin Movement ID": ""},
    "period_backwards": lambda _row: {_PERIOD: "08/28/2016 - 07/31/2016, Every day, Daily Average"},
}
