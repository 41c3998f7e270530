"""The examples of conf/examples: each row is what Python's own csv, json, decimal and zoneinfo read from the sample."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
import typer

from jobs.schema.partitions import partition_path
from jobs.schema.record_parser import ParsedRecords, RecordParser
from jobs.schema.table import TableContract, load_contract
from movement.cli.demo import EXAMPLES, example_paths
from producer.input_files import find_input_files
from producer.readers import encoder_for, open_reader
from tests.helpers.example_samples import FOLDER, samples

NEW_YORK = ZoneInfo("America/New_York")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def produced(name: str) -> tuple[TableContract, list[bytes], ParsedRecords]:
    """The example's contract, its records as they are on the stream, and what the parser makes of them."""
    path, folder = example_paths(name)
    contract = load_contract(str(path))
    records: list[bytes] = []
    for file in find_input_files([folder], contract.file_name):
        with open_reader(file) as reader:
            encode = encoder_for(reader, file, contract, 1024 * 1024, False)
            for chunk in reader.chunks():
                sent, rejected = encode(chunk).part(0, chunk.count)
                assert rejected == []
                records += [record.Data for record in sent]
    return contract, records, RecordParser(contract).parse(pa.array(records, pa.binary()))


def good_rows(parsed: ParsedRecords) -> list[Row]:
    rows = parsed.columns.to_pylist(maps_as_pydicts="strict")
    return [row for index, row in enumerate(rows) if index not in parsed.rejections]


def lines(name: str) -> list[Any]:
    return [json.loads(line, parse_float=Decimal) for line in (FOLDER / name / f"{name}.jsonl").open(encoding="utf-8")]


def moment(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)


def read_clicks() -> list[Row]:
    rows = []
    for event in lines("clicks"):
        user, cart = event["user"], event.get("cart", {})
        good = str(event.get("event_id", "b")).startswith("e")
        if not good:
            continue
        rows.append({
            "event_id": event["event_id"],
            "event_type": event["type"],
            "event_time": moment(event["ts"]),
            "event_date": moment(event["ts"]).astimezone(NEW_YORK).date(),
            "user_id": user["id"],
            "country": user["country"],
            "signed_in": user.get("signed_in"),
            "page": event["page"]["path"],
            "items": cart["items"],
            "total": cart.get("total"),
            "labels": event["labels"],
            "rescued_data": '{"user":{"age_group":"30-39"}}' if "age_group" in user else None,
        })  # fmt: skip
    return rows


def local(text: str) -> datetime:
    """A New York time of the file. One that clocks skip is moved forward by the gap; of two, it is the earlier one."""
    naive = datetime.fromisoformat(text)
    return naive.replace(tzinfo=NEW_YORK, fold=0).astimezone(UTC)


def read_taxi() -> list[Row]:
    def whole(text: str) -> int | None:
        return int(Decimal(text)) if text else None

    rows = []
    for number, trip in enumerate(csv.DictReader((FOLDER / "taxi" / "taxi.csv").open(encoding="utf-8"))):
        if number in range(11, 240, 40):
            continue
        rows.append({
            "vendor_id": int(trip["VendorID"]),
            "picked_up_at": local(trip["tpep_pickup_datetime"]),
            "dropped_off_at": local(trip["tpep_dropoff_datetime"]),
            "pickup_date": date.fromisoformat(trip["tpep_pickup_datetime"][:10]),
            "pickup_hour": local(trip["tpep_pickup_datetime"]).astimezone(NEW_YORK).hour,
            "passengers": whole(trip["passenger_count"]),
            "distance_miles": Decimal(trip["trip_distance"]),
            "rate_code": whole(trip["RatecodeID"]),
            "stored_and_forwarded": {"Y": True, "N": False, "": None}[trip["store_and_fwd_flag"]],
            "pickup_zone": int(trip["PULocationID"]),
            "dropoff_zone": int(trip["DOLocationID"]),
            "payment_type": int(trip["payment_type"]),
            "fare": Decimal(trip["fare_amount"]),
            "tip": Decimal(trip["tip_amount"]),
            "tolls": Decimal(trip["tolls_amount"]),
            "total": Decimal(trip["total_amount"]),
            "rescued_data": None,
        })  # fmt: skip
    return rows


