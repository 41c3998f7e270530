"""Rewrites the text of a contract of version 1 as version 2. Comments and the order of keys stay.

The text is changed at the places that PyYAML's nodes name, and the result is checked: both texts must give the same
contract.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from jobs.common.errors import ConfigurationError
from jobs.schema.table import TableContract, contract_of
from jobs.settings.config_files import parse_yaml


def upgraded(text: str, path: Path) -> str:
    """The text as version 2; as it is if it is version 2. Raises ConfigurationError for an invalid contract."""
    before = _contract(text, path)
    if (parse_yaml(text, path) or {}).get("version") != 1:
        return text
    top = _top(text)
    if top["columns"].start_mark.column == 0:
        # A list may have its dashes below the first letter of `columns`; the keys of a mapping are further in.
        start, end = top["columns"].start_mark.index, top["columns"].end_mark.index
        text = text[:start] + "".join(f"  {line}" for line in text[start:end].splitlines(True)) + text[end:]
        top = _top(text)
    edits = [(top["version"].start_mark.index, top["version"].end_mark.index, "2")]
    for entry in top["columns"].value:
        edits += _flow(text, entry) if entry.flow_style else _block(text, entry)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    if "file_name" not in top and before.file_name is not None:
        pattern = before.file_name.pattern.replace("'", "''")
        text = f"{text.rstrip()}\n\n# Fields that are in a file's name.\nfile_name:\n  pattern: '{pattern}'\n"
    try:
        same = _contract(text, path) == before
    except ConfigurationError:
        same = False
    if not same:
        raise ConfigurationError(
            f"{path}: its layout of `columns` cannot be rewritten. Write each key of a column on a line of its own, or "
            "a column as {source: a, column: b, type: string}, and try again. Nothing was changed"
        )
    return text


def _top(text: str) -> dict[str, yaml.Node]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return {key.value: value for key, value in root.value} if root else {}


Edit = tuple[int, int, str]  # start, end, new text


def _block(text: str, entry: yaml.MappingNode) -> list[Edit]:
    """`- source: a` with its keys below becomes `name:` with all keys below, one level deeper than the dash."""
    name_key, name = _named(entry)
    dash = text.rindex("-", 0, entry.start_mark.index)
    line = text.rindex("\n", 0, dash) + 1
    indent = " " * (entry.start_mark.index - line)
    outer = " " * (dash - line)
    own_start, own_end = _line(text, name_key.start_mark.index, name.end_mark.index)
    title = f"{outer}{_key(name)}:"
    if own_start <= dash:  # `- column: name`
        return [(line, name.end_mark.index, title)]
    return [(line, entry.start_mark.index, f"{title}\n{indent}"), (own_start, own_end, "")]


def _flow(text: str, entry: yaml.MappingNode) -> list[Edit]:
    """`- {source: a, column: b, type: string}` becomes `b: {source: a, type: string}`."""
    name_key, name = _named(entry)
    dash = text.rindex("-", 0, entry.start_mark.index)
    start, end = name_key.start_mark.index, name.end_mark.index
    after = text[end:].lstrip()
    if after.startswith(","):
        end = text.index(",", end) + 1
        end += len(text[end:]) - len(text[end:].lstrip())
    else:
        start = text.rindex(",", 0, start)
    return [(dash, entry.start_mark.index, f"{_key(name)}: "), (start, end, "")]


def _named(entry: yaml.MappingNode) -> tuple[yaml.Node, yaml.ScalarNode]:
    return next((key, value) for key, value in entry.value if key.value == "column")


def _key(name: yaml.ScalarNode) -> str:
    """A column's name as a key: quoted if YAML would read it as true, null or a number."""
    return str(name.value if isinstance(yaml.safe_load(name.value), str) else json.dumps(name.value))


def _line(text: str, start: int, end: int) -> tuple[int, int]:
    """The whole line or lines of a place, with the last line's end."""
    return text.rindex("\n", 0, start) + 1, text.index("\n", end) + 1 if "\n" in text[end:] else len(text)


def _contract(text: str, path: Path) -> TableContract:
    return contract_of(parse_yaml(text, path), path)
