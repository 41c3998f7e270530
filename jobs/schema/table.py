"""The table's contract, read from a YAML file: columns, where their values come from, types, checks and partitions.

The record parser, the Parquet schema, the Glue tables and the quarantine reasons are all derived from a
`TableContract`. No other module knows the name of a column.
"""

from __future__ import annotations

import re
from datetime import date
from functools import cached_property, partial
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from jobs.common.errors import ConfigurationError
from jobs.schema.contract_versions import as_version_2, shown_location
from jobs.schema.file_name import FileName
from jobs.schema.gold_section import GoldSection, check_section
from jobs.schema.rejections import UNPARSABLE
from jobs.schema.text_groups import check_pattern, whole
from jobs.schema.types import data_type
from jobs.settings.config_files import find_configuration, line_in_yaml, read_yaml
from jobs.settings.validation import StrictModel, explain

# A type in its notation (jobs/schema/types.py), such as "long" or "array<string>".
ColumnType = Annotated[str, AfterValidator(lambda text: str(data_type(text)))]
ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,127}$")]
NUMBERS = ("int", "long", "float", "double")
# Names and array indices from the record to a value, outermost first.
Path = tuple[str | int, ...]
# Types that can name folders: Spark, Athena and Python write their values the same way.
FOLDER_TYPES = ("string", "int", "long", "boolean", "date")

# Columns that say where a row came from. Every table has them, whatever the contract.
PROVENANCE: dict[str, tuple[ColumnType, str]] = {
    "shard_id": ("string", "Shard that the record was read from"),
    "sequence_number": ("string", "The record's sequence number in its shard"),
    "arrival_time": ("timestamp", "When Kinesis accepted the record (UTC)"),
    "batch": ("string", "Micro-batch that wrote the row: <query>-<batch>, as in the ledger"),
}
# What a column can have from a record's metadata, and its type. The batch path has other values: the delivery file's
# arrival time, its name as the shard, a position in it as the sequence number, and no partition key.
METADATA: dict[str, ColumnType] = {
    "arrival_time": "timestamp",
    "shard_id": "string",
    "sequence_number": "string",
    "partition_key": "string",
}
# Partition columns of the raw table, which also has the contract's columns.
RAW_PARTITIONS = ("ingest_date", "hour")


# How a YAML file writes a value of a type that can have `allowed`.
_ALLOWED_TYPES: dict[str, type] = {"string": str, "int": int, "long": int, "boolean": bool, "date": date}
# Values are from -2^bits to 2^bits - 1.
INTEGER_BITS = {"int": 31, "long": 63}
# The most characters of a column with a pattern and no max_length: a match can take 50 microseconds a character.
LONGEST_MATCHED = 4096


class Column(StrictModel, strict=False):
    """A column and the rules on its values. A value that breaks a rule rejects its record; an absent value breaks none.

    allowed      the values that the column may have
    max_length   the most characters (Unicode code points) of a string; with a pattern LONGEST_MATCHED by default
    pattern      a regular expression of RE2 that must match the whole string
    """

    column: ColumnName
    type: ColumnType
    allowed: Annotated[tuple[str | int | bool | date, ...], Field(min_length=1, max_length=10_000)] | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None
    pattern: str | None = None
    comment: str = ""

    @property
    def has_rules(self) -> bool:
        """Whether the column has one of the rules."""
        return (self.allowed, self.max_length, self.pattern) != (None, None, None)

    @property
    def longest(self) -> int | None:
        """The most characters that a value may have; None: no limit."""
        if self.max_length is None and self.pattern is not None:
            return LONGEST_MATCHED
        return self.max_length

    @model_validator(mode="after")
    def _rules_fit_the_type(self) -> Column:
        if self.type != "string":
            for name, rule in (("pattern", self.pattern), ("max_length", self.max_length)):
                if rule is not None:
                    raise ValueError(f"{name} is for strings, not for {self.type}")
        if self.pattern is not None:
            self._check_pattern(self.pattern)
        if self.allowed is not None:
            self._check_allowed(self.allowed)
        return self

    def _check_pattern(self, pattern: str) -> None:
        try:
            pc.match_substring_regex(pa.array([""]), pattern)
            # As it is used, too: `\Q` without `\E` takes the rest of the text literally.
            matches(pattern, "")
        except pa.ArrowInvalid as error:
            raise ValueError(f"pattern: {error} (RE2 has no look-around and no back-references)") from error
        for value in self.allowed or ():
            if isinstance(value, str) and not matches(pattern, value):
                raise ValueError(f"allowed: the pattern does not match {value!r}")

    def _check_allowed(self, allowed: tuple[str | int | bool | date, ...]) -> None:
        wanted = _ALLOWED_TYPES.get(self.type)
        if wanted is None:
            raise ValueError(f"allowed is for {', '.join(_ALLOWED_TYPES)}, not for {self.type}")
        bits = INTEGER_BITS.get(self.type)
        for value in allowed:
            if type(value) is not wanted or (bits and not -(1 << bits) <= int(value) < 1 << bits):  # type: ignore[arg-type]
                raise ValueError(f"allowed: {value!r} is no {self.type}")
            if value == "":
                raise ValueError("allowed: an empty text counts as absent; leave out `required` instead")
            if self.longest is not None and len(str(value)) > self.longest:
                raise ValueError(f"allowed: {value!r} is longer than max_length")


