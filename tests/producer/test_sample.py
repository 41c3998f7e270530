"""Made-up exports: in the real shape, the same for the same seed, as many bad rows as asked for."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter

import pytest

from jobs.common.errors import ConfigurationError
from jobs.schema.checks import RecordChecks
from jobs.schema.table import load_contract
from producer.csv_reader import ExportReader, city_of, find_exports, read_records
from producer.sample import BAD_KINDS, write_sample

CHECKS = RecordChecks(load_contract("travel_times.yaml"))


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path):
    contents = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample = write_sample(500, tmp_path / folder, seed=seed, bad_rate=0.1)
        contents.append([file.read_bytes() for file in sample.files])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.mark.parametrize(("rows", "cities", "rate"), [(1000, 3, 0.05), (7, 3, 0.5), (0, 2, 0.0), (10, 1, 1.0)])
def test_rows_cities_and_bad_rows_are_as_many_as_asked_for(tmp_path, rows, cities, rate):
    sample = write_sample(rows, tmp_path, cities=cities, bad_rate=rate)
    records = [record for file in sample.files for record in read_records(file)]
    assert len(records) == rows
    assert len(sample.files) == cities
    assert sum(CHECKS.reject(record) is not None for record in records) == round(rows * rate) == sample.bad
    assert sum(sample.bad_kinds.values()) == sample.bad


def test_every_kind_of_bad_row_is_rejected_for_a_reason_of_its_own(tmp_path):
    (good,) = read_records(write_sample(1, tmp_path, cities=1).files[0])
    for kind, spoil in BAD_KINDS.items():
        spoilt = {key: str(value) for key, value in (good | spoil(good)).items()}
        assert CHECKS.reject(spoilt) is not None, kind


def test_the_columns_are_those_of_the_real_exports(tmp_path, exports):
    sample = write_sample(10, tmp_path)
    headers = {tuple(next(csv.reader(file.open(encoding="utf-8")))) for file in sample.files}
    real = set()
    for export in find_exports([exports]):
        with ExportReader(export) as reader:
            real.add(tuple(reader.header))
    assert headers == real


def test_a_pair_stands_once_in_a_period_and_names_hold_more_than_ascii(tmp_path):
    sample = write_sample(3000, tmp_path, cities=1)
    records = list(read_records(sample.files[0]))
    pairs = [
        (record["Date Range"], record["Origin Movement ID"], record["Destination Movement ID"]) for record in records
    ]
    assert len(set(pairs)) == len(pairs)
    assert any(not record["Origin Display Name"].isascii() for record in records)
    assert {city_of(str(file)) for file in sample.files} == {"Paris"}


def test_numbers_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ConfigurationError):
        write_sample(10, tmp_path, bad_rate=1.5)


def test_zones_lie_side_by_side_and_times_grow_with_the_distance(tmp_path):
    (_, file) = write_sample(2000, tmp_path, cities=2).files
    records = list(read_records(file))
    rings = {record["Origin Movement ID"]: json.loads(record["Origin Geometry"]) for record in records}
    borders = Counter(frozenset(map(tuple, pair)) for ring in rings.values() for pair in itertools.pairwise(ring))
    assert set(borders.values()) == {1, 2}, "a border is of one zone, at the city's edge, or of two"
    assert all(ring[0] == ring[-1] for ring in rings.values())

    def seconds(reach):
        found = [
            int(record["Mean Travel Time (Seconds)"])
            for record in records
            if abs(int(record["Origin Movement ID"]) - int(record["Destination Movement ID"])) == reach
        ]
        return sum(found) / len(found)

    assert seconds(1) < seconds(15)
