"""The contract's optional section `gold:`: the Delta tables that `movement gold` computes from the processed rows.

A table is of one kind: `latest` keeps one row a key, `history` keeps every row, `aggregate` groups rows, and `zones`
has the places that a row's ends name, with their outlines. docs/gold.md lists the keys. `jobs.gold` computes the rows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, WrapValidator, model_validator

from jobs.schema.expressions import columns_of, is_column
from jobs.settings.validation import StrictModel

PROCESSED = "processed"
ANY = "*"
FUNCTIONS = ("count", "sum", "avg", "min", "max", "percentile")
# Columns of every `zones` table, after its `within` columns.
ZONE_COLUMNS = ("movement_id", "display_name", "geometry", "centroid_longitude", "centroid_latitude")

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,127}$")]
_Names = tuple[_Name, ...]
_SomeNames = Annotated[tuple[_Name, ...], Field(min_length=1)]
# Its Glue tables are `gold_<name>` and `gold_<name>_manifest`.
_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}(?<!_manifest)")
_NUMBERS = ("int", "long", "float", "double", "decimal")
_ORDERED = (*_NUMBERS, "string", "boolean", "date", "timestamp")
# Two sums of floating-point numbers that should be equal may differ in their last digit.
_KEYS = ("int", "long", "decimal", "string", "boolean", "date", "timestamp")


class Measure(StrictModel, strict=False):
    """A figure of a group of rows: one of FUNCTIONS over a column or an expression. Null values are skipped.

    count   the rows (`*`), or a column's values
    at      the percentile's share: 0.5 is the median. Exact; between two values it is interpolated
    source  the YAML key `from`: `processed` counts the processed rows, in a table over another gold table
    """

    count: str | None = None
    sum: str | None = None
    avg: str | None = None
    min: str | None = None
    max: str | None = None
    percentile: str | None = None
    at: Annotated[float, Field(ge=0, le=1)] | None = None
    source: Annotated[Literal["processed"] | None, Field(alias="from")] = None
    comment: str = ""

    @model_validator(mode="after")
    def _one_function(self) -> Measure:
        used = [name for name in FUNCTIONS if getattr(self, name) is not None]
        if len(used) != 1:
            found = f"found {' and '.join(used)}" if used else "found none"
            raise ValueError(f"a measure has one of {', '.join(FUNCTIONS)}; {found}")
        if (self.at is not None) != (self.percentile is not None):
            raise ValueError("a percentile needs `at`, from 0 to 1, and only a percentile has it")
        if self.of != ANY:
            columns_of(self.of)
        if self.of == ANY and self.function != "count":
            raise ValueError(f"{self.function}: '*' is for count; name a column")
        if self.function in ("count", "min", "max") and self.of != ANY and not is_column(self.of):
            raise ValueError(f"{self.function} is of a column, not of an expression; got {self.of!r}")
        return self

    @property
    def function(self) -> str:
        """The name of its function."""
        return next(name for name in FUNCTIONS if getattr(self, name) is not None)

    @property
    def of(self) -> str:
        """What the function is of: a column, an expression, or `*`."""
        return str(getattr(self, self.function))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return () if self.of == ANY else columns_of(self.of)


class _Table(StrictModel, strict=False):
    """What every table has.

    comments  the comments of columns; a column of the contract has the contract's comment otherwise
    sort_by   the columns that `movement gold --upkeep` sorts the files by
    """

    comment: str = ""
    comments: Mapping[str, str] = {}
    sort_by: _Names = ()


class LatestTable(_Table, strict=False):
    """The newest row of each key: upserts.

    order_by  the row with the greatest value is the newest, null is the least; among equals, and without `order_by`,
              the one that arrived last
    columns   the table's columns; all of the contract by default. `key`, `order_by` and where the row came from
              are always there
    """

    kind: Literal["latest"]
    key: _SomeNames
    order_by: _Name | None = None
    columns: _SomeNames | None = None


class HistoryTable(_Table, strict=False):
    """Every row, once."""

    kind: Literal["history"]
    columns: _SomeNames | None = None


class AggregateTable(_Table, strict=False):
    """A row for each group. `source`, the YAML key `from`: `processed`, or a `latest` or `history` table."""

    kind: Literal["aggregate"]
    source: Annotated[str, Field(alias="from")] = PROCESSED
    group_by: _SomeNames
    measures: Mapping[_Name, Annotated[Measure, WrapValidator(lambda value, _: _measure(value))]]

    @model_validator(mode="after")
    def _has_measures(self) -> AggregateTable:
        if not self.measures:
            raise ValueError("measures: an aggregate has at least one")
        return self

    def is_merged(self, measure: Measure) -> bool:
        """Whether an increment's value is merged into the table's, and not computed again from the source."""
        return PROCESSED in (self.source, measure.source)


class ZoneEnd(StrictModel, strict=False):
    """The columns of one end of a row: the zone's id, its name and its outline."""

    id: _Name
    name: _Name
    geometry: _Name


