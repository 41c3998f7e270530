"""The local crawler infers Hive types from JSON as Glue's crawler does."""

from __future__ import annotations

from typing import Any

import pytest

from local.json_schema import columns_of, merge_names, objects_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ('{"a": 1}{"a": 2}', [{"a": 1}, {"a": 2}]),
        ('{"a": "}{"}{"a": "\\""}', [{"a": "}{"}, {"a": '"'}]),
        ('  {"a": 1}\r\n\r\n[1, 2] 3', [{"a": 1}, [1, 2], 3]),
        ('{"a": 1}{"a": ', [{"a": 1}]),
        ("", []),
        ("no json", []),
    ],
)
def test_objects_are_found_with_and_without_white_space_between_them(text: str, expected: list[Any]) -> None:
    assert list(objects_in(text)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1], "int"),
        ([1, 2**31], "bigint"),
        ([-(2**31) - 1], "bigint"),
        ([1, 1.5], "double"),
        ([2**40, 1.5], "double"),
        ([True], "boolean"),
        ([True, 1], "string"),
        ([1, "1"], "string"),
        ([None], "string"),
        ([None, 1, None], "int"),
        ([[]], "array<string>"),
        ([[1], [2.5]], "array<double>"),
        ([[1, "a"]], "array<string>"),
        ([{"X": 1}, {"y": "a"}], "struct<x:int,y:string>"),
        ([{"x": 1}, 1], "string"),
        ([[{"x": 1}, {"x": None, "y": True}]], "array<struct<x:int,y:boolean>>"),
    ],
)
def test_the_type_is_the_narrowest_that_holds_every_value(values: list[Any], expected: str) -> None:
    assert columns_of({"Field": value} for value in values) == [("field", expected)]


def test_columns_are_in_the_order_of_first_appearance_and_other_values_have_none() -> None:
    assert columns_of([{"B": 1}, 5, {"A": "x", "B": 2}]) == [("b", "int"), ("a", "string")]


@pytest.mark.parametrize(
    ("known", "found", "expected"),
    [
        (None, "int", "int"),
        ("int", "bigint", "bigint"),
        ("double", "int", "double"),
        ("string", "int", "string"),
        ("struct<a:int>", "struct<a:int,b:int>", "struct<a:int,b:int>"),
    ],
)
def test_types_of_the_catalog_are_widened_never_narrowed(known: str | None, found: str, expected: str) -> None:
    assert merge_names(known, found) == expected
