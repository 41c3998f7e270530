"""Reads the gold tables into `model.Gold` without Spark: delta-rs reads Delta, and its SQL engine counts and selects.

At most `max_rows` corridors are read. A slice is a city and a date range. Slices are taken whole, cities in turn, each
city's newest period first. The last slice is cut at an origin; the others are left out and named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from jobs.common.errors import TerminalError, TransientError
from jobs.lake.delta import open_delta
from movement.report.model import NONE, City, Gold, Ints, Slice, Summary, Zones

_TIMES = ("mean_travel_time_seconds", "lower_bound_travel_time_seconds", "upper_bound_travel_time_seconds")
_PERIOD = ("start_date", "end_date", "day_filter", "time_filter")


@dataclass(frozen=True)
class _Wanted:
    """A slice with its number of rows, and the origins to read (None: all)."""

    city: str
    date_range: str
    start_date: date | None
    end_date: date | None
    day_filter: str | None
    time_filter: str | None
    rows: int
    origins: list[str] | None = None


class GoldTables:
    """The gold tables of a lake (`s3://bucket/prefix` or a folder).

    Raises TerminalError, naming the table, if one exists and cannot be read.
    """

    def __init__(self, lake: str) -> None:
        self._root = f"{lake}/gold"

    def version(self) -> str | None:
        """A text that changes with each change of a table; None if there is no `corridors` with travel times."""
        tables = {name: self._open(name) for name in ("corridors", "zones", "city_summary")}
        if tables["corridors"] is None or not _has_travel_times(tables["corridors"]):
            return None
        # The table's id is part of it, because a table that is dropped and created again starts at version 0.
        return ".".join(
            f"{str(table.metadata().id)[:8]}-{table.version()}" if table else "0" for table in tables.values()
        )

    def read(self, max_rows: int) -> Gold | None:
        """Reads the tables, at most `max_rows` corridors; None if there is no `corridors` with travel times."""
        version, corridors = self.version(), self._open("corridors")
        if version is None or corridors is None:
            return None
        summaries = self._summaries()
        zones = self._open("zones")
        try:
            counted = _count(corridors)
            wanted, left_out = _within(counted, max_rows, corridors)
            rows = _read_rows(corridors, wanted, complete=not left_out and all(one.origins is None for one in wanted))
            cities = [
                _city(name, [one for one in wanted if one.city == name], rows, zones, summaries)
                for name in sorted({one.city for one in wanted})
            ]
        except (DeltaError, pa.ArrowException, OSError) as error:
            raise TerminalError(f"{self._root}: the gold tables cannot be read: {error}") from error
        kept = sum(len(part.mean) for city in cities for part in city.slices)
        return Gold(version, cities, kept, sum(one.rows for one in counted), left_out)

    def _open(self, name: str) -> DeltaTable | None:
        try:
            return open_delta(f"{self._root}/{name}")
        except TransientError as error:
            raise TerminalError(f"{error}: not readable as a Delta table") from error

    def _summaries(self) -> dict[tuple[str, str], Summary]:
        table = self._open("city_summary")
        if table is None:
            return {}
        names = ("mean_travel_time_seconds", "median_travel_time_seconds", "p90_travel_time_seconds", "reliability")
        figures = ", ".join(f"CAST({name} AS DOUBLE) AS {name}" for name in names)
        found = _query(table, f"SELECT COALESCE(city, '') AS city, date_range, {figures} FROM t").to_pylist()  # noqa: S608
        return {(row["city"], row["date_range"]): Summary(*(_finite(row[name]) for name in names)) for row in found}


def _has_travel_times(table: DeltaTable) -> bool:
    """Whether the table has the columns that the page needs; another contract may name a table `corridors` too."""
    needed = {"city", "origin_movement_id", "destination_movement_id", "date_range", *_TIMES, *_PERIOD}
    return needed <= {field.name for field in table.schema().fields}


def _query(table: DeltaTable, sql: str) -> pa.Table:
    found = pa.table(QueryBuilder().register("t", table).execute(sql).read_all())
    # The engine answers in Arrow's string views, for which Arrow's own functions are few.
    for index, column in enumerate(found.schema):
        if pa.types.is_string_view(column.type):
            found = found.set_column(index, column.name, found.column(index).cast(pa.string()))
    return found


def _count(corridors: DeltaTable) -> list[_Wanted]:
    period = ", ".join(f"MIN({name}) AS {name}" for name in _PERIOD)
    found = _query(
        corridors,
        f"SELECT COALESCE(city, '') AS city, COALESCE(date_range, '') AS date_range, {period}, COUNT(*) AS rows "  # noqa: S608
        f"FROM t WHERE {_TIMES[0]} IS NOT NULL GROUP BY 1, 2",
    )
    return [_Wanted(**row) for row in found.to_pylist()]


def _within(counted: list[_Wanted], max_rows: int, corridors: DeltaTable) -> tuple[list[_Wanted], list[str]]:
    """What is read of the slices counted, and the names of those that are left out."""
    newest_first = sorted(counted, key=lambda one: (one.start_date or date.min, one.rows), reverse=True)
    turns: dict[str, int] = {}
    ranked = []
    for one in newest_first:
        turns[one.city] = turns.get(one.city, 0) + 1
        ranked.append((turns[one.city], one.city, one))
    wanted: list[_Wanted] = []
    left_out: list[str] = []
    room = max_rows
    for _, _, one in sorted(ranked, key=lambda entry: entry[:2]):
        if one.rows <= room:
            wanted.append(one)
            room -= one.rows
            continue
        part = _first_origins(one, room, corridors) if room else []
        room = 0
        if part:
            wanted.append(_Wanted(**{**vars(one), "origins": part}))
        else:
            left_out.append(f"{one.city}, {one.date_range}")
    return wanted, left_out


def _first_origins(one: _Wanted, room: int, corridors: DeltaTable) -> list[str]:
    """Origins of a slice whose corridors fit into `room` rows, those with the most corridors first."""
    found = _query(
        corridors,
        f"SELECT origin_movement_id AS origin, COUNT(*) AS rows FROM t WHERE {_condition([one])} "  # noqa: S608
        "GROUP BY 1 ORDER BY 2 DESC, 1",
    ).to_pylist()
    kept: list[str] = []
    for row in found:
        if row["rows"] <= room:
            kept.append(row["origin"])
            room -= row["rows"]
    return kept


def _condition(wanted: Iterable[_Wanted]) -> str:
    """An SQL condition that selects the rows of these slices."""
    parts = []
    for one in wanted:
        part = f"COALESCE(city, '') = {_text(one.city)} AND COALESCE(date_range, '') = {_text(one.date_range)}"
        if one.origins is not None:
            part += f" AND origin_movement_id IN ({', '.join(map(_text, one.origins))})"
        parts.append(f"({part})")
    return f"{_TIMES[0]} IS NOT NULL AND ({' OR '.join(parts) or 'FALSE'})"


def _finite(value: float | None) -> float | None:
    """The value, or None if it is NaN or infinite, as after a division by zero."""
    return value if value is not None and math.isfinite(value) else None


def _text(value: str) -> str:
    """A value as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def _read_rows(corridors: DeltaTable, wanted: list[_Wanted], *, complete: bool) -> pa.Table:
    """Reads city, date_range, origin, destination (dictionary columns) and the three times of the slices."""
    condition = f"{_TIMES[0]} IS NOT NULL" if complete else _condition(wanted)
    found = _query(
        corridors,
        "SELECT COALESCE(city, '') AS city, COALESCE(date_range, '') AS date_range, origin_movement_id AS origin, "  # noqa: S608
        f"destination_movement_id AS destination, {', '.join(_TIMES)} FROM t WHERE {condition}",
    )
    for index, name in enumerate(("city", "date_range", "origin", "destination")):
        coded = found.column(name).combine_chunks().dictionary_encode()
        found = found.set_column(index, name, coded)
    return found.combine_chunks()


