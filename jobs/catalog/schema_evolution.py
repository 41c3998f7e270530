"""Schema evolution of the Glue tables: what may change, and the updated definitions. Pure functions, no calls to AWS.

A change is allowed if every reader (Spark, pyarrow, Athena, Hive) can still read the existing files: new columns, the
type changes of WIDER, comments, and how raw finds its fields. New columns go to the end, whatever the contract's
order, because some readers go by position.
Sources: https://docs.aws.amazon.com/athena/latest/ug/handling-schema-updates-chapter.html (adding columns),
…/updates-changing-column-type.html (of our types only INT to BIGINT), …/updates-and-partitions.html; Spark's
ParquetVectorUpdaterFactory. docs/adr/0010 has the table of what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.common.errors import IncompatibleSchemaError

# By Glue type in the catalog: the types that it may become.
WIDER: Mapping[str, tuple[str, ...]] = {"int": ("bigint",)}

# The table parameter that is set until all partitions have been migrated to the table's schema.
PARTITIONS_BEHIND = "movement.partitions_behind"

# The keys of GetTable's answer that UpdateTable accepts.
_INPUT = (
    "Name", "Description", "Owner", "LastAccessTime", "LastAnalyzedTime", "Retention", "StorageDescriptor",
    "PartitionKeys", "ViewOriginalText", "ViewExpandedText", "TableType", "Parameters", "TargetTable",
)  # fmt: skip

# A table as Glue describes it: the answer of GetTable, or a TableInput.
GlueTable = Mapping[str, Any]


@dataclass(frozen=True)
class Mismatch:
    """A table that cannot follow the contract. `why`: one phrase per reason; then both schemas."""

    table: str
    why: tuple[str, ...]
    catalog: Sequence[Mapping[str, str]]
    contract: Sequence[Mapping[str, str]]


def mismatch(found: GlueTable, wanted: GlueTable) -> Mismatch | None:
    """Why the table `found` (as GetTable returns it) cannot become `wanted` (our TableInput); None if it can."""
    why = []
    before, after = found.get("StorageDescriptor", {}), wanted["StorageDescriptor"]
    serde = before.get("SerdeInfo", {}).get("SerializationLibrary", "")
    if serde != after["SerdeInfo"]["SerializationLibrary"]:
        why.append(f"its files are read by {serde or 'nothing'}, not by {after['SerdeInfo']['SerializationLibrary']}")
    if not is_same_location(found, wanted):
        why.append(f"its location is {before.get('Location')}, not {after['Location']}")
    keys, wanted_keys = _names_and_types(found.get("PartitionKeys", [])), _names_and_types(wanted["PartitionKeys"])
    if keys != wanted_keys:
        why.append(f"its partition columns are {_listed(keys)}, not {_listed(wanted_keys)}")
    types = dict(_names_and_types(after["Columns"]))
    for name, kind in _names_and_types(before.get("Columns", [])):
        if name not in types:
            why.append(f"column {name} ({kind}) is no longer in the contract")
        elif types[name] != kind and types[name] not in WIDER.get(kind, ()):
            why.append(f"column {name} is {kind} and cannot become {types[name]}")
    if not why:
        return None
    return Mismatch(
        wanted["Name"],
        tuple(why),
        [*before.get("Columns", []), *found.get("PartitionKeys", [])],
        [*after["Columns"], *wanted["PartitionKeys"]],
    )


@dataclass(frozen=True)
class TableUpdate:
    """The TableInput for UpdateTable. `migrate_partitions`: more than descriptions and comments changes."""

    table: dict[str, Any]
    migrate_partitions: bool


def table_update(found: GlueTable, wanted: GlueTable) -> TableUpdate | None:
    """The update from `found` to `wanted`, which must have no `mismatch`; None if nothing changes.

    Keeps what others have set (parameters, owner, retention), and the comments of partition columns, which Glue may
    refuse to change. Sets PARTITIONS_BEHIND if the partitions must be migrated.
    """
    storage = {**found["StorageDescriptor"]}
    migrate = _merge(storage, wanted["StorageDescriptor"], ours_win=True)
    table = table_input(found)
    table["StorageDescriptor"] = storage
    if wanted["Description"] != found.get("Description", ""):
        table["Description"] = wanted["Description"]
    table["Parameters"] = {**found.get("Parameters", {}), **wanted["Parameters"]}
    if migrate:
        table["Parameters"][PARTITIONS_BEHIND] = "true"
    return TableUpdate(table, migrate) if any(table[key] != found.get(key) for key in table) else None


def redefinition(found: GlueTable, wanted: GlueTable) -> dict[str, Any]:
    """The TableInput that makes a table without data `wanted`. Keeps its owner and retention."""
    return {key: found[key] for key in ("Owner", "Retention") if found.get(key) is not None} | dict(wanted)


def is_same_location(found: GlueTable, wanted: GlueTable) -> bool:
    """Whether both tables have their files in the same folder."""
    locations = [str(table.get("StorageDescriptor", {}).get("Location", "")) for table in (found, wanted)]
    return normalized_location(locations[0]) == normalized_location(locations[1])


def table_input(found: GlueTable) -> dict[str, Any]:
    """The TableInput that leaves the table as it is."""
    return {key: found[key] for key in _INPUT if found.get(key) is not None}


def partition_update(found: GlueTable, wanted: GlueTable) -> dict[str, Any] | None:
    """The PartitionInput that migrates a partition to its table's schema; None if it has all of it.

    Removes and narrows no column: a job with an older contract may call this on a newer partition.
    """
    storage = {**found["StorageDescriptor"]}
    if not _merge(storage, wanted["StorageDescriptor"], ours_win=False):
        return None
    kept = ("Values", "LastAccessTime", "Parameters", "LastAnalyzedTime")
    return {key: found[key] for key in kept if found.get(key) is not None} | {"StorageDescriptor": storage}


def _merge(storage: dict[str, Any], wanted: Mapping[str, Any], *, ours_win: bool) -> bool:
    """Adds the columns, wider types and SerDe parameters of `wanted` to `storage`.

    `ours_win`: on a conflict, whether `wanted` decides a column's comment and how a field is found. Returns whether
    more than comments changed.
    """
    new = {column["Name"]: column for column in wanted["Columns"]}
    columns, changed = [], False
    for column in storage.get("Columns", []):
        ours = new.pop(column["Name"], column)
        merged = dict(column)
        if ours["Type"] in WIDER.get(column["Type"], ()):
            merged["Type"], changed = ours["Type"], True
        if ours_win and ours.get("Comment", "") != column.get("Comment", ""):
            merged["Comment"] = ours["Comment"]
        columns.append(merged)
    storage["Columns"] = columns + list(new.values())
    theirs, parameters = storage.get("SerdeInfo", {}).get("Parameters", {}), wanted["SerdeInfo"]["Parameters"]
    both = {**theirs, **parameters} if ours_win else {**parameters, **theirs}
    storage["SerdeInfo"] = {**storage.get("SerdeInfo", {}), "Parameters": both}
    return changed or bool(new) or not parameters.keys() <= theirs.keys()


def incompatible_schema(database: str, mismatches: Sequence[Mismatch]) -> IncompatibleSchemaError:
    """The error for tables that cannot follow the contract: the reasons, both schemas side by side and the remedy."""
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
        "Nothing was started or changed, because existing files would become unreadable. Keep the column as it is (one "
        "that the source no longer sends may stay, without `required`), or give the new contract tables of its own: "
        "`database` and `lake`. A new column, and int changed to long, need neither"
    )
    return IncompatibleSchemaError("\n".join(text))


def _side_by_side(shown: Mismatch) -> list[str]:
    catalog, contract = dict(_names_and_types(shown.catalog)), dict(_names_and_types(shown.contract))
    names = list(dict.fromkeys([*catalog, *contract]))
    width = max(len(name) for name in [*names, "column"])
    rows = [("column", "in the catalog", "by the contract", "")]
    for name in names:
        before, after = catalog.get(name, "-"), contract.get(name, "-")
        rows.append((name, before, after, "" if before == after else _verdict(before, after)))
    return [
        f"  {name:<{width}}  {before:<14}  {after:<15}  {verdict}".rstrip() for name, before, after, verdict in rows
    ]


def _verdict(before: str, after: str) -> str:
    if before == "-":
        return "would be added"
    return "would be widened" if after in WIDER.get(before, ()) else "<-- refused"


def _names_and_types(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    return [(column["Name"], column.get("Type", "")) for column in columns]


def _listed(columns: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns) or "none"


def normalized_location(location: str) -> str:
    """A location for comparison: s3a and s3n count as s3, a trailing slash is ignored."""
    scheme, separator, rest = location.partition("://")
    return ("s3" if scheme in ("s3a", "s3n") else scheme) + separator + rest.rstrip("/")
