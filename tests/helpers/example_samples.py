"""Makes the samples of conf/examples: `python -m tests.helpers.example_samples`. The same bytes each time.

Each has a few records that its contract rejects, and times around midnight and around changes of the clocks.
"""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.helpers.paths import ROOT

FOLDER = ROOT / "conf" / "examples"
NEW_YORK = ZoneInfo("America/New_York")
# Midnight in New York, on usual days and on those when clocks change (2026-03-08 and 2026-11-01).
MIDNIGHTS = [datetime(2026, month, day, tzinfo=NEW_YORK) for month, day in ((3, 8), (3, 9), (11, 1), (11, 2), (11, 20))]


def samples() -> dict[str, str]:
    """The text of each sample, by its path in conf/examples."""
    return {
        "clicks/clicks.jsonl": clicks(random.Random(1)),
        "taxi/taxi.csv": taxi(random.Random(2)),
        "hourly/bogota-cadastral-2018-1-OnlyWeekdays-HourlyAggregate.csv": hourly(random.Random(3), 200),
        "hourly/sao_paulo-censustracts-2018-2-All-HourlyAggregate.csv": hourly(random.Random(4), 300),
        "logs/logs.jsonl": logs(random.Random(5)),
    }


def clicks(chance: random.Random) -> str:
    """Events within three hours of a midnight in New York."""
    lines = []
    for number in range(140):
        moment = chance.choice(MIDNIGHTS).astimezone(UTC) + timedelta(
            milliseconds=chance.randint(-10_800_000, 10_800_000)
        )
        if number % 10 == 0:  # at midnight, and in the millisecond before it
            moment = MIDNIGHTS[number // 20 % 5].astimezone(UTC) - timedelta(milliseconds=number // 10 % 2)
        items = [
            {"sku": chance.choice(["mug-1", "tea-7", "pot-3"]), "qty": chance.randint(1, 4), "price": money(chance, 40)}
            for _ in range(chance.choice([0, 0, 1, 2]))
        ]
        event: dict[str, Any] = {
            "event_id": f"e{number:04}",
            "type": chance.choice(["view", "view", "add", "purchase"]),
            "ts": int(moment.timestamp() * 1000 + 0.5),
            "user": {"id": chance.randint(1, 20), "country": chance.choice(["BR", "FR", "US", None])},
            "page": {"path": chance.choice(["/", "/tea", "/mugs/1"])},
            "cart": {"items": items},
            "labels": {"campaign": chance.choice(["autumn", "tea"])},
        }
        if items:
            event["cart"]["total"] = money(chance, 300)
        if chance.random() < 0.5:
            event["user"]["signed_in"] = chance.random() < 0.5
        if number % 25 == 7:
            event["user"]["age_group"] = "30-39"  # the contract does not name it
        lines.append(json_text(event))
    bad: list[dict[str, Any]] = [
        {"type": "view", "ts": 1794200000000, "user": {"id": 1}},
        {"event_id": "b1", "type": "hover", "ts": 1794200000000, "user": {"id": 1}},
        {"event_id": "b2", "type": "view", "ts": "yesterday", "user": {"id": 1}},
        {"event_id": "b3", "type": "view", "ts": 1794200000000, "user": {"id": "x"}},
        {
            "event_id": "b4",
            "type": "add",
            "ts": 1794200000000,
            "user": {"id": 1},
            "cart": {"items": [{"price": "1.999"}]},
        },
    ]
    for at, event in enumerate(bad):
        lines.insert(20 * at + 10, json_text(event))
    return "\n".join(lines) + "\n"


def taxi(chance: random.Random) -> str:
    """Trips around midnight, and on the nights of 2019 when clocks changed in New York."""
    header = [
        "VendorID",
        "tpep_pickup_datetime",
        "tpep_dropoff_datetime",
        "passenger_count",
        "trip_distance",
        "RatecodeID",
        "store_and_fwd_flag",
        "PULocationID",
        "DOLocationID",
        "payment_type",
        "fare_amount",
        "tip_amount",
        "tolls_amount",
        "total_amount",
    ]
    rows = []
    for _ in range(300):
        day = chance.choice([datetime(2019, 3, 10), datetime(2019, 11, 3), datetime(2019, 7, 1), datetime(2020, 1, 1)])
        pickup = day + timedelta(seconds=chance.randint(-7_200, 14_400))
        fare, tip, tolls = (
            chance.randint(250, 9000),
            chance.choice([0, chance.randint(1, 2000)]),
            chance.choice([0, 612]),
        )
        rows.append([
            chance.choice([1, 2]), pickup, pickup + timedelta(seconds=chance.randint(7_300, 9_000)),
            chance.choice(["1.0", "2.0", "", "6.0"]), cents(chance.randint(10, 3000)),
            chance.choice(["1.0", "5.0", ""]), chance.choice(["Y", "N", "N", ""]), chance.randint(1, 265),
            chance.randint(1, 265), chance.randint(1, 4),
            cents(fare), cents(tip), cents(tolls), cents(fare + tip + tolls),
        ])  # fmt: skip
    for at, (name, value) in enumerate(
        [
            ("tpep_pickup_datetime", "2019-02-30 10:00:00"),
            ("passenger_count", "1.5"),
            ("total_amount", "12.345"),
            ("PULocationID", "999"),
            ("store_and_fwd_flag", "maybe"),
            ("tpep_dropoff_datetime", "2009-01-01 00:00:00"),
        ]
    ):
        rows[40 * at + 11][header.index(name)] = value
    return csv_text([header, *rows])


def hourly(chance: random.Random, count: int) -> str:
    """Means of corridors by hour; one row with an hour 24, and one whose geometric mean is larger than its mean."""
    rows: list[list[Any]] = []
    for _ in range(count):
        mean = chance.randint(10_000, 300_000)
        deviation, geometric = chance.randint(1_000, 60_000), mean - chance.randint(0, 9_000)
        rows.append([
            chance.randint(1, 60), chance.randint(1, 60), chance.randint(0, 23), cents(mean),
            cents(deviation), cents(geometric), chance.choice(["", "1.07", "1.46"]),
        ])  # fmt: skip
    rows[17][2] = 24
    rows[23][5] = "9999.99"
    return csv_text([
        ["sourceid", "dstid", "hod", "mean_travel_time", "standard_deviation_travel_time", "geometric_mean_travel_time",
         "geometric_standard_deviation_travel_time"], *rows,
    ])  # fmt: skip


def logs(chance: random.Random) -> str:
    """Payloads of a subscription, some of them the control messages that CloudWatch Logs sends; days are UTC's."""
    lines = []
    for number in range(60):
        group = chance.choice(["/aws/lambda/checkout", "/aws/lambda/search"])
        start = 1794268800000 + chance.randint(-7_200_000, 7_200_000)  # 2026-11-10T00:00Z
        start = 1794268800000 - number // 20 % 2 if number % 20 == 0 else start
        events = [
            {"id": f"{3700 + number:08}{at:04}", "timestamp": start + 10 * at, "message": chance.choice(MESSAGES)}
            for at in range(chance.randint(1, 4))
        ]
        control = number % 15 == 4
        lines.append(json_text({
            "messageType": "CONTROL_MESSAGE" if control else "DATA_MESSAGE",
            "owner": "CloudwatchLogs" if control else "111122223333",
            "logGroup": "" if control else group,
            "logStream": "" if control else f"2026/11/10/[$LATEST]{chance.randint(1, 3):032x}",
            "subscriptionFilters": [] if control else ["to-lake"],
            "logEvents": [] if control else events,
        }))  # fmt: skip
    bad = ['{"messageType": "OTHER", "logEvents": []}', '{"messageType": "DATA_MESSAGE", "logEvents": {"id": 1}}']
    bad += ['{"messageType": "DATA_MESSAGE", "logEvents": [{"timestamp": "soon"}]}']
    return "\n".join([*lines[:30], *bad, *lines[30:]]) + "\n"


MESSAGES = ["START RequestId: 7f1e", 'ERROR "payment" declined\tretry', "REPORT Duration: 12.5 ms", "Café ☕ opened"]


def cents(amount: int) -> str:
    return f"{amount // 100}.{amount % 100:02}"


def money(chance: random.Random, most: int) -> str:
    """Marked, so that `json_text` writes it as a number with its two digits."""
    return f"@{cents(chance.randint(1, 100 * most))}@"


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace('"@', "").replace('@"', "")


def csv_text(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    for name, content in samples().items():
        Path(FOLDER / name).write_text(content, encoding="utf-8")