def read_hourly() -> list[Row]:
    rows = []
    for file in sorted((FOLDER / "hourly").iterdir()):
        city, zones, year, quarter, days, _ = file.name.split("-")
        for line in csv.DictReader(file.open(encoding="utf-8")):
            figures = {name: Decimal(text) if text else None for name, text in line.items() if "travel_time" in name}
            mean, geometric = figures["mean_travel_time"], figures["geometric_mean_travel_time"]
            assert mean is not None
            assert geometric is not None
            if int(line["hod"]) > 23 or geometric > mean:
                continue
            ids = {"source_id": line["sourceid"], "destination_id": line["dstid"], "hour_of_day": line["hod"]}
            rows.append(
                {"city": city, "zones": zones, "year": int(year), "quarter": int(quarter), "days": days}
                | {name: int(text) for name, text in ids.items()}
                | figures
                | {"rescued_data": None}
            )
    return rows


def read_logs() -> list[Row]:
    rows = []
    for payload in lines("logs"):
        if "owner" not in payload:
            continue
        first = payload["logEvents"][0]["timestamp"] if payload["logEvents"] else None
        rows.append({
            "message_type": payload["messageType"],
            "owner": payload["owner"],
            "log_group": payload["logGroup"],
            "log_stream": payload["logStream"],
            "filters": payload["subscriptionFilters"],
            "events": payload["logEvents"],
            "first_event_at": None if first is None else moment(first),
            "event_date": None if first is None else moment(first).date(),
            "rescued_data": None,
        })  # fmt: skip
    return rows


READERS: dict[str, Callable[[], list[Row]]] = {
    "clicks": read_clicks,
    "taxi": read_taxi,
    "hourly": read_hourly,
    "logs": read_logs,
}
REASONS = {
    "clicks": {"missing_field": 1, "not_allowed": 1, "wrong_type": 3},
    "taxi": {"wrong_type": 4, "failed_check": 2},
    "hourly": {"failed_check": 4},
    "logs": {"not_allowed": 1, "wrong_type": 2},
}


def test_the_examples_are_those_that_ship() -> None:
    assert sorted(EXAMPLES) == sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(READERS)
    for name in EXAMPLES:
        assert load_contract(str(example_paths(name)[0])).gold


def test_an_unknown_example_is_answered_with_the_known_ones() -> None:
    with pytest.raises(typer.BadParameter, match=r"'cliks'; allowed: clicks, taxi, hourly, logs"):
        example_paths("cliks")


def test_the_samples_are_small_and_made_by_us() -> None:
    found = {str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8") for path in FOLDER.glob("*/*")}
    assert found == samples()
    assert max(map(len, found.values())) < 50_000


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_row_is_that_of_an_independent_reader(name: str) -> None:
    contract, records, parsed = produced(name)
    found, expected = good_rows(parsed), READERS[name]()
    assert found == expected
    assert len(records) == len(expected) + len(parsed.rejections)
    assert Counter(rejection.reason for rejection in parsed.rejections.values()) == REASONS[name]
    assert all(record.startswith(b"\x1f\x8b") for record in records) == (contract.encoding == "gzip")


def test_events_around_midnight_are_in_their_day_in_new_york() -> None:
    contract, _, parsed = produced("clicks")
    days: dict[str, set[datetime]] = {}
    for row in good_rows(parsed):
        days.setdefault(partition_path(contract.partition_by, {"event_date": row["event_date"]}), set()).add(
            row["event_time"]
        )
    # Clocks change on March 8 and November 1: midnight is at 05:00 UTC before and after the day in winter.
    assert datetime(2026, 3, 8, 5, tzinfo=UTC) in days["event_date=2026-03-08"]
    assert datetime(2026, 3, 9, 4, tzinfo=UTC) in days["event_date=2026-03-09"]
    assert datetime(2026, 11, 1, 3, 59, 59, 999000, tzinfo=UTC) in days["event_date=2026-10-31"]
    assert (
        max(days["event_date=2026-11-01"]) < datetime(2026, 11, 2, 5, tzinfo=UTC) <= min(days["event_date=2026-11-02"])
    )


def test_a_trip_in_the_hour_that_occurs_twice_or_never() -> None:
    rows = [row for row in good_rows(produced("taxi")[2]) if row["picked_up_at"]]
    text = [trip["tpep_pickup_datetime"] for trip in csv.DictReader((FOLDER / "taxi" / "taxi.csv").open())]
    skipped = [each for each in text if "2019-03-10 02:00:00" <= each < "2019-03-10 03:00:00"]
    twice = [each for each in text if "2019-11-03 01:00:00" <= each < "2019-11-03 02:00:00"]
    assert skipped
    assert twice
    moments = {row["picked_up_at"] for row in rows}
    assert {datetime.fromisoformat(f"{each}-05:00") for each in skipped} <= moments
    assert {datetime.fromisoformat(f"{each}-04:00") for each in twice} <= moments
