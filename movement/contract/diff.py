"""What changes from one contract to another, in words, and whether a lake with data takes it.

In: two contracts. Out: `Change`s. The code of the job's start decides what is refused: `schema_evolution.mismatch` on
the Glue tables, and with `sink.format: delta` the Delta log's rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs.catalog.schema_evolution import mismatch
from jobs.catalog.tables import glue_table, stream_tables
from jobs.schema.columns import SourceColumn
from jobs.schema.table import TableContract

_NEXT_BATCH = "applies from the next batch"
_ADDED = "added to the tables; null in existing rows"
# Of a rule that is a bound: whether a larger value lets more records pass.
_LARGER_IS_LOOSER = {"min": False, "max": True, "max_length": True}
_SAME_COLUMN = ("column", "type", "comment")
_OF_THE_CONTRACT = (
    "checks",
    "sort_by",
    "stream_partition_key",
    "max_record_bytes",
    "raw",
    "encoding",
    "file_name",
    "gold",
)


@dataclass(frozen=True)
class Change:
    """One change.

    where    a key of the contract, such as `columns.total.min`
    what     what changes, in words
    effect   what it means for a lake with data
    refused  whether the job would not start on a lake with data
    """

    where: str
    what: str
    effect: str
    refused: bool = False


def changes(old: TableContract, new: TableContract, sink_format: str = "parquet") -> list[Change]:
    """The changes from `old` to `new`: first those that a lake with data refuses."""
    refused = list(dict.fromkeys(_refusals(old, new, sink_format)))
    return [*(Change(where, what, "refused", True) for where, what in refused), *_taken(old, new)]


def _refusals(old: TableContract, new: TableContract, sink_format: str) -> Iterator[tuple[str, str]]:
    after = {table.name: glue_table(table, "s3://lake") for table in stream_tables(new, sink_format)}
    for table in stream_tables(old, sink_format):
        found = mismatch(glue_table(table, "s3://lake"), after[table.name])
        for why in found.why if found else ():
            yield f"table {table.name}", why
    if sink_format == "delta":
        from jobs.stream.delta_commits import table_schema, why_unfit

        yield from (("table processed", why) for why in why_unfit(table_schema(old), old.partition_by, new))


def _taken(old: TableContract, new: TableContract) -> Iterator[Change]:
    before = {name: kind for name, kind, _ in old.row_columns}
    for name, kind, _ in new.row_columns:
        if name not in before:
            yield Change(f"columns.{name}", f"new column of type {kind}", _ADDED)
        elif before[name] != kind:
            yield Change(f"columns.{name}.type", f"{before[name]} becomes {kind}", "existing files stay as they are")
    columns = {column.column: column for column in old.columns}
    for column in new.columns:
        if column.column in columns:
            yield from _column_changes(columns[column.column], column)
    comments = {name: comment for name, _, comment in old.row_columns}
    for name, _, comment in new.row_columns:
        if comments.get(name, comment) != comment:
            yield Change(f"columns.{name}.comment", "another comment", "updated in the tables")
    for key in _OF_THE_CONTRACT:
        was, now = getattr(old, key), getattr(new, key)
        if was != now:
            effect = "see docs/gold.md for what existing gold tables take" if key == "gold" else _NEXT_BATCH
            yield Change(key, _became(was, now), effect)
    if old.comment != new.comment:
        yield Change("comment", "another comment", "updated in the tables")


def _column_changes(old: SourceColumn, new: SourceColumn) -> Iterator[Change]:
    if (old.location, old.metadata) != (new.location, new.metadata):
        yield Change(
            f"columns.{new.column}", f"its value comes from {_origin(new)}, no longer from {_origin(old)}", _NEXT_BATCH
        )
    for key, field in type(new).model_fields.items():
        was, now = getattr(old, key), getattr(new, key)
        if was == now or key in (*_SAME_COLUMN, "source", "path", "metadata") or field.exclude:
            continue
        direction = _direction(key, was, now)
        what = _became(was, now) if direction is None else f"{direction}: {_became(was, now)}"
        yield Change(f"columns.{new.column}.{field.alias or key}", what, _NEXT_BATCH)


def _origin(column: SourceColumn) -> str:
    return "elsewhere in the contract" if column.is_derived else repr(column.field)


def _direction(key: str, was: Any, now: Any) -> str | None:
    """Whether fewer records pass the rule, or more; None if neither is sure."""
    if key == "required":
        return "tightened" if now else "loosened"
    if key not in (*_LARGER_IS_LOOSER, "allowed", "pattern"):
        return None
    if was is None or now is None:
        return "tightened" if was is None else "loosened"
    if key in _LARGER_IS_LOOSER:
        return "loosened" if (now > was) == _LARGER_IS_LOOSER[key] else "tightened"
    if key == "allowed" and set(was) != set(now):
        return "tightened" if set(now) < set(was) else "loosened" if set(now) > set(was) else None
    return None


def _became(was: Any, now: Any) -> str:
    if _shown(was) == _shown(now):
        return "changed"
    return f"{_shown(was)} becomes {_shown(now)}"


def _shown(value: Any) -> str:
    if value is None or value in ((), ""):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and all(isinstance(one, str | int) for one in value):
        text = f"[{', '.join(map(str, value))}]"
    elif isinstance(value, str | int | float):
        text = f"{value:g}" if isinstance(value, float) else str(value)
    else:
        return "its definition"
    return text if len(text) <= 80 else f"{text[:79]}…"
