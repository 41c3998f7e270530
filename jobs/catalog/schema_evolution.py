"""A table of the catalog and a changed contract: what may change, and what the table becomes. Pure decisions.

What may change is what every reader bears with the files that are there: Spark, pyarrow, Athena, Hive. That is a new
column, a type of WIDER, comments, how raw finds its fields. New columns go to the end, whatever the contract's order:
readers that go by position then find every column of an older partition where it was.
Sources: https://docs.aws.amazon.com/athena/latest/ug/handling-schema-updates-chapter.html (adding columns),
…/updates-changing-column-type.html (INT to BIGINT alone, of our types), …/updates-and-partitions.html; Spark's
ParquetVectorUpdaterFactory. docs/adr/0010 has the table of what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.common.errors import IncompatibleSchemaError

# Glue's type in the catalog → the types that it may become.
WIDER: Mapping[str, tuple[str, ...]] = {"int": ("bigint",)}

# A parameter of the table while its partitions have not all been brought up to it.
BEHIND = "movement.partitions_behind"

# What UpdateTable takes of what GetTable gives.
_INPUT = (
    "Name", "Description", "Owner", "LastAccessTime", "LastAnalyzedTime", "Retention", "StorageDescriptor",
    "PartitionKeys", "ViewOriginalText", "ViewExpandedText", "TableType", "Parameters", "TargetTable",
)  # fmt: skip

Shape = Mapping[str, Any]


@dataclass(frozen=True)
class Mismatch:
    """A table that cannot become what the contract says: `why`, a phrase each, and both schemas."""

    table: str
    why: tuple[str, ...]
    catalog: Sequence[Mapping[str, str]]
    contract: Sequence[Mapping[str, str]]


def mismatch(found: Shape, wanted: Shape) -> Mismatch | None:
    """What of `wanted` (our TableInput) the table `found` (as GetTable gives it) cannot become; None: nothing."""
    why = []
    before, after = found.get("StorageDescriptor", {}), wanted["StorageDescriptor"]
    serde = before.get("SerdeInfo", {}).get("SerializationLibrary", "")
    if serde != after["SerdeInfo"]["SerializationLibrary"]:
        why.append(f"its files are read by {serde or 'nothing'}, not by {after['SerdeInfo']['SerializationLibrary']}")
    if _place(before.get("Location", "")) != _place(after["Location"]):
        why.append(f"it lies at {before.get('Location')}, not at {after['Location']}")
    keys, wanted_keys = _names_and_types(found.get("PartitionKeys", [])), _names_and_types(wanted["PartitionKeys"])
    if keys != wanted_keys:
        why.append(f"its partition columns are {_listed(keys)}, not {_listed(wanted_keys)}")
    kinds = dict(_names_and_types(after["Columns"]))
    for name, kind in _names_and_types(before.get("Columns", [])):
        if name not in kinds:
            why.append(f"column {name} ({kind}) is no longer in the contract")
        elif kinds[name] != kind and kinds[name] not in WIDER.get(kind, ()):
            why.append(f"column {name} is {kind} and cannot become {kinds[name]}")
    if not why:
        return None
    return Mismatch(
        wanted["Name"],
        tuple(why),
        [*before.get("Columns", []), *found.get("PartitionKeys", [])],
        [*after["Columns"], *wanted["PartitionKeys"]],
    )


@dataclass(frozen=True)
class Update:
    """What UpdateTable is given. `follow`: there is more in it than words, and partitions have to follow."""

    table: dict[str, Any]
    follow: bool


def evolved(found: Shape, wanted: Shape) -> Update | None:
    """The update that brings the table up to `wanted`; None where it is. There must be no `mismatch`.

    What others have set (parameters, owner, retention) stays, and so do partition columns' comments, which Glue may
    refuse to change. Parameter BEHIND is set where partitions have to follow.
    """
    storage = {**found["StorageDescriptor"]}
    follow = _bring_up(storage, wanted["StorageDescriptor"], ours_win=True)
    table = table_input(found)
    table["StorageDescriptor"] = storage
    if wanted["Description"] != found.get("Description", ""):
        table["Description"] = wanted["Description"]
    table["Parameters"] = {**found.get("Parameters", {}), **wanted["Parameters"]}
    if follow:
        table["Parameters"][BEHIND] = "true"
    return Update(table, follow) if any(table[key] != found.get(key) for key in table) else None


def table_input(found: Shape) -> dict[str, Any]:
    """The TableInput that leaves the table as it was `found`."""
    return {key: found[key] for key in _INPUT if found.get(key) is not None}


def evolved_partition(found: Shape, wanted: Shape) -> dict[str, Any] | None:
    """The PartitionInput that brings a partition up to its table's `wanted`; None where it is, or is ahead of it.

    A column of a partition is never taken away or made narrower: a job with an older contract may come by here.
    """
    storage = {**found["StorageDescriptor"]}
    if not _bring_up(storage, wanted["StorageDescriptor"], ours_win=False):
        return None
    kept = ("Values", "LastAccessTime", "Parameters", "LastAnalyzedTime")
    return {key: found[key] for key in kept if found.get(key) is not None} | {"StorageDescriptor": storage}


def _bring_up(storage: dict[str, Any], wanted: Shape, *, ours_win: bool) -> bool:
    """Adds to `storage` what `wanted` has more; whether that is more than comments and words.

    `ours_win`: where both say how a field is found, and what a column's comment is.
    """
    by_name = {column["Name"]: column for column in wanted["Columns"]}
    columns, follow = [], False
    for column in storage.get("Columns", []):
        ours = by_name.pop(column["Name"], column)
        same = dict(column)
        if ours["Type"] in WIDER.get(column["Type"], ()):
            same["Type"], follow = ours["Type"], True
        if ours_win and ours.get("Comment", "") != column.get("Comment", ""):
            same["Comment"] = ours["Comment"]
        columns.append(same)
    storage["Columns"] = columns + list(by_name.values())
    theirs, parameters = storage.get("SerdeInfo", {}).get("Parameters", {}), wanted["SerdeInfo"]["Parameters"]
    merged = {**theirs, **parameters} if ours_win else {**parameters, **theirs}
    storage["SerdeInfo"] = {**storage.get("SerdeInfo", {}), "Parameters": merged}
    return follow or bool(by_name) or not parameters.keys() <= theirs.keys()


def refusal(database: str, mismatches: Sequence[Mismatch]) -> IncompatibleSchemaError:
    """The error for tables that cannot follow the contract: why, both schemas side by side, and the remedy."""
    shown = max(mismatches, key=lambda found: len({column["Type"] for column in found.contract}))
    text = [f"table {database}.{shown.table} cannot follow the contract:"]
    text += [f"  - {why}" for why in shown.why]
    text += ["", *_side_by_side(shown), ""]
    text += [
        f"table {database}.{found.table} cannot either: {'; '.join(found.why)}"
        for found in mismatches
        if found is not shown
    ]
    text.append(
        "Nothing was started or changed. Files that are there would not be readable any more. Keep the column as it is "
        "(one that the source no longer sends may stay, without `required`), or give the new contract tables of its "
        "own: `database` and `lake`. A new column, and int made long, need neither"
    )
    return IncompatibleSchemaError("\n".join(text))


def _side_by_side(shown: Mismatch) -> list[str]:
    catalog, contract = dict(_names_and_types(shown.catalog)), dict(_names_and_types(shown.contract))
    names = list(dict.fromkeys([*catalog, *contract]))
    width = max(len(name) for name in [*names, "column"])
    rows = [("column", "in the catalog", "by the contract", "")]
    for name in names:
        before, after = catalog.get(name, "-"), contract.get(name, "-")
        rows.append((name, before, after, "" if before == after else _mark(before, after)))
    return [f"  {name:<{width}}  {before:<14}  {after:<15}  {mark}".rstrip() for name, before, after, mark in rows]


def _mark(before: str, after: str) -> str:
    allowed = before == "-" or after in WIDER.get(before, ())
    return "would be added" if before == "-" else "would be widened" if allowed else "<-- refused"


def _names_and_types(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    return [(column["Name"], column.get("Type", "")) for column in columns]


def _listed(columns: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns) or "none"


def _place(location: str) -> str:
    """A location as it can be compared: s3a and s3n are s3, a trailing slash says nothing."""
    scheme, separator, rest = location.partition("://")
    return ("s3" if scheme in ("s3a", "s3n") else scheme) + separator + rest.rstrip("/")
