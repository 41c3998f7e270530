"""pydantic's complaints in our words."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.settings.validation import explain


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: Annotated[int, Field(ge=1)] = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: tuple[Inner, ...] | None = None
    inner: Inner = Inner()
    needed: str


def complaints(content: object) -> list[str]:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(content)
    return explain(error.value, Outer, lambda key: f"file[{key}]").splitlines()


def test_each_mistake_is_a_line_with_origin_key_and_value() -> None:
    assert complaints({"inner": {"width": 0}}) == [
        "file[inner.width]: inner.width: input should be greater than or equal to 1; got 0",
        "file[needed]: needed: is missing",
    ]


def test_an_unknown_key_lists_those_known_at_its_place() -> None:
    assert complaints({"needed": "x", "items": [{}, {"widht": 1}]}) == [
        "file[items.1.widht]: items.1.widht: unknown key; did you mean 'width'? known here: width"
    ]
    assert complaints({"needed": "x", "zzz": 1}) == ["file[zzz]: zzz: unknown key; known here: inner, items, needed"]


def test_a_mistake_of_the_whole_has_no_key() -> None:
    (line,) = complaints([1])
    assert line.startswith("file[]: input should be a valid dictionary")


def test_a_long_value_is_cut() -> None:
    (line,) = complaints({"needed": ["x" * 500]})
    assert line.endswith("...")
    assert len(line) < 200
