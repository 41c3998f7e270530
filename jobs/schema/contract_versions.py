"""The versions of a contract's file, before it is validated. Both become the content of one model, `TableContract`.

Version 1 lists its columns, each with a `source`. Version 2 is a mapping of columns by name.
"""

from __future__ import annotations

from typing import Any

from jobs.schema.file_name import CITY

_COLUMNS = "columns"


def as_version_2(content: Any) -> Any:
    """The file's content with its columns as a list of entries, each with its name as `column`.

    What is not a contract stays as it is; the model says what is wrong with it.
    """
    if not isinstance(content, dict) or content.get("version") not in (1, 2):
        return content
    columns = content.get(_COLUMNS)
    if isinstance(columns, dict):
        columns = [_named(name, entry) for name, entry in columns.items()]
    elif content["version"] == 1 and "file_name" not in content and _has_city(columns):
        # Before the section existed, the producer's code read the city from the file's name.
        content = content | {"file_name": CITY}
    return content | {"version": 2} | ({_COLUMNS: columns} if _COLUMNS in content else {})


def _has_city(columns: Any) -> bool:
    listed = columns if isinstance(columns, list) else []
    return any(isinstance(column, dict) and column.get("source") == "City" for column in listed)


def _named(name: Any, entry: Any) -> Any:
    if entry is None:
        return {"column": name}
    if isinstance(entry, dict) and "column" in entry:
        raise ValueError(f"columns.{name}: the key is the column's name; leave out `column`, or write `source`")
    return {"column": name, **entry} if isinstance(entry, dict) else entry


def shown_location(content: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The location of a mistake with a column's name in place of its index."""
    if location[:1] != (_COLUMNS,) or len(location) < 2 or not isinstance(location[1], int):
        return location
    columns = content[_COLUMNS]
    name = list(columns)[location[1]] if isinstance(columns, dict) else columns[location[1]].get("column")
    return (_COLUMNS, name if isinstance(name, str) else location[1], *location[2:])
