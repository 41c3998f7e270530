"""The gold tables: names, columns and keys. Glue's tables, Redshift's DDL and the docs follow from this module.

No table is partitioned: every file contains every column, as Redshift's COPY needs, and a city of ten rows does not get
a file of its own. Instead, `maintenance` sorts the files (Z-order), so that readers can skip files.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.common.errors import ConfigurationError
from jobs.schema.table import PROVENANCE, ColumnType, TableContract

Columns = tuple[tuple[str, ColumnType, str], ...]


@dataclass(frozen=True)
class GoldTable:
    """A table in `<lake>/gold/<name>/`.

    key    the columns that identify a row; the history, which keeps every row, has none
    order  the columns that its files are sorted by
    """

    name: str
    comment: str
    columns: Columns
    key: tuple[str, ...]
    order: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Its folder in the lake."""
        return f"gold/{self.name}"

    @property
    def ddl(self) -> str:
        """Its columns as a Spark DDL string."""
        return ", ".join(f"{name} {'bigint' if kind == 'long' else kind}" for name, kind, _ in self.columns)


CORRIDOR_KEY = ("city", "origin_movement_id", "destination_movement_id", "date_range")
MEAN = "mean_travel_time_seconds"
LOWER = "lower_bound_travel_time_seconds"
UPPER = "upper_bound_travel_time_seconds"

_ORIGIN: Columns = tuple((name, kind, comment) for name, (kind, comment) in PROVENANCE.items())
_CORRIDOR: Columns = (
    ("city", "string", "The city"),
    ("origin_movement_id", "string", "Zone where the trip starts"),
    ("destination_movement_id", "string", "Zone where the trip ends"),
    ("date_range", "string", "The period as exported"),
    ("start_date", "date", "First day of the period"),
    ("end_date", "date", "Last day of the period"),
    ("day_filter", "string", "Days of the week"),
    ("time_filter", "string", "Time of day"),
    ("origin_display_name", "string", "Address at the middle of the origin zone"),
    ("destination_display_name", "string", "Address at the middle of the destination zone"),
    (MEAN, "int", "Mean travel time in seconds"),
    (LOWER, "int", "Lower bound of the travel time in seconds"),
    (UPPER, "int", "Upper bound of the travel time in seconds"),
    *_ORIGIN,
)

CORRIDORS = GoldTable(
    "corridors",
    "The latest row of each origin, destination and period",
    _CORRIDOR,
    CORRIDOR_KEY,
    ("city", "origin_movement_id"),
)
HISTORY = GoldTable(
    "corridor_history", "Every row that was ever processed, once", _CORRIDOR, (), ("city", "start_date")
)
CITY_SUMMARY = GoldTable(
    "city_summary",
    "Travel times of a city in a period, over its corridors",
    (
        ("city", "string", "The city"),
        ("date_range", "string", "The period as exported"),
        ("start_date", "date", "First day of the period"),
        ("end_date", "date", "Last day of the period"),
        ("rows", "long", "Rows ever processed, repeated ones included"),
        ("corridors", "long", "Pairs of origin and destination"),
        (MEAN, "double", "Mean of the corridors' mean travel times, in seconds"),
        ("median_travel_time_seconds", "double", "Their median, exact, between two values interpolated"),
        ("p90_travel_time_seconds", "double", "Their 90th percentile, exact, between two values interpolated"),
        ("reliability", "double", "Mean of (upper - lower) / mean over the corridors that have all three, mean > 0"),
    ),
    ("city", "date_range"),
    (),
)
ZONES = GoldTable(
    "zones",
    "Each zone's name, outline and middle",
    (
        ("city", "string", "The city"),
        ("movement_id", "string", "The zone"),
        ("display_name", "string", "Address at its middle; null where the export has none"),
        ("geometry", "string", "Ring of [longitude, latitude] pairs as JSON; null where the export has none"),
        ("centroid_longitude", "double", "Middle of the ring's area, degrees; null where there is no ring"),
        ("centroid_latitude", "double", "Middle of the ring's area, degrees; null where there is no ring"),
        *_ORIGIN,
    ),
    ("city", "movement_id"),
    ("city", "movement_id"),
)
TABLES = (CORRIDORS, HISTORY, CITY_SUMMARY, ZONES)

_GEOMETRIES = ("origin_geometry", "destination_geometry")


def check_contract(contract: TableContract) -> None:
    """Raises ConfigurationError if the contract lacks a column that the gold tables need."""
    found = {name: kind for name, kind, _ in contract.data_columns}
    wanted = {name: kind for name, kind, _ in _CORRIDOR if name not in PROVENANCE} | dict.fromkeys(
        _GEOMETRIES, "string"
    )
    lacking = [f"{name} ({kind})" for name, kind in wanted.items() if found.get(name) != kind]
    if lacking:
        raise ConfigurationError(
            f"contract {contract.name}: gold needs the columns {', '.join(lacking)}, which are missing or have "
            "another type; gold tables are only for travel times (conf/travel_times.yaml)"
        )
