"""Error messages of wrong settings and contracts."""

from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from jobs.settings.validation import StrictModel, explain


class Inner(StrictModel):
    width: int = Field(default=1, ge=1)


class Outer(StrictModel, strict=False):
    items: tuple[Inner, ...] | None = None
    inner: Inner = Inner()
    needed: str


def messages(content: object) -> list[str]:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(content)
    return explain(error.value, Outer, lambda key: f"file[{key}]").splitlines()


def test_each_mistake_has_a_line_with_origin_key_and_value() -> None:
    assert messages({"inner": {"width": 0}}) == [
        "file[inner.width]: inner.width: input should be greater than or equal to 1; got 0",
        "file[needed]: needed: is missing",
    ]


def test_a_key_of_an_earlier_release_is_named_with_its_new_name() -> None:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate({"needed": "x", "inner": {"breadth": 1}})
    told = explain(error.value, Outer, lambda key: f"file[{key}]", {"inner.breadth": "inner.width"})
    assert told == "file[inner.breadth]: inner.breadth: renamed to inner.width"


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    assert messages({"needed": "x", "items": [{}, {"widht": 1}]}) == [
        "file[items.1.widht]: items.1.widht: unknown key; did you mean 'width'? known here: width"
    ]
    assert messages({"needed": "x", "zzz": 1}) == ["file[zzz]: zzz: unknown key; known here: inner, items, needed"]


def test_a_mistake_of_the_whole_file_has_no_key() -> None:
    (line,) = messages([1])
    assert line.startswith("file[]: input should be a valid dictionary")


def test_a_long_value_is_cut() -> None:
    (line,) = messages({"needed": ["x" * 500]})
    assert line.endswith("...")
    assert len(line) < 200
