"""Synthetic exports: columns like the real ones, reproducible, and the requested number of bad rows."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from jobs.common.errors import ConfigurationError
from jobs.schema.checks import RecordChecks
from jobs.schema.table import load_contract
from producer.sample import BAD_KINDS, write_sample
from tests.helpers.input_records import read_records

CHECKS = RecordChecks(load_contract("travel_times.yaml"))


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_bytes(tmp_path: Path) -> None:
    contents = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample = write_sample(500, tmp_path / folder, seed=seed, bad_rate=0.1)
        contents.append([file.read_bytes() for file in sample.files])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.mark.parametrize(("rows", "cities", "rate"), [(1000, 3, 0.05), (7, 3, 0.5), (0, 2, 0.0), (10, 1, 1.0)])
def test_the_numbers_of_rows_cities_and_bad_rows_are_those_requested(
    tmp_path: Path, rows: int, cities: int, rate: float
) -> None:
    sample = write_sample(rows, tmp_path, cities=cities, bad_rate=rate)
    records = [record for file in sample.files for record in read_records(file)]
    assert len(records) == rows
    assert len(sample.files) == cities
    assert sum(CHECKS.reject(record) is not None for record in records) == round(rows * rate) == sample.bad
    assert sum(sample.bad_kinds.values()) == sample.bad


def test_the_contract_rejects_every_kind_of_bad_row(tmp_path: Path) -> None:
    (good,) = read_records(write_sample(1, tmp_path, cities=1).files[0])
    for kind, change in BAD_KINDS.items():
        bad = {key: str(value) for key, value in {**good, **change({**good})}.items()}
        assert CHECKS.reject(bad) is not None, kind


def test_the_columns_are_those_of_the_real_exports(tmp_path: Path, exports: Path) -> None:
    sample = write_sample(10, tmp_path)
    headers = {tuple(next(csv.reader(file.open(encoding="utf-8")))) for file in sample.files}
    real = {tuple(next(csv.reader(file.open(encoding="utf-8")))) for file in exports.glob("*.csv")}
    assert headers == real


def test_a_pair_occurs_once_in_a_period_and_names_have_non_ascii_letters(tmp_path: Path) -> None:
    sample = write_sample(3000, tmp_path, cities=1)
    records = list(read_records(sample.files[0]))
    pairs = [
        (record["Date Range"], record["Origin Movement ID"], record["Destination Movement ID"]) for record in records
    ]
    assert len(set(pairs)) == len(pairs)
    assert any(not record["Origin Display Name"].isascii() for record in records)
    assert [file.name for file in sample.files] == ["Travel_Times - Paris.csv"]


def test_a_rate_out_of_range_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--bad-rate 1\.5"):
        write_sample(10, tmp_path, bad_rate=1.5)


def test_zones_are_neighbours_and_times_grow_with_the_distance(tmp_path: Path) -> None:
    (_, file) = write_sample(2000, tmp_path, cities=2).files
    records = list(read_records(file))
    rings = {record["Origin Movement ID"]: json.loads(record["Origin Geometry"]) for record in records}
    borders = Counter(frozenset(map(tuple, pair)) for ring in rings.values() for pair in itertools.pairwise(ring))
    assert set(borders.values()) == {1, 2}, "a border belongs to two zones, or to one at the edge of the city"
    assert all(ring[0] == ring[-1] for ring in rings.values())

    def seconds(reach: int) -> float:
        found = [
            int(record["Mean Travel Time (Seconds)"])
            for record in records
            if abs(int(record["Origin Movement ID"]) - int(record["Destination Movement ID"])) == reach
        ]
        return sum(found) / len(found)

    assert seconds(1) < seconds(15)
