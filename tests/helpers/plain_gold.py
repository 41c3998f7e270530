"""Computes the gold tables from all processed rows, without Spark and increments: what the job must produce."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq

from jobs.gold.centroid import centroid_of
from jobs.gold.tables import gold_tables
from jobs.lake.store import Lake
from jobs.schema.partitions import parse_partition_path
from tests.helpers.samples import TRAVEL_TIMES

Row = dict[str, Any]
TABLES = gold_tables(TRAVEL_TIMES)
CORRIDORS, HISTORY, CITY_SUMMARY, ZONES = TABLES


def processed(lake: Lake) -> list[Row]:
    """Every row of the processed layer."""
    found = []
    for path, _ in lake.list("processed/"):
        partition = parse_partition_path(path.removeprefix("processed/").rpartition("/")[0])
        for row in pq.read_table(io.BytesIO(lake.get(path) or b"")).to_pylist():
            row |= partition
            row["start_date"] = type(row["end_date"]).fromisoformat(str(row["start_date"]))
            found.append(row)
    return found


def gold(rows: list[Row]) -> dict[str, list[Row]]:
    """The gold tables' rows, by table."""
    corridors = latest(rows, corridor_key, arrival)
    names = [name for name, _, _ in CORRIDORS.columns]
    return {
        HISTORY.name: [{name: row[name] for name in names} for row in rows],
        CORRIDORS.name: [{name: row[name] for name in names} for row in corridors],
        ZONES.name: zones(rows),
        CITY_SUMMARY.name: summaries(rows, corridors),
    }


def corridor_key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in CORRIDORS.key)


def arrival(row: Row) -> tuple[Any, ...]:
    number, _, sub = row["sequence_number"].partition(":")
    return row["arrival_time"], int(number), int(sub or -1), row["shard_id"], row["batch"]


def latest(rows: list[Row], key: Callable[[Row], Any], order: Callable[[Row], Any]) -> list[Row]:
    chosen: dict[Any, Row] = {}
    for row in rows:
        if key(row) not in chosen or order(row) > order(chosen[key(row)]):
            chosen[key(row)] = row
    return list(chosen.values())


def zones(rows: list[Row]) -> list[Row]:
    met = [
        {
            "city": row["city"],
            "movement_id": row[f"{end}_movement_id"],
            "display_name": row[f"{end}_display_name"] or None,
            "geometry": row[f"{end}_geometry"] or None,
            **{name: row[name] for name in ("shard_id", "sequence_number", "arrival_time", "batch")},
        }
        for row in rows
        for end in ("origin", "destination")
    ]
    chosen = latest(
        met,
        lambda zone: (zone["city"], zone["movement_id"]),
        lambda zone: (
            zone["geometry"] is not None,
            zone["display_name"] is not None,
            *arrival(zone),
            zone["display_name"] or "",
            zone["geometry"] or "",
        ),
    )
    for zone in chosen:
        point = centroid_of(zone["geometry"]) or (None, None)
        zone["centroid_longitude"], zone["centroid_latitude"] = point
    return chosen


def summaries(rows: list[Row], corridors: list[Row]) -> list[Row]:
    counts = Counter((row["city"], row["date_range"]) for row in rows)
    found = []
    for (city, date_range), count in counts.items():
        group = [row for row in corridors if (row["city"], row["date_range"]) == (city, date_range)]
        means = sorted(row["mean_travel_time_seconds"] for row in group)
        shares = [
            (row["upper_bound_travel_time_seconds"] - row["lower_bound_travel_time_seconds"]) / row[mean]
            for row in group
            for mean in ["mean_travel_time_seconds"]
            if row[mean]
            and row["upper_bound_travel_time_seconds"] is not None
            and row["lower_bound_travel_time_seconds"] is not None
        ]
        found.append(
            {
                "city": city,
                "date_range": date_range,
                "start_date": group[0]["start_date"],
                "end_date": group[0]["end_date"],
                "rows": count,
                "corridors": len(group),
                "mean_travel_time_seconds": sum(means) / len(means),
                "median_travel_time_seconds": percentile(means, 0.5),
                "p90_travel_time_seconds": percentile(means, 0.9),
                "reliability": sum(shares) / len(shares) if shares else None,
            }
        )
    return found


def percentile(values: list[int], share: float) -> float:
    """A percentile of sorted values, interpolated between the two nearest."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)
