"""docs/contract.md explains each key of a contract, and no key that does not exist."""

from __future__ import annotations

import re

from jobs.schema.columns import Check, Column, Parse, SourceColumn
from jobs.schema.file_name import FileName
from jobs.schema.table import TableContract
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
# A line that begins with keys explains them: the row of a table of keys, or a paragraph's first line.
KEYS = r"`[a-z_]+`(?:(?:, | and )`[a-z_]+`)*"


def section(*titles: str) -> str:
    found = {part.partition("\n")[0]: part.partition("\n")[2] for part in PAGE.split("\n## ")[1:]}
    return "\n".join(found[title] for title in titles)


def explained(text: str) -> set[str]:
    """The keys that the text explains. The rows of a table of values, such as the types, are none of them."""
    found = set[str]()
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip().splitlines()
        table = bool(lines) and lines[0].startswith("|")
        first = lines[2:] if table and lines[0].startswith("| key ") else lines[:1]
        for line in first:
            at_start = re.match(rf"(?:\| )?({KEYS})(?= |$)", line)
            found.update(re.findall(r"`([a-z_]+)`", at_start[1]) if at_start else ())
    return found


def test_each_key_of_a_column_is_explained_and_no_other() -> None:
    text = section("Where a value comes from", "Types", "Checks")
    # A column's name is a key of `columns`.
    assert explained(text) == set(SourceColumn.fields_by_key()) - {"column"} | {"columns"}
    assert set(Column.fields_by_key()) <= set(SourceColumn.fields_by_key())


def test_each_key_of_the_contract_is_explained_and_no_other() -> None:
    # `columns` and `checks` have sections of their own.
    assert explained(section("The table")) == set(TableContract.fields_by_key()) - {"version", "columns", "checks"}
    assert "\nversion: 2\n" in PAGE
    assert "## Version 1" in PAGE


def test_the_keys_within_parse_checks_and_file_name_are_named() -> None:
    [parse] = [line for line in PAGE.splitlines() if line.startswith("| `parse`")]
    assert [key for key in Parse.fields_by_key() if f"`{key}`" not in parse] == []
    [checks] = [part for part in PAGE.split("\n\n") if part.startswith("The contract's own `checks`")]
    more = section("Checks").partition("`on_fail` is a key of")[2]
    assert [key for key in Check.fields_by_key() if f"{key}:" not in checks and (key != "on_fail" or not more)] == []
    producer = (ROOT / "docs" / "producer.md").read_text(encoding="utf-8")
    assert [key for key in FileName.fields_by_key() if not re.search(rf"`(file_name\.)?{key}\b", producer)] == []
