"""The table's contract, read from a YAML file: columns, where their values come from, types, checks and partitions.

The record parser, the Parquet schema, the Glue tables and the quarantine reasons are all derived from a
`TableContract`. No other module knows the name of a column.
"""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from jobs.common.errors import ConfigurationError
from jobs.schema.columns import METADATA, NUMBERS, Check, ColumnName, ColumnType, Path, SourceColumn
from jobs.schema.contract_versions import as_version_2, shown_location
from jobs.schema.file_name import FileName
from jobs.schema.gold_section import GoldSection, check_section
from jobs.schema.partitions import is_usable
from jobs.schema.privacy import check_private_columns
from jobs.schema.transforms import SAFE_FOLDERS, with_source_types
from jobs.schema.types import data_type
from jobs.settings.config_files import find_configuration, line_in_yaml, read_yaml
from jobs.settings.validation import StrictModel, explain

# Types that can name folders: Spark, Athena and Python write their values the same way.
FOLDER_TYPES = ("string", "int", "long", "boolean", "date")

# Columns that say where a row came from. Every table has them, whatever the contract.
PROVENANCE: dict[str, tuple[ColumnType, str]] = {
    "shard_id": ("string", "Shard that the record was read from"),
    "sequence_number": ("string", "The record's sequence number in its shard"),
    "arrival_time": ("timestamp", "When Kinesis accepted the record (UTC)"),
    "batch": ("string", "Micro-batch that wrote the row: <query>-<batch>, as in the ledger"),
}
# Partition columns of the raw table, which also has the record's fields as columns.
RAW_PARTITIONS = ("ingest_date", "hour")


