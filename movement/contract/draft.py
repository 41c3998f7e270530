"""Drafts a contract from a sample's records: the text of a YAML file, with what the sample shows as comments.

In: records, as JSON documents. Out: a `Draft`. The draft accepts every record of its sample: it is tried on all
of them, and a column that rejects one becomes a string.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from jobs.common.errors import TerminalError
from jobs.schema.decoded_types import can_name_a_field
from jobs.schema.encoding import gunzip
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import BAD_PARTITION, Rejection
from jobs.schema.table import FOLDER_TYPES, PROVENANCE, TableContract, contract_of
from jobs.schema.types import data_type
from jobs.schema.values import GZIP_MAGIC, as_text, read_object
from jobs.settings.config_files import parse_yaml
from movement.contract.inference import Seen

_RESCUED = "rescued_data"
_RESERVED = {*PROVENANCE, _RESCUED}
_LONGEST_NAME = 100
# Distinct values are counted up to here, except for a column of which no value has repeated yet.
_MOST_DISTINCT = 1_000
# A column names folders if it has at most this many values, and a tenth as many as there are records.
_MOST_FOLDERS, _RECORDS_A_FOLDER = 100, 10
_KEY_TYPES = ("string", "int", "long")
_MOST_KEYS = 3
_TIME_NAME = re.compile(r"time|date|_at$|^ts$|_ts$|stamp|created|updated|when")


@dataclass
class DraftColumn:
    """A column of the draft.

    distinct  number of different values; None: more than 1,000
    unique    whether no value occurs twice
    """

    name: str
    source: str
    type: str
    required: bool
    present: int
    distinct: int | None
    unique: bool
    notes: list[str]
    format: str | None
    names_folders: bool = True

    @property
    def can_name_folders(self) -> bool:
        """Whether `partition_by` takes the type and, as far as that is known, all values."""
        return self.names_folders and self.type in FOLDER_TYPES


@dataclass
class Draft:
    """A contract's text, the contract that it is, and the documents of the sample that no contract accepts."""

    text: str
    contract: TableContract
    records: int
    unreadable: list[Rejection] = field(default_factory=list)


@dataclass(slots=True)
class _Values:
    """The different values of one field, as texts' hashes."""

    seen: set[int] = field(default_factory=set)
    repeated: bool = False
    many: bool = False

    def see(self, value: Any) -> None:
        if self.many or value is None or value == "":
            return
        key = hash(as_text(value))
        self.repeated = self.repeated or key in self.seen
        self.seen.add(key)
        if self.repeated and len(self.seen) > _MOST_DISTINCT:
            self.many, self.seen = True, set()


def draft_contract(documents: Sequence[bytes], name: str, origin: str) -> Draft:
    """Drafts the contract `name` of the documents. `origin` is named in the file's first line.

    Raises TerminalError if no document is a JSON object with a field that can be a column's source.
    """
    root, values, records, unreadable = Seen(), dict[str, _Values](), list[bytes](), list[Rejection]()
    largest = TableContract.model_fields["max_record_bytes"].default
    encoding = "gzip" if any(document.startswith(GZIP_MAGIC) for document in documents) else "none"
    for document in documents:
        decoded = gunzip(document, largest)
        found = decoded if isinstance(decoded, Rejection) else read_object(decoded, largest)
        if isinstance(found, Rejection):
            unreadable.append(found)
            continue
        records.append(document)
        root.see(found)
        for key, value in found.items():
            values.setdefault(key, _Values()).see(value)
    columns = list(_columns(root, values, len(records)))
    if not columns:
        raise TerminalError(
            f"{origin}: no record of {len(documents):,} is a JSON object with fields; give a sample that has some"
        )
    while True:
        text = _text(name, origin, len(records), columns, encoding)
        contract = contract_of(parse_yaml(text, Path(origin)), Path(origin))
        rejection = next(_rejections(contract, records), None)
        if rejection is None:
            return Draft(text, contract, len(records), unreadable)
        _loosen(rejection, columns)


