"""Writes gold tables without Spark, for the tests of the HTML page."""

from __future__ import annotations

import csv
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

ORIGIN, DESTINATION = "origin_movement_id", "destination_movement_id"
MEAN, LOWER, UPPER = (f"{kind}_travel_time_seconds" for kind in ("mean", "lower_bound", "upper_bound"))

CORRIDORS = pa.schema(
    [
        ("city", pa.string()), (ORIGIN, pa.string()), (DESTINATION, pa.string()), ("date_range", pa.string()),
        ("start_date", pa.date32()), ("end_date", pa.date32()), ("day_filter", pa.string()),
        ("time_filter", pa.string()), ("origin_display_name", pa.string()), ("destination_display_name", pa.string()),
        (MEAN, pa.int32()), (LOWER, pa.int32()), (UPPER, pa.int32()), ("shard_id", pa.string()),
        ("sequence_number", pa.string()), ("arrival_time", pa.timestamp("us", "UTC")), ("batch", pa.string()),
    ]
)  # fmt: skip
ZONES = pa.schema(
    [
        ("city", pa.string()), ("movement_id", pa.string()), ("display_name", pa.string()), ("geometry", pa.string()),
        ("centroid_longitude", pa.float64()), ("centroid_latitude", pa.float64()),
    ]
)  # fmt: skip
SUMMARY = pa.schema(
    [
        ("city", pa.string()), ("date_range", pa.string()), ("start_date", pa.date32()), ("end_date", pa.date32()),
        ("rows", pa.int64()), ("corridors", pa.int64()), (MEAN, pa.float64()),
        ("median_travel_time_seconds", pa.float64()), ("p90_travel_time_seconds", pa.float64()),
        ("reliability", pa.float64()),
    ]
)  # fmt: skip

PERIOD = "07/31/2016 - 08/28/2016, Every day, Daily Average"


def corridor(city: str, origin: str, destination: str, mean: int, **more: Any) -> dict[str, Any]:
    """A corridor; keywords: date_range, lower, upper, and the ends' names and geometries."""
    return {"city": city, "origin": origin, "destination": destination, "mean": mean} | more


def square(x: float, y: float, side: float = 0.01) -> str:
    """A square's geometry in an export's format."""
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]
    return str([[round(a, 6), round(b, 6)] for a, b in corners])


def of_exports(folder: Path) -> list[dict[str, Any]]:
    """The corridors of every export in a folder."""
    found = []
    for file in sorted(folder.glob("Travel_Times - *.csv")):
        city = file.stem.removeprefix("Travel_Times - ")
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                found.append(
                    corridor(
                        city,
                        row["Origin Movement ID"],
                        row["Destination Movement ID"],
                        int(row["Mean Travel Time (Seconds)"]),
                        lower=int(row["Range - Lower Bound Travel Time (Seconds)"]),
                        upper=int(row["Range - Upper Bound Travel Time (Seconds)"]),
                        date_range=row["Date Range"],
                        origin_name=row["Origin Display Name"],
                        destination_name=row["Destination Display Name"],
                        origin_geometry=row.get("Origin Geometry"),
                        destination_geometry=row.get("Destination Geometry"),
                    )
                )
    return found


def write_gold(lake: Path, corridors: Iterable[dict[str, Any]]) -> None:
    """Writes the corridors, and the zones and summaries computed from them, to `<lake>/gold/`."""
    rows = [_row(one) for one in corridors]
    zones: dict[tuple[str, str], dict[str, Any]] = {}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["city"], row["date_range"]].append(row)
        for end in ("origin", "destination"):
            zones[row["city"], row[f"{end}_movement_id"]] = {
                "city": row["city"],
                "movement_id": row[f"{end}_movement_id"],
                "display_name": row[f"{end}_display_name"],
                "geometry": row[f"{end}_geometry"],
            }
    summaries = [
        {
            "city": city,
            "date_range": date_range,
            "start_date": group[0]["start_date"],
            "end_date": group[0]["end_date"],
            "rows": len(group),
            "corridors": len(group),
            MEAN: statistics.fmean(row[MEAN] for row in group),
            "median_travel_time_seconds": statistics.median(row[MEAN] for row in group),
            "p90_travel_time_seconds": sorted(row[MEAN] for row in group)[int(len(group) * 0.9)],
            "reliability": statistics.fmean(
                ((row[UPPER] or row[MEAN]) - (row[LOWER] or row[MEAN])) / max(row[MEAN], 1) for row in group
            ),
        }
        for (city, date_range), group in groups.items()
    ]
    for name, schema, content in (
        ("corridors", CORRIDORS, rows),
        ("zones", ZONES, list(zones.values())),
        ("city_summary", SUMMARY, summaries),
    ):
        table = pa.Table.from_pylist(content, schema)
        write_deltalake(str(lake / "gold" / name), table, mode="overwrite")


def _row(one: dict[str, Any]) -> dict[str, Any]:
    date_range = one.get("date_range", PERIOD)
    parts = re.fullmatch(r"(\d\d/\d\d/\d{4}) - (\d\d/\d\d/\d{4}), (.+), (.+)", date_range)
    start, end = (_day(parts[1]), _day(parts[2])) if parts else (None, None)
    return {
        "city": one["city"],
        ORIGIN: one["origin"],
        DESTINATION: one["destination"],
        "date_range": date_range,
        "start_date": start,
        "end_date": end,
        "day_filter": parts[3] if parts else None,
        "time_filter": parts[4] if parts else None,
        "origin_display_name": one.get("origin_name"),
        "destination_display_name": one.get("destination_name"),
        "origin_geometry": one.get("origin_geometry"),
        "destination_geometry": one.get("destination_geometry"),
        MEAN: one["mean"],
        LOWER: one.get("lower"),
        UPPER: one.get("upper"),
        "shard_id": "shardId-000000000000",
        "sequence_number": "1",
        "arrival_time": datetime(2026, 11, 23, tzinfo=UTC),
        "batch": "abc-0",
    }


def _day(text: str) -> date:
    return datetime.strptime(text, "%m/%d/%Y").replace(tzinfo=UTC).date()