class ZonesTable(_Table, strict=False):
    """Each zone's name, outline and centroid. `within`: the columns that, with the id, identify a zone."""

    kind: Literal["zones"]
    within: _Names = ()
    ends: Annotated[tuple[ZoneEnd, ...], Field(min_length=1)]


GoldSpec: TypeAlias = LatestTable | HistoryTable | AggregateTable | ZonesTable
_KINDS: Mapping[str, type[LatestTable | HistoryTable | AggregateTable | ZonesTable]] = {
    "latest": LatestTable,
    "history": HistoryTable,
    "aggregate": AggregateTable,
    "zones": ZonesTable,
}


def _known_keys(value: Any, model: type[StrictModel], what: str) -> None:
    known = model.fields_by_key()
    for key in value:
        if key not in known:
            raise ValueError(f"unknown key {key!r}; {_nearest(str(key), known)}{what} has {', '.join(known)}")


def _measure(value: Any) -> Measure:
    if isinstance(value, Measure):
        return value
    if not isinstance(value, dict):
        raise ValueError("a measure is such as {sum: price}")
    _known_keys(value, Measure, "a measure")
    return Measure.model_validate(value)


def _table(value: Any) -> GoldSpec:
    if isinstance(value, _Table):
        return value  # type: ignore[return-value]
    if not isinstance(value, dict) or "kind" not in value:
        raise ValueError(f"a gold table has a kind: {', '.join(_KINDS)}")
    model = _KINDS.get(str(value["kind"]))
    if model is None:
        raise ValueError(f"unknown kind {value['kind']!r}; {_nearest(str(value['kind']), _KINDS)}{_allowed(_KINDS)}")
    _known_keys(value, model, f"a table of kind {value['kind']}")
    return model.model_validate(value)


GoldSection: TypeAlias = Mapping[str, Annotated[GoldSpec, WrapValidator(lambda value, _: _table(value))]]


def check_section(section: GoldSection, columns: Mapping[str, str]) -> None:
    """Raises ValueError if a table cannot be computed. The message names the key, such as `gold.corridors.key`.

    `columns`: the types of the processed rows' columns, by name.
    """
    if not section:
        raise ValueError("gold: names no table; leave the section out, or add one")
    for name, table in section.items():
        if not _TABLE_NAME.fullmatch(name) or name == PROCESSED:
            raise ValueError(
                f"gold.{name}: not a table's name; allowed: at most 64 letters a to z, digits and _, not {PROCESSED!r} "
                "and without _manifest at the end"
            )
        _Checker(f"gold.{name}", section, columns).check(table)