def _rejections(contract: TableContract, records: Sequence[bytes]) -> Iterator[Rejection]:
    parser = RecordParser(contract)
    for start in range(0, len(records), 10_000):
        yield from parser.parse(pa.array(records[start : start + 10_000], pa.binary())).rejections.values()


def _loosen(why: Rejection, columns: Sequence[DraftColumn]) -> None:
    """Lets the draft accept a record that it has rejected. Each column is changed at most twice."""
    column = next((column for column in columns if column.source == why.field), None)
    if column is not None and why.reason == BAD_PARTITION and column.names_folders:
        column.names_folders = False
    elif column is not None and why.reason != BAD_PARTITION and column.type != "string":
        column.notes.append(f"{column.type} does not take every value")
        column.type, column.format = "string", None
    else:
        raise TerminalError(f"the draft rejects a record of its own sample: {why}; please report it with the sample")


def _columns(root: Seen, values: dict[str, _Values], records: int) -> Iterator[DraftColumn]:
    # Like the rows of a CSV file: no value of any record has a type of its own.
    typed_texts = all(seen.kinds <= {"text"} for seen in root.fields.values())
    taken = set(_RESERVED)
    for source, seen in root.fields.items():
        if not source:
            continue  # no column can have the field without a name: it is rescued
        name = _column_name(source, taken)
        taken.add(name)
        kind, notes = seen.type(typed_texts)
        form = None
        if kind in ("int", "long") and (epoch := seen.numbers.epoch()) is not None:
            if _TIME_NAME.search(name):
                kind, form = "timestamp", epoch
            elif epoch != "epoch_seconds":
                notes.append(f"may be a timestamp with the format {epoch}")
        if kind == "string" and (patterns := seen.patterns()):
            if len(patterns) == 1:
                kind, form = patterns[0]
            else:
                forms = " or ".join(pattern for _, pattern in patterns)
                notes.append(f"a {patterns[0][0]} with the format {forms}: the sample does not tell which")
        found = values[source]
        yield DraftColumn(
            name,
            source,
            kind,
            bool(seen.count) and seen.count == records,
            seen.count,
            None if found.many else len(found.seen),
            not found.repeated and seen.count > 1,
            notes,
            form,
        )


def _column_name(source: str, taken: set[str]) -> str:
    """The field's name in snake_case: `userId` and `User ID` become `user_id`. Another one if it is taken."""
    letters = unicodedata.normalize("NFKD", source.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", letters)
    name = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:_LONGEST_NAME].rstrip("_")
    name = name if name[:1].isalpha() else f"field_{name}".rstrip("_")
    name = f"record_{name}" if name in _RESERVED else name
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def contract_name(origin: str) -> str:
    """The name of a contract from a file's or a stream's name."""
    stem = Path(origin).name
    while Path(stem).suffix:
        stem = Path(stem).stem
    return _column_name(stem, set())


def _partition_by(columns: Sequence[DraftColumn], records: int) -> tuple[str, dict[str, str]]:
    """The partition column, and the text of the columns by name that are added for it.

    A date of the record, the date of its time, a column of few values, or the date of its arrival.
    """
    dates = [column for column in columns if column.can_name_folders and column.type == "date"]
    times = [column for column in columns if column.type == "timestamp"]
    taken = {column.name for column in columns}
    for column in sorted([*dates, *times], key=lambda one: (one not in dates, one.unique, not one.required)):
        if column in dates:
            return column.name, {}
        name = _column_name(f"{column.name}_date", taken | _RESERVED)
        return name, {name: f"{{from: {_yaml(column.name)}, transform: date}}"}
    few = _few_values(columns, records)
    if few:
        return few[0].name, {}
    arrived = _column_name("arrived", taken | _RESERVED)
    day = _column_name("arrival_date", taken | _RESERVED)
    return day, {arrived: "{metadata: arrival_time}", day: f"{{from: {_yaml(arrived)}, transform: date}}"}


