"""The gold tables of a contract: name, columns, key and sort order of each. Glue, Redshift and the docs follow from it.

No table is partitioned: every file contains every column, as Redshift's COPY needs, and a city of ten rows does not get
a file of its own. Instead, `maintenance` sorts the files (Z-order), so that readers can skip files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.common.errors import ConfigurationError
from jobs.schema.columns import ColumnType
from jobs.schema.gold_section import (
    PROCESSED,
    AggregateTable,
    GoldSpec,
    HistoryTable,
    LatestTable,
    ZonesTable,
    is_local,
    measure_columns,
    measure_type,
    own_columns,
    sum_type,
)
from jobs.schema.table import PROVENANCE, TableContract

Columns = tuple[tuple[str, ColumnType, str], ...]

_ZONE_COLUMNS: Mapping[str, tuple[str, str]] = {
    "movement_id": ("string", "The zone"),
    "display_name": ("string", "Address at its middle; null where the export has none"),
    "geometry": ("string", "Ring of [longitude, latitude] pairs as JSON; null where the export has none"),
    "centroid_longitude": ("double", "Middle of the ring's area, degrees; null where there is no ring"),
    "centroid_latitude": ("double", "Middle of the ring's area, degrees; null where there is no ring"),
}


@dataclass(frozen=True)
class GoldTable:
    """A table in `<lake>/gold/<name>/`.

    key         the columns that identify a row; a history, which keeps every row, has none
    order       the columns that its files are sorted by
    spec        its part of the contract
    source      the gold table that it is computed from; None: the processed rows
    local       for an aggregate: whether a new row changes its own group alone
    definition  what decides its rows, as JSON: a table with another definition must be computed again
    """

    name: str
    comment: str
    columns: Columns
    key: tuple[str, ...]
    order: tuple[str, ...]
    spec: GoldSpec
    source: str | None
    local: bool
    definition: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Its folder in the lake."""
        return f"gold/{self.name}"

    @property
    def types(self) -> dict[str, str]:
        """Spark's type of each column, by name."""
        return {name: spark_type(kind) for name, kind, _ in self.columns}

    @property
    def ddl(self) -> str:
        """Its columns as a Spark DDL string."""
        return spark_ddl((name, kind) for name, kind, _ in self.columns)

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns of the processed rows that its rows, or the groups to compute again, are made from."""
        if isinstance(self.spec, LatestTable | HistoryTable):
            return tuple(name for name, _, _ in self.columns)
        if isinstance(self.spec, ZonesTable):
            ends = [name for end in self.spec.ends for name in (end.id, end.name, end.geometry)]
            return tuple(dict.fromkeys((*self.spec.within, *ends, *PROVENANCE)))
        merged = [each for each in self.spec.measures.values() if self.spec.is_merged(each)]
        return tuple(dict.fromkeys((*self.spec.group_by, *(name for each in merged for name in each.columns))))


def gold_tables(contract: TableContract) -> tuple[GoldTable, ...]:
    """The contract's gold tables, in its order. Raises ConfigurationError if it has none."""
    if contract.gold is None:
        raise ConfigurationError(
            f"contract {contract.name} has no section `gold:`: add one that names the tables to compute, such as "
            "`gold: {newest: {kind: latest, key: [<column>]}}` (docs/gold.md; conf/travel_times.yaml has four)"
        )
    return tuple(_gold_table(name, contract) for name in contract.gold)


def spark_type(kind: str) -> str:
    """The name of a column's type in Spark's DDL."""
    return "bigint" if kind == "long" else kind


def spark_ddl(columns: Iterable[tuple[str, str]]) -> str:
    """(name, type) pairs as a Spark DDL string."""
    return ", ".join(f"{name} {spark_type(kind)}" for name, kind in columns)


def _gold_table(name: str, contract: TableContract) -> GoldTable:
    section = contract.gold or {}
    spec = section[name]
    kinds = _types(spec, contract)
    comments = _comments(spec, contract)
    key: tuple[str, ...] = ()
    source, local = None, True
    if isinstance(spec, LatestTable):
        key = spec.key
    elif isinstance(spec, ZonesTable):
        key = (*spec.within, "movement_id")
    elif isinstance(spec, AggregateTable):
        key, local = spec.group_by, is_local(spec, section)
        source = None if spec.source == PROCESSED else spec.source
    columns = tuple((column, kind, comments.get(column, "")) for column, kind in kinds.items())
    definition = _definition(spec) | {"columns": kinds}
    if source is not None:
        definition["source"] = _gold_table(source, contract).definition
    return GoldTable(name, spec.comment, columns, key, spec.sort_by, spec, source, local, definition)


def _types(spec: GoldSpec, contract: TableContract) -> dict[str, str]:
    known = contract.row_types
    found: dict[str, str] = {}
    if isinstance(spec, AggregateTable):
        found = {name: known[name] for name in spec.group_by}
        for name, measure in spec.measures.items():
            own, *parts = measure_columns(spec, name)
            found[own] = measure_type(measure, known)
            if parts:
                total = sum_type(known[measure.of]) if measure.of in known else "double"
                # Kept exact, and wide enough for the sum of a column of large integers.
                found |= dict(zip(parts, ("decimal(38,0)" if total == "long" else total, "long"), strict=True))
        return found
    zones = {name: kind for name, (kind, _) in _ZONE_COLUMNS.items()} if isinstance(spec, ZonesTable) else {}
    return {name: zones.get(name) or known[name] for name in own_columns(spec, tuple(known))}


def _comments(spec: GoldSpec, contract: TableContract) -> dict[str, str]:
    found = {name: comment for name, _, comment in contract.data_columns}
    found |= {name: comment for name, (_, comment) in PROVENANCE.items()}
    if isinstance(spec, ZonesTable):
        found |= {name: comment for name, (_, comment) in _ZONE_COLUMNS.items()}
    if isinstance(spec, AggregateTable):
        for name, measure in spec.measures.items():
            own, *parts = measure_columns(spec, name)
            found[own] = measure.comment or f"{measure.function} of {measure.of}"
            found |= {part: f"{part.rpartition('_')[2]} of {measure.of}, for {name}" for part in parts}
    return found | dict(spec.comments)


def _definition(spec: GoldSpec) -> dict[str, Any]:
    ignored = {"comment", "comments", "sort_by", "columns"}
    found: dict[str, Any] = spec.model_dump(mode="json", exclude=ignored, exclude_none=True)
    for measure in found.get("measures", {}).values():
        measure.pop("comment", None)
    return found
