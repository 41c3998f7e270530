"""The columns of a contract: where their values come from, their types, formats and rules."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, field_validator, model_validator

from jobs.schema.booleans import BooleanWords, boolean_words
from jobs.schema.on_fail import OnFail, OnFailOfCheck
from jobs.schema.rejections import UNPARSABLE
from jobs.schema.text_groups import check_pattern, whole
from jobs.schema.times import TimeFormat, time_format
from jobs.schema.transforms import NAMES, Transform, transform_of
from jobs.schema.types import INTEGER_BITS, data_type
from jobs.settings.validation import StrictModel

# A type in its notation (jobs/schema/types.py), such as "long" or "array<string>".
ColumnType = Annotated[str, AfterValidator(lambda text: str(data_type(text)))]
ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,127}$")]
NUMBERS = ("int", "long", "float", "double")
# Names and array indices from the record to a value, outermost first.
Path = tuple[str | int, ...]
# What a column can have from a record's metadata, and its type. The batch path has other values: the delivery file's
# arrival time, its name as the shard, a position in it as the sequence number, and no partition key.
METADATA: dict[str, ColumnType] = {
    "arrival_time": "timestamp",
    "shard_id": "string",
    "sequence_number": "string",
    "partition_key": "string",
}
# How a YAML file writes a value of a type that can have `allowed`.
_ALLOWED_TYPES: dict[str, type] = {"string": str, "int": int, "long": int, "boolean": bool, "date": date}
# The most characters of a column with a pattern and no max_length: a match can take 50 microseconds a character.
LONGEST_MATCHED = 4096


class Column(StrictModel, strict=False):
    """A column and the rules on its values. An absent value breaks no rule.

    format       of a date or timestamp: iso, a key of EPOCHS or a pattern (jobs/schema/times.py)
    timezone     of times without an offset; UTC by default
    true_values, false_values   of a boolean: texts or numbers that stand for true and false, besides these words
    allowed      the values that the column may have
    max_length   the most characters (Unicode code points) of a string; with a pattern LONGEST_MATCHED by default
    pattern      a regular expression of RE2 that must match the whole string
    on_fail      what becomes of a value that fails a check, and of its record (jobs/schema/on_fail.py)
    """

    column: ColumnName
    type: ColumnType
    format: str | None = None
    timezone: str | None = None
    true_values: tuple[str | int, ...] = ()
    false_values: tuple[str | int, ...] = ()
    allowed: Annotated[tuple[str | int | bool | date, ...], Field(min_length=1, max_length=10_000)] | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None
    pattern: str | None = None
    on_fail: OnFail = "reject"
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

    @property
    def is_derived(self) -> bool:
        """Whether the value comes from another column's value, without a format of its own."""
        return False

    @property
    def value_format(self) -> TimeFormat | BooleanWords | None:
        """How values are read if not as the type's own notation says."""
        if self.is_derived:
            return None
        if self.format is not None or self.timezone is not None:
            return time_format(self.type, self.format, self.timezone)
        if self.true_values or self.false_values:
            return boolean_words(self.true_values, self.false_values)
        return None

    @field_validator("true_values", "false_values", mode="before")
    @classmethod
    def _words(cls, words: Any) -> Any:
        if isinstance(words, list | tuple) and any(isinstance(word, bool) for word in words):
            raise ValueError(
                "put yes, no, on and off in quotes, or YAML reads them as booleans; leave out true and false"
            )
        return words

    @model_validator(mode="after")
    def _format_fits_the_type(self) -> Column:
        zoned = self.timezone is not None and not self.is_derived
        if (self.format is not None or zoned) and self.type not in ("date", "timestamp"):
            raise ValueError(f"format and timezone are for dates and timestamps, not for {self.type}")
        if (self.true_values or self.false_values) and self.type != "boolean":
            raise ValueError(f"true_values and false_values are for booleans, not for {self.type}")
        _ = self.value_format  # raises ValueError
        return self

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

    @model_validator(mode="after")
    def _one_value(self) -> DerivedColumn:
        if data_type(self.type).is_nested:
            raise ValueError(f"a group of a pattern is one value, not {self.type}")
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
    privacy    keeps the value out of the table, or writes its hash (jobs/schema/privacy.py)
    from       instead: a column above it, whose value `transform` turns into this one's (jobs/schema/transforms.py)
    constant   instead: a text that every row has
    from_type  the type of `from`'s column, set by `with_source_types`
    """

    source: Annotated[str, Field(min_length=1)] | None = None
    path: Annotated[Path, Field(min_length=1)] | None = None
    metadata: Literal["arrival_time", "shard_id", "sequence_number", "partition_key"] | None = None
    from_: Annotated[str | None, Field(alias="from")] = None
    transform: str | None = None
    constant: Annotated[str, Field(min_length=1)] | None = None
    from_type: Annotated[str | None, Field(exclude=True)] = None
    required: bool = False
    default: str | None = None
    min: float | None = None
    max: float | None = None
    parse: Parse | None = None
    privacy: Literal["drop", "sha256"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_origin(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        given = [key for key in ("source", "path", "metadata", "from", "constant") if content.get(key) is not None]
        if len(given) > 1:
            raise ValueError(f"a value has one origin, not {' and '.join(given)}")
        added: dict[str, Any] = {} if given else {"source": content.get("column")}
        if content.get("metadata") in METADATA and "type" not in content:
            added["type"] = METADATA[content["metadata"]]
        if content.get("privacy") == "drop":
            added.setdefault("type", content.get("type", "string"))
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
        if self.required and self.on_fail == "null":
            raise ValueError(
                "on_fail: null contradicts required: a missing value is null already; leave out required, or write "
                "on_fail: warn, which counts the rows without the value"
            )
        if self.privacy is not None:
            self._check_privacy()
        if self.metadata is not None:
            self._check_metadata()
        if self.is_derived:
            self._check_derived()
        elif self.transform is not None:
            raise ValueError("transform: needs the column that it is applied to, as `from`")
        self._check_default()
        return self

    def _check_privacy(self) -> None:
        if self.metadata is not None:
            raise ValueError("privacy is for values of the record, not for its metadata")
        if self.type != "string":
            given = "a hash is a text" if self.privacy == "sha256" else "the column is not in the table"
            raise ValueError(f"privacy: {self.privacy}: {given}, so the type is string, not {self.type}")
        checked = self.has_rules or self.parse is not None or self.default is not None or self.on_fail != "reject"
        if checked or (self.required and self.privacy == "drop"):
            allowed = "none" if self.privacy == "drop" else "only `required`"
            raise ValueError(
                f"privacy: {self.privacy}: a private value is not checked, and has no default and no parts; of these "
                f"keys it takes {allowed}"
            )
        if any(isinstance(part, int) for part in self.location):
            raise ValueError(
                "privacy: a path to one element of an array cannot be private; give the whole array privacy"
            )

    def _check_derived(self) -> None:
        rules = (self.required, self.default is not None, self.parse is not None, self.min, self.max)
        given = any(rule not in (None, False) for rule in rules) or self.has_rules or self.on_fail != "reject"
        if given or self.format is not None or self.privacy is not None:
            raise ValueError("a derived column is not checked: give rules, default, format or privacy to its source")
        if self.constant is not None:
            if self.type != "string":
                raise ValueError(f"a constant is a string, not {self.type}; leave out type")
            return
        if self.from_type is None:
            raise ValueError(f"from: no column above this one is named {self.from_!r}")
        if self.transform is None:
            raise ValueError(f"from: needs a transform: {NAMES}")
        result = transform_of(self.transform, self.from_type, self.timezone).result
        if self.type != result:
            raise ValueError(f"transform {self.transform} of {self.from_type} gives {result}, not {self.type}")

    def _check_metadata(self) -> None:
        kind = METADATA[str(self.metadata)]
        if self.type != kind:
            raise ValueError(f"metadata {self.metadata} has the type {kind}, not {self.type}")
        rules = (self.required, self.default is not None, self.parse is not None, self.has_rules)
        if any(rules) or self.on_fail != "reject":
            raise ValueError(
                "a value from the metadata is not checked: leave out required, default, parse, on_fail and rules"
            )

    @property
    def is_derived(self) -> bool:
        """Whether the value is a constant or comes from another column."""
        return self.from_ is not None or self.constant is not None

    @property
    def transformation(self) -> Transform | None:
        """What makes the value from that of `from_`."""
        if self.from_ is None or self.from_type is None:
            return None
        return transform_of(str(self.transform), self.from_type, self.timezone)

    @property
    def location(self) -> Path:
        """Where the value is in the record; empty for a value from elsewhere."""
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
    on_fail: OnFailOfCheck = "reject"