def _city(
    name: str,
    wanted: list[_Wanted],
    rows: pa.Table,
    table: DeltaTable | None,
    summaries: dict[tuple[str, str], Summary],
) -> City:
    mine = rows.filter(pc.equal(rows.column("city").cast(pa.string()), name)).combine_chunks()
    origins, destinations = (_codes(mine, column) for column in ("origin", "destination"))
    used = sorted({*origins.names(), *destinations.names()}, key=_by_number)
    zones = _zones(name, used, table)
    numbers = {zone: number for number, zone in enumerate(zones.ids)}
    origin, destination = origins.numbered(numbers), destinations.numbered(numbers)
    ranges = _codes(mine, "date_range")
    range_number = ranges.numbered({one.date_range: number for number, one in enumerate(wanted)})
    size = len(zones.ids) + 1
    order = np.argsort((range_number * size + origin) * size + destination, kind="stable")
    times = [_ints(mine.column(column))[order] for column in _TIMES]
    bounds = np.searchsorted(range_number[order], np.arange(len(wanted) + 1))
    slices = []
    for number, one in enumerate(wanted):
        part = slice(int(bounds[number]), int(bounds[number + 1]))
        period = {key: getattr(one, key) for key in ("date_range", *_PERIOD)}
        slices.append(
            Slice(
                **period,
                origin=origin[order][part],
                destination=destination[order][part],
                mean=times[0][part],
                lower=times[1][part],
                upper=times[2][part],
                total=one.rows,
                summary=summaries.get((name, one.date_range)),
            )
        )
    return City(name, zones, slices)


def _zones(city: str, used: list[str], table: DeltaTable | None) -> Zones:
    """The zones that corridors use, with name and geometry from the table of zones."""
    known: dict[str, tuple[str | None, str | None]] = {}
    if table is not None:
        found = _query(
            table,
            f"SELECT movement_id, display_name, geometry FROM t WHERE COALESCE(city, '') = {_text(city)}",  # noqa: S608
        ).to_pydict()
        known = {
            zone: (name, geometry)
            for zone, name, geometry in zip(found["movement_id"], found["display_name"], found["geometry"], strict=True)
        }
    blank = (None, None)
    return Zones(
        used,
        [known.get(zone, blank)[0] for zone in used],
        [known.get(zone, blank)[1] for zone in used],
    )


@dataclass(frozen=True)
class _Codes:
    """A dictionary column: `values[codes]`."""

    codes: Ints
    values: list[str]

    def names(self) -> set[str]:
        return {self.values[code] for code in np.unique(self.codes)}

    def numbered(self, numbers: dict[str, int]) -> Ints:
        """The column with each text replaced by its number."""
        lookup = np.array([numbers.get(value, -1) for value in self.values], np.int64)
        return lookup[self.codes]


def _codes(rows: pa.Table, column: str) -> _Codes:
    found = rows.column(column).combine_chunks()
    if isinstance(found, pa.ChunkedArray):
        found = found.chunk(0) if found.num_chunks else pa.array([], found.type)
    codes = found.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return _Codes(codes, found.dictionary.to_pylist())


def _ints(column: pa.ChunkedArray) -> Ints:
    filled = pc.fill_null(column.cast(pa.int64()), NONE)
    found: Ints = filled.to_numpy().astype(np.int64)
    return found


def _by_number(zone: str) -> tuple[int, int, str]:
    """Sort key of zone ids: 2 comes before 10, numbers before other texts."""
    return (0, int(zone), zone) if zone.isdecimal() and len(zone) < 19 else (1, 0, zone)