def _few_values(columns: Sequence[DraftColumn], records: int) -> list[DraftColumn]:
    """The columns that can name folders and have few values, first those that are never null."""
    most = max(1, min(_MOST_FOLDERS, records // _RECORDS_A_FOLDER))
    found = [column for column in columns if column.can_name_folders and column.distinct and column.distinct <= most]
    return sorted(found, key=lambda column: not column.required)


def _stream_key(columns: Sequence[DraftColumn]) -> DraftColumn:
    """The column of the most values, first one that is never null and not nested."""
    flat = [column for column in columns if not data_type(column.type).is_nested and can_name_a_field(column.source)]
    return max(
        flat or columns,
        key=lambda column: (
            column.type in _KEY_TYPES,
            column.required,
            column.distinct if column.distinct is not None else _MOST_DISTINCT + 1,
        ),
    )


def _text(
    name: str,
    origin: str,
    records: int,
    columns: Sequence[DraftColumn],
    encoding: str,
) -> str:
    title = f"Drafted from {records:,} record{'s' if records != 1 else ''} of {origin}"
    lines = [
        f"# {_comment(title)} by `movement contract init`.",
        "# Read it before you use it: a sample shows what values are, not what they may become.",
        "# docs/contract.md explains the keys. Try it: movement contract check FILE --sample PATH",
        "version: 2",
        f"name: {name}",
        "",
        "columns:",
    ]
    partition, added = _partition_by(columns, records)
    width = max(len(_yaml(name)) for name in (*(column.name for column in columns), *added))
    for column in columns:
        keys = [] if column.source == column.name else [f"source: {_yaml(column.source)}"]
        keys.append(f"type: {_yaml(column.type)}")
        keys += [
            *([f"format: {_yaml(column.format)}"] if column.format else []),
            *(["required: true"] if column.required else []),
        ]
        about = "; ".join(_about(column, records))
        label = f"{_yaml(column.name)}:"
        lines.append(f"  {label:<{width + 1}} {{{', '.join(keys)}}}" + (f"  # {_comment(about)}" if about else ""))
    lines += [f"  {f'{_yaml(name)}:':<{width + 1}} {keys}" for name, keys in added.items()]
    lines += ["", "# Fields that have no column are kept here, as one JSON object.", f"rescued_column: {_RESCUED}", ""]
    lines += _partition_lines(columns, partition, records)
    lines += _key_lines(columns)
    if encoding == "gzip":
        lines += ["", "# Records of the sample are gzip of their JSON.", "encoding: gzip"]
    return "\n".join(lines) + "\n"


def _about(column: DraftColumn, records: int) -> Iterator[str]:
    if 0 < column.present < records:
        yield f"null in {records - column.present:,} of {records:,}"
    if column.distinct and not column.unique and column.distinct <= _MOST_FOLDERS < records:
        yield f"{column.distinct:,} value{'s' if column.distinct != 1 else ''}"
    yield from column.notes


def _partition_lines(columns: Sequence[DraftColumn], partition: str, records: int) -> list[str]:
    others = [
        f"{column.name} ({column.distinct:,})" for column in _few_values(columns, records) if column.name != partition
    ]
    lines = ["# Folders of the table: a column that queries filter by, with few values."]
    if others:
        lines.append(f"# Other candidates, with their number of values: {', '.join(others)}")
    return [*lines, f"partition_by: [{_yaml(partition)}]", ""]


def _key_lines(columns: Sequence[DraftColumn]) -> list[str]:
    key = _stream_key(columns)
    unique = [column.name for column in columns if column.unique and column.required and column.type in _KEY_TYPES]
    lines = ["# Records with the same value stay in order on the stream; many different values spread its load."]
    if unique:
        lines.append(
            f"# No value occurs twice, so a gold table can have it as its key: {' or '.join(unique[:_MOST_KEYS])}"
        )
    return [*lines, f"stream_partition_key: [{_yaml(key.name)}]"]


def _yaml(text: str) -> str:
    """A text as a scalar within `{…}`: quoted if YAML would read it as something else."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) and yaml.safe_load(text) == text:
        return text
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))).strip()


def _comment(text: str) -> str:
    """The text on one line, without characters that YAML does not have."""
    return "".join(char if char.isprintable() else " " for char in text)