class TableContract(StrictModel, strict=False):
    """The columns of a table and where their values come from. docs/contract.md explains each key.

    A file of version 1, whose columns are a list, is translated: there is one model.
    """

    version: Literal[1, 2]
    name: ColumnName
    comment: str = ""
    columns: Annotated[tuple[SourceColumn, ...], Field(min_length=1)]
    checks: tuple[Check, ...] = ()
    rescued_column: ColumnName = "rescued_data"
    raw: Literal["as_received", "redacted"] = "as_received"
    encoding: Literal["none", "gzip"] = "none"
    max_record_bytes: Annotated[int, Field(ge=1, le=10 * 1024 * 1024)] = 10 * 1024 * 1024
    partition_by: Annotated[tuple[str, ...], Field(min_length=1)]
    sort_by: tuple[str, ...] = ()
    stream_partition_key: Annotated[tuple[str, ...], Field(min_length=1)]
    file_name: FileName | None = None
    gold: GoldSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_version_2(cls, content: Any) -> Any:
        content = as_version_2(content)
        if isinstance(content, dict) and isinstance(content.get("columns"), list | tuple):
            content = content | {"columns": with_source_types(content["columns"], METADATA)}
        return content

    @model_validator(mode="after")
    def _names_are_known_and_used_once(self) -> TableContract:
        names = [name for name, _, _ in self.row_columns] + list(PROVENANCE)
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"column {', '.join(map(repr, doubled))} is used more than once")
        known = {name for name, _, _ in self.row_columns}
        for key, wanted in (
            ("partition_by", self.partition_by),
            ("sort_by", self.sort_by),
            *((f"checks.{check.name}", check.ascending) for check in self.checks),
        ):
            for name in wanted:
                if name not in known:
                    raise ValueError(f"{key}: no column is named {name!r}")
            if len(set(wanted)) < len(wanted):
                raise ValueError(f"{key}: a column is used more than once")
        for name in self.stream_partition_key:
            if name not in self._key_locations:
                raise ValueError(f"stream_partition_key: no source field or column is named {name!r}")
        for name in self.file_name.source_fields if self.file_name else ():
            if name not in self.source_fields:
                raise ValueError(f"file_name: no source field is named {name!r}")
        return self

    @model_validator(mode="after")
    def _types_fit_their_use(self) -> TableContract:
        kinds = {name: kind for name, kind, _ in self.row_columns}
        metadata = {column.column for column in (*self.metadata_columns, *self.late_columns)}
        unsafe = {column.column for column in self.metadata_columns} | {
            column.column
            for column in self.late_columns
            if column.transformation and column.transformation.name not in SAFE_FOLDERS
        }
        for name in self.partition_by:
            if kinds[name] not in FOLDER_TYPES or name == self.rescued_column:
                raise ValueError(
                    f"partition_by: {name!r} ({kinds[name]}) cannot name folders; allowed: a column of type "
                    f"{', '.join(FOLDER_TYPES)} other than {self.rescued_column!r}"
                )
            if name in unsafe:
                raise ValueError(
                    f"partition_by: {name!r} is from the metadata, whose texts cannot name folders; allowed: its "
                    f"{', '.join(sorted(SAFE_FOLDERS))}"
                )
        for column in self.columns:
            if column.constant is None or column.column not in self.partition_by:
                continue
            if not is_usable(column.column, column.constant, len(self.partition_by)):
                raise ValueError(f"partition_by: the constant {column.constant!r} cannot name a folder")
        for name in self.sort_by:
            if data_type(kinds[name]).is_nested:
                raise ValueError(f"sort_by: {name!r} ({kinds[name]}) has no order")
        for check in self.checks:
            found = {"number" if kinds[name] in NUMBERS else kinds[name] for name in check.ascending}
            if len(found) > 1:
                raise ValueError(
                    f"checks.{check.name}: cannot compare {' with '.join(sorted(found))}; allowed: columns of one "
                    "type, or numbers"
                )
            for name in check.ascending:
                if data_type(kinds[name]).is_nested or kinds[name] in ("json", "boolean") or name in metadata:
                    raise ValueError(f"checks.{check.name}: {name!r} cannot be compared")
        return self

    @model_validator(mode="after")
    def _private_values_stay_private(self) -> TableContract:
        check_private_columns(self.columns, self.partition_by, self.checks, self.key_locations, self.raw == "redacted")
        if self.raw == "redacted" and self.encoding != "none":
            raise ValueError(f"raw: redacted is for records without encoding, not for {self.encoding}")
        for name, root in self.roots.items():
            if root.privacy is not None:
                raise ValueError(
                    f"columns.{name}: from: {root.column!r} is private, and a derived column would show its value"
                )
        return self

    @model_validator(mode="after")
    def _gold_can_be_computed(self) -> TableContract:
        if self.gold is not None:
            check_section(self.gold, self.row_types)
        return self

    @cached_property
    def row_types(self) -> dict[str, str]:
        """The types of a processed row's columns, by name; PROVENANCE comes last."""
        types: dict[str, str] = {name: kind for name, kind, _ in self.data_columns}
        return types | {name: kind for name, (kind, _) in PROVENANCE.items()}

    @cached_property
    def record_columns(self) -> tuple[SourceColumn, ...]:
        """The columns whose values are in the record."""
        return tuple(column for column in self.columns if column.location)

    @cached_property
    def metadata_columns(self) -> tuple[SourceColumn, ...]:
        """The columns whose values are in the record's metadata."""
        return tuple(column for column in self.columns if column.metadata is not None)

    @cached_property
    def roots(self) -> dict[str, SourceColumn]:
        """For each derived column that is not a constant: the column that its value is from in the end."""
        found: dict[str, SourceColumn] = {}
        for column in self.columns:
            found[column.column] = column if column.from_ is None else found[column.from_]
            for part in column.parse.into if column.parse else ():
                found[part.column] = column
        return {column.column: found[column.column] for column in self.columns if column.from_ is not None}

    @cached_property
    def derived_columns(self) -> tuple[SourceColumn, ...]:
        """The constants, and the columns whose values come from others that are in the record."""
        late = {column.column for column in self.late_columns}
        return tuple(column for column in self.columns if column.is_derived and column.column not in late)

    @cached_property
    def late_columns(self) -> tuple[SourceColumn, ...]:
        """The columns whose values come from others that are in the record's metadata."""
        late = {name for name, root in self.roots.items() if root.metadata is not None}
        return tuple(column for column in self.columns if column.column in late)

    @cached_property
    def data_columns(self) -> tuple[tuple[str, ColumnType, str], ...]:
        """(name, type, comment) of each column that does not depend on the record's metadata, in table order."""
        metadata = {column.column for column in (*self.metadata_columns, *self.late_columns)}
        return tuple(column for column in self.row_columns if column[0] not in metadata)

    @cached_property
    def row_columns(self) -> tuple[tuple[str, ColumnType, str], ...]:
        """(name, type, comment) of each column of the contract, from the record or its metadata, in table order."""
        found: list[tuple[str, ColumnType, str]] = []
        for column in self.columns:
            if column.privacy == "drop":
                continue
            found.append((column.column, column.type, column.comment))
            if column.parse:
                found += [(part.column, part.type, part.comment) for part in column.parse.into]
        found.append((self.rescued_column, "string", "Fields that the contract does not name, as one JSON object"))
        return tuple(found)

    @cached_property
    def source_fields(self) -> tuple[str, ...]:
        """The top-level fields that the contract names, in table order."""
        return tuple(dict.fromkeys(str(column.location[0]) for column in self.record_columns))

    @cached_property
    def _key_locations(self) -> dict[str, Path]:
        """The places that `stream_partition_key` can name: a source field first, then a column."""
        by_column = {column.column: column.location for column in self.record_columns}
        return by_column | {column.source: column.location for column in self.record_columns if column.source}

    @cached_property
    def key_locations(self) -> tuple[Path, ...]:
        """Where the values of the record's partition key on the stream are in the record."""
        return tuple(self._key_locations[name] for name in self.stream_partition_key)

    @cached_property
    def table_columns(self) -> tuple[tuple[str, ColumnType, str], ...]:
        """(name, type, comment) of each column in a data file: all except the partition columns."""
        provenance = tuple((name, kind, comment) for name, (kind, comment) in PROVENANCE.items())
        return tuple(column for column in self.row_columns + provenance if column[0] not in self.partition_by)

    @cached_property
    def partition_columns(self) -> tuple[tuple[str, ColumnType, str], ...]:
        """(name, type, comment) of the partition columns, in the order of the folders."""
        by_name = {column[0]: column for column in self.row_columns}
        return tuple(by_name[name] for name in self.partition_by)


def load_contract(name: str) -> TableContract:
    """Loads a contract. `name` is a path, an s3:// URI or the name of a file that ships in `conf/`.

        contract = load_contract("travel_times.yaml")
        contract.data_columns[0]  # ("city", "string", "The city, from the name of …")
        contract.partition_by     # ("city", "start_date")

    Raises ConfigurationError with one line for each mistake: file, line, key, value and what is allowed.
    AwsAccessError and TransientError come from reading a file on S3.
    """
    path = find_configuration(name)
    return contract_of(read_yaml(path), path)


def contract_of(content: Any, path: FilePath) -> TableContract:
    """The contract with a YAML file's content. Raises ConfigurationError as `load_contract` does."""
    try:
        return TableContract.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(
            explain(error, TableContract, partial(line_in_yaml, path), shown=partial(shown_location, content))
        ) from error
