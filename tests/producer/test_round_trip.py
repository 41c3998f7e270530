"""From a CSV file to the stream and back: every field of every row is unchanged."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from jobs.common.errors import AwsAccessError
from jobs.settings.settings import load_settings
from producer.produce import produce
from producer.sample import write_sample
from tests.helpers.kinesis_streams import EmulatorStream


def rows_as_read(folder: Path) -> Counter[tuple[tuple[str, str], ...]]:
    """The rows of the files, read with the standard library."""
    found: Counter[tuple[tuple[str, str], ...]] = Counter()
    for file in folder.glob("*.csv"):
        city = file.name.removeprefix("Travel_Times - ").removesuffix(".csv")
        with file.open(encoding="utf-8", newline="") as source:
            found.update(tuple(sorted({**row, "City": city}.items())) for row in csv.DictReader(source))
    return found


@pytest.mark.aws
def test_every_field_of_the_real_files_is_unchanged(any_stream: EmulatorStream, exports: Path) -> None:
    result = produce([exports], load_settings(None, [f"stream.name={any_stream.name}"]))

    records = any_stream.records()
    found = Counter(tuple(sorted(json.loads(record["Data"]).items())) for record in records)
    assert found == rows_as_read(exports)
    assert (result.produced, result.rejected) == (3153, 0)
    assert {file.fields["City"]: file.produced for file in result.files} == {
        "Paris": 2227,
        "Boston": 700,
        "Johannesburg and Pretoria": 226,
    }


@pytest.mark.aws
def test_a_pair_of_zones_has_one_partition_key(stream: EmulatorStream, tmp_path: Path) -> None:
    write_sample(2000, tmp_path, cities=2)

    produce([tmp_path], load_settings(None, [f"stream.name={stream.name}"]))

    records = stream.records()
    keys = {
        (row["City"], row["Origin Movement ID"], row["Destination Movement ID"], record["PartitionKey"])
        for record in records
        for row in [json.loads(record["Data"])]
    }
    assert all(key == f"{city}|{origin}|{destination}" for city, origin, destination, key in keys)
    assert len(records) == 2000


@pytest.mark.aws
def test_records_of_one_pair_keep_their_order(any_stream: EmulatorStream, tmp_path: Path) -> None:
    write_sample(3000, tmp_path, cities=1)

    produce([tmp_path], load_settings(None, [f"stream.name={any_stream.name}"]))

    order: dict[str, list[str]] = {}
    for record in any_stream.records():
        row = json.loads(record["Data"])
        order.setdefault(record["PartitionKey"], []).append(row["Date Range"] + row["Mean Travel Time (Seconds)"])
    expected: dict[str, list[str]] = {}
    with next(tmp_path.glob("*.csv")).open(encoding="utf-8", newline="") as source:
        for row in csv.DictReader(source):
            key = f"Paris|{row['Origin Movement ID']}|{row['Destination Movement ID']}"
            expected.setdefault(key, []).append(row["Date Range"] + row["Mean Travel Time (Seconds)"])
    assert max(map(len, expected.values())) > 1
    assert order == expected


@pytest.mark.aws
@pytest.mark.usefixtures("stream")
def test_the_error_for_a_missing_stream_names_it_and_the_remedy(tmp_path: Path) -> None:
    write_sample(1, tmp_path, cities=1)

    with pytest.raises(AwsAccessError, match=r"stream 'nowhere' does not exist .*movement local up"):
        produce([tmp_path], load_settings(None, ["stream.name=nowhere"]))
