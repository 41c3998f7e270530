"""Made-up exports in the real shape, the same for the same seed. Next: `movement produce`, or whoever needs input.

One file a city, named `Travel_Times - <City>.csv`. As in the real exports one city in three has its zones'
geometry (which makes a record ten times as large), names hold non-ASCII letters, and a pair of zones stands once
in a period.
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

from jobs.contract.errors import ConfigurationError

_CITIES = (
    "Paris", "Boston", "São Paulo", "Johannesburg and Pretoria", "Bogotá", "Manchester", "Washington DC", "Kyiv",
    "Cincinnati", "Perth", "Nairobi", "Hyderabad",
)  # fmt: skip
_STREETS = ("Rue de l'Église", "Harbour Road", "Avenida Ipiranga", "Calle 26", "0 Quai des Orfèvres", "High Street")
_QUARTERS = ("Centre", "Waterfront", "Vila Olímpia", "Hillbrow", "Chapinero", "Північ", "Fordsburg", "Old Town")
_DAYS = ("Every day", "Weekdays", "Weekends")
_TIMES = ("Daily Average", "AM Peak", "PM Peak", "Midday", "Evening", "Early Morning")
_FIRST_DAY = date(2016, 7, 31)

_MEAN = "Mean Travel Time (Seconds)"
_LOWER = "Range - Lower Bound Travel Time (Seconds)"
_UPPER = "Range - Upper Bound Travel Time (Seconds)"
_PERIOD = "Date Range"


@dataclass(slots=True)
class Sample:
    """What was written: the files, their rows, and how many of these are bad, by kind."""

    files: list[Path] = field(default_factory=list)
    rows: int = 0
    bad: int = 0
    bad_kinds: dict[str, int] = field(default_factory=dict)


_Row = dict[str, str | int]


def write_sample(rows: int, out: Path, *, cities: int = 3, seed: int = 0, bad_rate: float = 0.0) -> Sample:
    """Writes `rows` rows, spread over `cities` files in the folder `out`; `bad_rate` (0 to 1) of them are bad.

    Exactly round(rows × bad_rate) rows are bad, spread by chance. Files that are there already under the same
    names are replaced. Raises ConfigurationError for numbers that make no sense.
    """
    if rows < 0 or cities < 1 or not 0 <= bad_rate <= 1:
        raise ConfigurationError("a sample needs --rows of 0 or more, --cities of 1 or more, --bad-rate from 0 to 1")
    out.mkdir(parents=True, exist_ok=True)
    bad = set(random.Random(seed).sample(range(rows), round(rows * bad_rate)))  # noqa: S311  (test data)
    kinds: Counter[str] = Counter()
    sample = Sample(rows=rows, bad=len(bad))
    start = 0
    for index in range(cities):
        count = rows // cities + (index < rows % cities)
        file = out / f"Travel_Times - {_city(index)}.csv"
        chance = random.Random(f"{seed}/{index}")  # noqa: S311
        header, good = _header(index), _rows(chance, index, count)
        with file.open("w", encoding="utf-8", newline="") as target:
            # As exported: texts quoted, numbers bare.
            writer = csv.writer(target, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            writer.writerow(header)
            for number, row in enumerate(good, start):
                if number in bad:
                    kind = chance.choice(sorted(BAD_KINDS))
                    kinds[kind] += 1
                    row |= BAD_KINDS[kind](row)
                writer.writerow([row[name] for name in header])
        sample.files.append(file)
        start += count
    sample.bad_kinds = dict(sorted(kinds.items()))
    return sample


def _city(index: int) -> str:
    again = index // len(_CITIES)
    return _CITIES[index % len(_CITIES)] + (f" {again + 1}" if again else "")


def _has_geometry(index: int) -> bool:
    return index % 3 == 1


def _header(index: int) -> list[str]:
    parts = ["Movement ID", "Display Name"] + (["Geometry"] if _has_geometry(index) else [])
    return [f"{end} {part}" for end in ("Origin", "Destination") for part in parts] + [_PERIOD, _MEAN, _LOWER, _UPPER]


def _rows(chance: random.Random, index: int, count: int) -> Iterator[_Row]:
    """The good rows of a city: every pair of its zones in a period, then the next period."""
    # Few periods, whatever the number of rows: a start date is a folder of the lake.
    zones = [_zone(chance, index, number) for number in range(1, max(20, math.isqrt(count // 6) + 2))]
    pairs = [(origin, destination) for origin in zones for destination in zones if origin is not destination]
    periods = itertools.cycle(itertools.product(_DAYS, _TIMES, range(3)))
    made = 0
    while made < count:
        days, time, block = next(periods)
        first = _FIRST_DAY + timedelta(days=28 * block)
        period = f"{first:%m/%d/%Y} - {first + timedelta(days=28):%m/%d/%Y}, {days}, {time}"
        for origin, destination in pairs[: count - made]:
            mean = chance.randint(60, 6000)
            lower, upper = int(mean * chance.uniform(0.4, 1)), int(mean * chance.uniform(1, 2.5))
            row: _Row = {f"Origin {part}": value for part, value in origin.items()}
            row |= {f"Destination {part}": value for part, value in destination.items()}
            yield row | {_PERIOD: period, _MEAN: mean, _LOWER: lower, _UPPER: upper}
        made += len(pairs)


def _zone(chance: random.Random, index: int, number: int) -> dict[str, str]:
    city = _city(index)
    # The real exports leave a name empty now and then.
    name = f"{chance.choice(_STREETS)} {chance.randint(0, 999)}, {chance.choice(_QUARTERS)}, {city}"
    zone = {"Movement ID": str(number), "Display Name": "" if chance.random() < 0.01 else name}
    if _has_geometry(index):
        longitude, latitude = chance.uniform(-71.2, -70.9), chance.uniform(42.2, 42.4)
        ring = [
            [round(longitude + chance.uniform(-0.01, 0.01), 6), round(latitude + chance.uniform(-0.01, 0.01), 6)]
            for _ in range(chance.randint(8, 60))
        ]
        zone["Geometry"] = json.dumps([*ring, ring[0]], separators=(",", ":"))
    return zone


# Kind → what it changes in a row. Each is a row of the file, and none is one that the contract accepts.
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
