"""Finding the files to send: folders, hidden files, and the fields of a file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.common.errors import ConfigurationError
from jobs.schema.file_name import FileName
from jobs.schema.table import load_contract
from producer.input_files import InputFile, find_input_files
from producer.parallel import partition_files

TRAVEL_TIMES = load_contract("travel_times.yaml").file_name


def city_of(name: str) -> str | None:
    assert TRAVEL_TIMES is not None
    return TRAVEL_TIMES.read(name).get("City")


def test_the_city_comes_from_the_name_of_the_file() -> None:
    assert city_of("Travel_Times - Johannesburg and Pretoria.csv") == "Johannesburg and Pretoria"
    assert city_of("travel_times - São Paulo.CSV.gz") == "São Paulo"
    assert city_of("Travel_Times - Bogota\u0301.csv") == "Bogotá", "macOS decomposes letters"
    assert city_of("Travel_Times - Washington D.C..parquet") == "Washington D.C."
    assert city_of("anything.csv") is None
    assert city_of("Travel_Times - Paris.csv.bak") is None


def test_the_real_exports_have_their_cities(exports: Path) -> None:
    found = {file.fields["City"] for file in find_input_files([exports], TRAVEL_TIMES)}
    assert found == {"Paris", "Boston", "Johannesburg and Pretoria"}


def test_a_group_can_be_a_field_whose_name_is_no_name_of_a_group_and_an_empty_one_is_no_field() -> None:
    hourly = FileName(
        pattern=r"(?P<city>[a-z_]+)-(?:\w+)-(?P<year>\d{4})-(?P<quarter>\d)(?P<rest>.*)", fields={"year": "The Year"}
    )
    assert hourly.read("paris-iris-2019-4") == {"city": "paris", "The Year": "2019", "quarter": "4"}
    assert hourly.source_fields == ("city", "The Year", "quarter", "rest")


def test_a_given_field_replaces_the_one_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "Travel_Times - Paris.csv").write_text("a\n")
    (one,) = find_input_files([tmp_path], TRAVEL_TIMES, {"City": "Lyon"})
    assert one.fields == {"City": "Lyon"}


def test_a_folder_means_its_files_without_hidden_ones_and_each_counts_once(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv.gz", "notes.txt", "._b.csv", ".hidden.csv"):
        (tmp_path / name).write_bytes(b"a\n1\n")
    found = find_input_files([tmp_path, tmp_path / "b.csv"])
    assert [file.path for file in found] == [str(tmp_path / "a.csv.gz"), str(tmp_path / "b.csv")]


def test_a_missing_path_a_folder_without_files_and_a_name_that_is_not_utf8_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        find_input_files([tmp_path / "missing.csv"])
    with pytest.raises(ConfigurationError, match=r"has no \*\.csv"):
        find_input_files([tmp_path])
    (tmp_path / "Travel_Times - Bogot\udce1.csv").write_text("a\n")
    with pytest.raises(ConfigurationError, match=r"is not UTF-8; rename the file"):
        find_input_files([tmp_path], TRAVEL_TIMES)


def test_files_that_may_share_a_partition_key_stay_in_one_group() -> None:
    files = [InputFile(str(at), {"City": city, "year": str(at)}, 1) for at, city in enumerate("abcba")]
    groups = partition_files(files, 2, ["City"])
    assert sorted("".join(sorted({file.fields["City"] for file in group})) for group in groups) in (
        ["a", "bc"],
        ["ac", "b"],
        ["ab", "c"],
    )
    assert sum(map(len, groups)) == 5
    assert sorted(map(len, partition_files(files, 2, ()))) == [2, 3], "no order to keep"