def is_number(kind: ColumnType) -> bool:
    """Whether the type can have `min` and `max`."""
    return kind in NUMBERS or kind.startswith("decimal")


def match_whole(pattern: str, texts: pa.Array) -> pa.Array:
    """Whether the pattern, a regular expression of RE2, matches the whole of each text; null for null."""
    return pc.match_substring_regex(texts, whole(pattern))


def matches(pattern: str, text: str) -> bool:
    """`match_whole` for one text."""
    return bool(match_whole(pattern, pa.array([text], pa.string()))[0].as_py())


class DerivedColumn(Column, strict=False):
    """A column whose value is one group of another column's pattern."""

    type: Literal["string", "date", "int", "long", "double"]
    format: str | None = None

    @model_validator(mode="after")
    def _format_of_a_date(self) -> DerivedColumn:
        if (self.type == "date") != (self.format is not None):
            raise ValueError("a date needs a format, and only a date has one")
        if self.format is not None and sorted(re.findall(r"[A-Za-z]+", self.format)) != ["MM", "dd", "yyyy"]:
            raise ValueError("a date's format is made of yyyy, MM and dd, each once")
        return self


class Parse(StrictModel, strict=False):
    """How a text is split: `pattern` (RE2) must match all of it, and group n becomes column n of `into`.

    A text that is longer than the column's `max_length` is not split.
    """

    pattern: str
    reason: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = UNPARSABLE
    into: tuple[DerivedColumn, ...]

    @model_validator(mode="after")
    def _a_group_for_each_column(self) -> Parse:
        groups = check_pattern(self.pattern)
        if groups != len(self.into):
            raise ValueError(f"the pattern has {groups} groups for {len(self.into)} columns")
        return self


