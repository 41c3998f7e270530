"""The contract's section `file_name`: source fields that are not in a file but in its name, such as the city.

The producer adds them to each record of the file. A record's own field wins.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from jobs.schema.text_groups import whole
from jobs.settings.validation import StrictModel

# For contracts of version 1 without the section: before there was one, the code of the producer read the city.
CITY = {"pattern": r"(?i)Travel_Times - (?P<City>.+?)\.(?:csv|jsonl|ndjson|json|parquet)(?:\.gz|\.zst)?"}


class FileName(StrictModel, strict=False):
    """How fields are read from a file's name. For example:

    >>> FileName(pattern=r"(?P<city>.+)-(?P<year>[0-9]{4})[.]csv", fields={"city": "City"}).read("Paris-2016.csv")
    {'City': 'Paris', 'year': '2016'}

    pattern   a regular expression (RE2) that must match the whole name, without its folder; each group has a name
    fields    group: source field, for a field that is not named as its group
    """

    pattern: str
    fields: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _each_group_is_one_field(self) -> FileName:
        try:
            groups = [field.name for field in self._match("").type]
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"pattern: {error} (RE2; a group is written (?P<name>…) or, without a name, (?:…))"
            ) from error
        if not groups:
            raise ValueError("the pattern has no group; write (?P<field>…) around the part that is a field")
        for name in self.fields:
            if name not in groups:
                raise ValueError(f"fields: the pattern has no group {name!r}; it has {', '.join(groups)}")
        names = [self.fields.get(group, group) for group in groups]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two groups are the source field {doubled[0]!r}")
        return self

    @property
    def source_fields(self) -> tuple[str, ...]:
        """The source fields of the groups, in their order."""
        return tuple(self.fields.get(field.name, field.name) for field in self._match("").type)

    def read(self, name: str) -> dict[str, str]:
        """The fields of a file's name; none if the pattern does not match it. An empty group is not a field.

        The name is normalized first (NFC), because macOS stores é as two characters. Raises UnicodeEncodeError for a
        name that is not UTF-8.
        """
        groups = self._match(unicodedata.normalize("NFC", name))[0].as_py() or {}
        return {self.fields.get(group, group): text for group, text in groups.items() if text}

    def _match(self, name: str) -> pa.StructArray:
        return pc.extract_regex(pa.array([name], pa.string()), whole(self.pattern))
