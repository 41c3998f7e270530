"""A second stream with gold tables of every kind but zones, and a plain computation of what they must hold."""

from __future__ import annotations

import io
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import pyarrow.parquet as pq

from jobs.lake.store import Lake
from jobs.schema.partitions import parse_partition_path
from tests.helpers.plain_gold import Row, arrival, latest, percentile
from tests.helpers.samples import bytes_of

CLICKS_YAML = r"""
version: 1
name: clicks
comment: Clicks in a shop
columns:
  - {source: user, column: user, type: string, required: true}
  - {source: day, column: day, type: date, required: true}
  - {source: country, column: country, type: string}
  - {source: at, column: at, type: timestamp}
  - {source: cents, column: cents, type: long}
  - {source: pieces, column: pieces, type: int}
  - {source: seconds, column: seconds, type: double}
partition_by: [day]
stream_partition_key: [user]
gold:
  users:
    kind: latest
    comment: The newest click of each user
    key: [user]
    order_by: at
  clicks:
    kind: history
    columns: [user, day, cents]
    sort_by: [user]
  per_day:
    kind: aggregate
    group_by: [day, country]
    measures:
      rows: {count: "*"}
      priced: {count: cents}
      total: {sum: cents}
      mean: {avg: cents}
      least: {min: cents}
      newest: {max: at}
      piece: {avg: cents / pieces}
      time: {sum: seconds}
  countries:
    kind: aggregate
    from: users
    group_by: [country]
    measures:
      users: {count: "*"}
      spent: {sum: cents}
      median: {percentile: cents, at: 0.5}
  user_days:
    kind: aggregate
    from: clicks
    group_by: [user, day]
    measures:
      p90: {percentile: cents, at: 0.9}
      clicks: {count: "*"}
      seen: {count: "*", from: processed}
"""


def some_clicks(chance: random.Random, count: int) -> list[bytes]:
    """Clicks of a few users who move between countries; some without price, country or time, some rejected."""
    found = []
    for _ in range(count):
        record = {
            "user": chance.choice("abcde"),
            "day": f"2026-11-0{chance.randint(1, 3)}",
            "country": chance.choice(["BR", "FR", "a/b", None]),
            "at": chance.choice([None, f"2026-11-01T0{chance.randint(0, 9)}:00:00Z"]),
            "cents": chance.choice([None, 0, chance.randint(1, 10**6), 10**15]),
            "pieces": chance.choice([None, 0, 1, 2, 3]),
            "seconds": chance.choice([None, chance.random()]),
        }
        found.append(b"no record" if chance.random() < 0.05 else bytes_of(record))
    return found


def processed(lake: Lake) -> list[Row]:
    """Every row of the processed layer."""
    found = []
    for path, _ in lake.list("processed/"):
        partition = parse_partition_path(path.removeprefix("processed/").rpartition("/")[0])
        for row in pq.read_table(io.BytesIO(lake.get(path) or b"")).to_pylist():
            found.append(row | {"day": date.fromisoformat(str(partition["day"]))})
    return found


def gold(rows: list[Row]) -> dict[str, list[Row]]:
    """The gold tables' rows, by table."""

    def newest(row: Row) -> tuple[Any, ...]:
        return row["at"] is not None, row["at"] or row["arrival_time"], *arrival(row)

    users = latest(rows, lambda row: row["user"], newest)
    origin = ("shard_id", "sequence_number", "arrival_time", "batch")
    return {
        "users": users,
        "clicks": [{name: row[name] for name in ("user", "day", "cents", *origin)} for row in rows],
        "per_day": grouped(rows, ("day", "country"), per_day),
        "countries": grouped(
            users, ("country",), lambda group: {
                "users": len(group), "spent": total(values(group, "cents")),
                "median": share(values(group, "cents"), 0.5),
            }
        ),
        "user_days": grouped(
            rows, ("user", "day"), lambda group: {
                "p90": share(values(group, "cents"), 0.9), "clicks": len(group), "seen": len(group)
            }
        ),
    }  # fmt: skip


def per_day(group: list[Row]) -> Row:
    cents, times = values(group, "cents"), values(group, "at")
    prices = [row["cents"] / row["pieces"] for row in group if row["cents"] is not None and row["pieces"]]
    return {
        "rows": len(group),
        "priced": len(cents),
        "total": total(cents),
        "mean": sum(cents) / len(cents) if cents else None,
        "mean_sum": total(cents),
        "mean_count": len(cents),
        "least": min(cents, default=None),
        "newest": max(times, default=None),
        "piece": sum(prices) / len(prices) if prices else None,
        "piece_sum": total(prices),
        "piece_count": len(prices),
        "time": total(values(group, "seconds")),
    }


def grouped(rows: Iterable[Row], by: tuple[str, ...], figures: Callable[[list[Row]], Row]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in by)].append(row)
    return [dict(zip(by, key, strict=True)) | figures(group) for key, group in groups.items()]


def values(group: list[Row], name: str) -> list[Any]:
    return [row[name] for row in group if row[name] is not None]


def total(found: list[Any]) -> Any:
    return sum(found) if found else None


def share(found: list[Any], at: float) -> float | None:
    return float(percentile(sorted(found), at)) if found else None