class _Checker:
    """Checks one table against the contract's columns."""

    def __init__(self, where: str, section: GoldSection, columns: Mapping[str, str]) -> None:
        self._where, self._section, self._columns = where, section, columns

    def check(self, table: GoldSpec) -> None:
        if isinstance(table, LatestTable):
            self._named("key", table.key, self._columns, _KEYS)
            if table.order_by is not None:
                self._named("order_by", [table.order_by], self._columns, _ORDERED)
        if isinstance(table, LatestTable | HistoryTable):
            self._named("columns", table.columns or (), self._columns)
        elif isinstance(table, AggregateTable):
            self._check_aggregate(table)
        else:
            self._named("within", table.within, self._columns, _KEYS)
            for number, end in enumerate(table.ends):
                self._named(f"ends.{number}", (end.id, end.name, end.geometry), self._columns, ("string",))
        own = dict.fromkeys(own_columns(table, tuple(self._columns)), "")
        doubled = [name for name in ZONE_COLUMNS if isinstance(table, ZonesTable) and name in table.within]
        if doubled:
            raise ValueError(f"{self._where}.within: {doubled[0]!r} is a column of every zones table")
        self._named("sort_by", table.sort_by, own)
        self._named("comments", tuple(table.comments), own)

    def _check_aggregate(self, table: AggregateTable) -> None:
        source = self._section.get(table.source)
        if table.source != PROCESSED and not isinstance(source, LatestTable | HistoryTable):
            tables = [name for name, each in self._section.items() if isinstance(each, LatestTable | HistoryTable)]
            raise ValueError(
                f"{self._where}.from: {table.source!r} is no table of kind latest or history; "
                f"{_nearest(table.source, tables)}{_allowed([PROCESSED, *tables])}"
            )
        stored = self._columns
        if isinstance(source, LatestTable | HistoryTable):
            stored = {name: self._columns[name] for name in own_columns(source, tuple(self._columns))}
        self._named("group_by", table.group_by, stored, _KEYS)
        names = list(own_columns(table, tuple(self._columns)))
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(
                f"{self._where}.measures: the column {doubled[0]!r} would be there twice; a measure cannot have the "
                "name of a column of group_by, and an avg of processed rows also makes <name>_sum and <name>_count"
            )
        for name, measure in table.measures.items():
            self._check_measure(f"measures.{name}", table, measure, stored)

    def _check_measure(self, key: str, table: AggregateTable, measure: Measure, stored: Mapping[str, str]) -> None:
        if measure.source is not None and not is_local(table, self._section):
            raise ValueError(
                f"{self._where}.{key}.from: {PROCESSED!r} needs a group_by of columns of {table.source}.key, because a "
                "row that moves to another group would leave its count behind"
            )
        of = self._columns if table.is_merged(measure) else stored
        allowed = {"count": None, "min": _ORDERED, "max": _ORDERED}.get(measure.function, _NUMBERS)
        self._named(key, measure.columns, of, allowed if is_column(measure.of) or measure.of == ANY else _NUMBERS)
        if table.is_merged(measure) and measure.function == "percentile":
            raise ValueError(
                f"{self._where}.{key}: a percentile of processed rows cannot be brought up to date from new rows "
                "alone; add a table of kind history (or latest) and name it in `from`"
            )

    def _named(
        self, key: str, names: Sequence[str], known: Mapping[str, str], kinds: Sequence[str] | None = None
    ) -> None:
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{self._where}.{key}: no column is named {name!r}; {_nearest(name, known)}{_allowed(known)}"
                )
            kind = base_type(known[name])
            if kinds is not None and kind not in kinds:
                raise ValueError(f"{self._where}.{key}: {name!r} is of type {known[name]}; {_allowed(kinds)}")
        if len(set(names)) < len(names) and not key.startswith(("ends", "measures")):
            raise ValueError(f"{self._where}.{key}: a column is named more than once")


def base_type(kind: str) -> str:
    """`decimal(10,2)` is a decimal, `array<string>` an array."""
    return re.split(r"[(<]", kind, maxsplit=1)[0]


def is_local(table: AggregateTable, section: GoldSection) -> bool:
    """Whether a new row changes its own group alone: the groups of new rows are all that must be computed again.

    A row of a `latest` table is replaced by a row of the same key, which is in another group if `group_by` has other
    columns than the key's.
    """
    source = section.get(table.source)
    return not isinstance(source, LatestTable) or set(table.group_by) <= set(source.key)


def own_columns(table: GoldSpec, contract: Sequence[str]) -> tuple[str, ...]:
    """The table's columns, in order. `contract`: the columns of the processed rows; its last four, which say where a
    row came from, are the last ones of every table that has rows of the contract."""
    provenance = tuple(contract[-4:])
    if isinstance(table, AggregateTable):
        return (*table.group_by, *(name for measure in table.measures for name in measure_columns(table, measure)))
    if isinstance(table, ZonesTable):
        return (*table.within, *ZONE_COLUMNS, *provenance)
    wanted: Iterable[str] = table.columns or contract
    if isinstance(table, LatestTable):
        first = [name for name in (*table.key, table.order_by or table.key[0]) if name not in wanted]
        wanted = (*first, *wanted)
    return (*(name for name in dict.fromkeys(wanted) if name not in provenance), *provenance)


def measure_columns(table: AggregateTable, name: str) -> tuple[str, ...]:
    """The columns of a measure: its own, and for an average of processed rows the sum and count that it is from."""
    measure = table.measures[name]
    if measure.function == "avg" and table.is_merged(measure):
        return name, f"{name}_sum", f"{name}_count"
    return (name,)


def sum_type(kind: str) -> str:
    """The type of a sum: of integers long, of decimals the longest decimal, otherwise double."""
    base = base_type(kind)
    if base == "decimal":
        scale = kind.rstrip(")").rpartition(",")[2] if "," in kind else "0"
        return f"decimal(38,{scale.strip()})"
    return "long" if base in ("int", "long") else "double"


def measure_type(measure: Measure, columns: Mapping[str, str]) -> str:
    """The type of a measure's column. `columns`: the types of the columns that it may read."""
    if measure.function == "count":
        return "long"
    if measure.function in ("avg", "percentile") or not is_column(measure.of):
        return "double"
    return sum_type(columns[measure.of]) if measure.function == "sum" else columns[measure.of]


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def _allowed(names: Iterable[str]) -> str:
    return f"allowed: {', '.join(names)}"