class SourceColumn(Column, strict=False):
    """A column whose value comes from the record on the stream.

    source     the name of a top-level field, taken literally; by default the column's own name
    path       instead: the way to a nested value, `user.id` or, for names with dots and for arrays, `[odd.key, 0]`
    metadata   instead: a name of METADATA
    """

    source: Annotated[str, Field(min_length=1)] | None = None
    path: Annotated[Path, Field(min_length=1)] | None = None
    metadata: Literal["arrival_time", "shard_id", "sequence_number", "partition_key"] | None = None
    required: bool = False
    default: str | None = None
    min: float | None = None
    max: float | None = None
    parse: Parse | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_origin(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        given = [key for key in ("source", "path", "metadata") if content.get(key) is not None]
        if len(given) > 1:
            raise ValueError(f"a value has one origin, not {' and '.join(given)}")
        added: dict[str, Any] = {} if given else {"source": content.get("column")}
        if content.get("metadata") in METADATA and "type" not in content:
            added["type"] = METADATA[content["metadata"]]
        return content | added

    @field_validator("path", mode="before")
    @classmethod
    def _dotted(cls, path: Any) -> Any:
        return tuple(path.split(".")) if isinstance(path, str) else path

    @field_validator("path")
    @classmethod
    def _leads_into_an_object(cls, path: Path | None) -> Path | None:
        if path is not None and any(part == "" or (isinstance(part, int) and part < 0) for part in path):
            raise ValueError("path: no name is empty and no index negative; write user.id or [user, 0, id]")
        if path is not None and not isinstance(path[0], str):
            raise ValueError("path: a record is an object, so the first part is a field's name")
        return path

    @model_validator(mode="after")
    def _sensible(self) -> SourceColumn:
        if (self.min is not None or self.max is not None) and not is_number(self.type):
            raise ValueError(f"min and max are for numbers, not for {self.type}")
        if (self.parse is not None or self.default is not None) and self.type != "string":
            raise ValueError(f"parse and default are for strings, not for {self.type}")
        if self.required and self.default is not None:
            raise ValueError("a required column has no default")
        if self.metadata is not None:
            self._check_metadata()
        self._check_default()
        return self

    def _check_metadata(self) -> None:
        kind = METADATA[str(self.metadata)]
        if self.type != kind:
            raise ValueError(f"metadata {self.metadata} has the type {kind}, not {self.type}")
        rules = (self.required, self.default is not None, self.parse is not None, self.has_rules)
        if any(rules):
            raise ValueError("a value from the metadata is not checked: leave out required, default, parse and rules")

    @property
    def location(self) -> Path:
        """Where the value is in the record; empty for a value from the metadata."""
        return self.path or ((self.source,) if self.source is not None else ())

    @property
    def field(self) -> str:
        """What errors and rejections call the value: its field's name, or its path as `cart.items.0`."""
        return ".".join(map(str, self.location)) if self.metadata is None else str(self.metadata)

    def _check_default(self) -> None:
        if self.default is None or not self.has_rules:
            return
        fits = self.pattern is None or matches(self.pattern, self.default)
        listed = self.allowed is None or self.default in self.allowed
        if not (fits and listed and len(self.default) <= (self.longest or len(self.default))):
            raise ValueError(f"the default {self.default!r} breaks the column's own allowed, max_length or pattern")


class Check(StrictModel, strict=False):
    """A check across columns. `ascending`: each value is at most the next one; null values are skipped."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    ascending: Annotated[tuple[str, ...], Field(min_length=2)]


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
        return as_version_2(content)

    @model_validator(mode="after")
    def _names_are_known_and_used_once(self) -> TableContract:
        names = [name for name, _, _ in self.row_columns] + [*PROVENANCE, *RAW_PARTITIONS]
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
        metadata = {column.column for column in self.columns if column.metadata}
        for name in self.partition_by:
            if kinds[name] not in FOLDER_TYPES or name == self.rescued_column:
                raise ValueError(
                    f"partition_by: {name!r} ({kinds[name]}) cannot name folders; allowed: a column of type "
                    f"{', '.join(FOLDER_TYPES)} other than {self.rescued_column!r}"
                )
            if name in metadata:
                raise ValueError(f"partition_by: {name!r} is from the metadata, whose texts cannot name folders")
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
        return tuple(column for column in self.columns if column.metadata is None)

    @cached_property
    def metadata_columns(self) -> tuple[SourceColumn, ...]:
        """The columns whose values are in the record's metadata."""
        return tuple(column for column in self.columns if column.metadata is not None)

    @cached_property
    def data_columns(self) -> tuple[tuple[str, ColumnType, str], ...]:
        """(name, type, comment) of each column that comes from the record, in table order."""
        metadata = {column.column for column in self.metadata_columns}
        return tuple(column for column in self.row_columns if column[0] not in metadata)

    @cached_property
    def row_columns(self) -> tuple[tuple[str, ColumnType, str], ...]:
        """(name, type, comment) of each column of the contract, from the record or its metadata, in table order."""
        found: list[tuple[str, ColumnType, str]] = []
        for column in self.columns:
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
