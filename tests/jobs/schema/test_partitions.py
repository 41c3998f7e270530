"""Partition folders: names read back unchanged, and Spark writes the same names."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.schema.partitions import NULL_PARTITION, escape, is_usable, parse_partition_path, partition_path, unescape
from tests.helpers.samples import ODD_NAMES, REFUSED_NAMES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@given(st.text())
def test_every_text_is_read_back_unchanged(text: str) -> None:
    assert unescape(escape(text)) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_usable_value_is_one_folder_that_is_read_back_unchanged(text: str) -> None:
    path = partition_path(["city"], {"city": text})
    assert "/" not in path
    if is_usable("city", text):
        assert parse_partition_path(path) == {"city": text}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_unusual_names_are_usable_and_read_back_unchanged(name: str) -> None:
    assert is_usable("city", name)
    path = partition_path(["city", "start_date"], {"city": name, "start_date": date(2016, 9, 3)})
    assert parse_partition_path(path) == {"city": name, "start_date": "2016-09-03"}


def test_folders_have_hives_names() -> None:
    assert partition_path(["city", "day"], {"city": "a/b=c %", "day": None}) == (
        "city=a%2Fb%3Dc %25/day=__HIVE_DEFAULT_PARTITION__"
    )
    assert partition_path(["x"], {"x": ""}) == f"x={NULL_PARTITION}"
    assert partition_path(["x", "y"], {"x": True, "y": -5}) == "x=true/y=-5"
    assert partition_path(["x"], {"x": False}) == "x=false", "false is a value, not its absence"
    assert partition_path(["x"], {"x": 0}) == "x=0"


def test_the_null_partition_is_read_back_as_null() -> None:
    assert parse_partition_path(f"city={NULL_PARTITION}/") == {"city": None}


def test_a_path_that_is_not_a_partition_is_refused() -> None:
    with pytest.raises(ValueError, match="'2016' is not of the form name=value"):
        parse_partition_path("city=Paris/2016")


@pytest.mark.parametrize(
    ("value", "usable"),
    [
        ("x" * 250, True),
        ("x" * 251, False),
        ("é" * 125, True),
        ("é" * 126, False),
        ("/" * 83, True),
        ("/" * 84, False),
        ("a\0b", False),
        ("a\uffff", False),
        (NULL_PARTITION, False),
    ],
)
def test_a_value_that_cannot_name_a_folder_is_not_usable(value: str, usable: bool) -> None:
    assert is_usable("city", value) is usable


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_a_value_that_glue_refuses_is_not_usable_and_is_read_back_unchanged_from_an_older_lake(name: str) -> None:
    assert not is_usable("city", name)
    assert parse_partition_path(partition_path(["city"], {"city": name})) == {"city": name}


def test_the_names_of_all_partition_columns_fit_into_an_s3_key_together() -> None:
    for columns, longest in ((1, 255), (2, 255), (3, 233), (4, 175)):
        value = "x" * (longest - len("city="))
        assert is_usable("city", value, columns)
        assert not is_usable("city", value + "x", columns)


@pytest.mark.spark
def test_spark_escapes_the_same(spark: SparkSession) -> None:
    theirs = spark.sparkContext._jvm.org.apache.spark.sql.catalyst.catalog.ExternalCatalogUtils
    every = [chr(code) for code in range(1, 0x10000) if not 0xD800 <= code <= 0xDFFF]
    texts = [*ODD_NAMES, *("".join(every[start : start + 512]) for start in range(0, len(every), 512))]
    for text in texts:
        assert escape(text) == theirs.escapePathName(text)
        assert unescape(theirs.escapePathName(text)) == theirs.unescapePathName(escape(text)) == text
