"""Records and contracts that several tests share."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.common.errors import ConfigurationError
from jobs.schema.table import TableContract, load_contract

TRAVEL_TIMES = load_contract("travel_times.yaml")

GOOD: dict[str, Any] = {
    "City": "Paris",
    "Origin Movement ID": "9",
    "Origin Display Name": "Quai des Orfèvres",
    "Destination Movement ID": "1",
    "Destination Display Name": "",
    "Date Range": "09/03/2016 - 10/01/2016, Every day, Daily Average",
    "Mean Travel Time (Seconds)": "446",
    "Range - Lower Bound Travel Time (Seconds)": "229",
    "Range - Upper Bound Travel Time (Seconds)": "866",
}
MEAN, LOWER, UPPER = list(GOOD)[-3:]

# Another stream altogether, with every type, a parse of its own and a partition that can be null.
READINGS_YAML = r"""
version: 1
name: readings
comment: Readings of sensors
columns:
  - {source: sensor, column: sensor, type: string, required: true}
  - {source: at, column: read_at, type: timestamp, required: true}
  - {source: day, column: day, type: date}
  - {source: n, column: count, type: long, min: 0}
  - {source: v, column: reading, type: double, min: -273.15, max: 10000}
  - {source: low, column: low, type: double}
  - {source: high, column: high, type: int}
  - {source: ok, column: ok, type: boolean}
  - source: place
    column: place
    type: string
    parse:
      pattern: '([^/]+)(?:/(\d+))?'
      reason: bad_place
      into:
        - {column: site, type: string}
        - {column: room, type: int}
checks:
  - {name: band, ascending: [low, reading, high]}
rescued_column: extra
max_record_bytes: 1048576
partition_by: [day, ok, site]
sort_by: [sensor, read_at]
stream_partition_key: [sensor]
"""
READING: dict[str, Any] = {"sensor": "s1", "at": "2026-11-23T01:02:03.5Z", "day": "2026-11-23", "n": 3, "v": 20.5}


def bytes_of(record: Any) -> bytes:
    """A record as it stands on the stream."""
    return json.dumps(record, ensure_ascii=False).encode()


def good(**changes: Any) -> bytes:
    """The good record's bytes, with fields changed: `good(City="Lima")`, `good(**{MEAN: 1})`."""
    return bytes_of(GOOD | changes)


def as_data(records: list[bytes]) -> pa.BinaryArray:
    """Records as the source hands them to the parser."""
    return pa.array(records, pa.binary())


def arrived(
    records: list[bytes],
    *,
    at: datetime | list[datetime] | None = None,
    shard: str = "shardId-000000000000",
    first: int = 1,
) -> pa.RecordBatch:
    """Records as the source hands them to the sink, numbered from `first` on one shard."""
    moment = at or datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
    moments = moment if isinstance(moment, list) else [moment] * len(records)
    return pa.record_batch(
        {
            "data": as_data(records),
            "shard_id": pa.array([shard] * len(records), pa.string()),
            "sequence_number": pa.array([str(first + number) for number in range(len(records))], pa.string()),
            "partition_key": pa.array(["key"] * len(records), pa.string()),
            "arrival_time": pa.array(moments, pa.timestamp("us", tz="UTC")),
        }
    )


def mistake_in_column(folder: Path, entry: str, above: str = "") -> str:
    """The error for a contract whose column `x` has this entry in YAML. `above`: lines between column y and it."""
    file = folder / "t.yaml"
    file.write_text(
        f"version: 2\nname: t\ncolumns:\n  y: {{type: string}}\n{above}  x: {entry}\npartition_by: [y]\n"
        "stream_partition_key: [y]\n"
    )
    with pytest.raises(ConfigurationError) as error:
        load_contract(str(file))
    return str(error.value)


def contract_with(**changes: Any) -> TableContract:
    """The travel times' contract with keys replaced, checked anew."""
    gold = {"gold": None} if "columns" in changes else {}  # its tables need the columns
    return TableContract.model_validate(TRAVEL_TIMES.model_dump() | gold | changes)


ODD_NAMES = [
    "São Paulo", "a/b", "50%", "%41", "a=b", "a:b", "what?", "it's", 'the "city"', "{x}", "[y]", "back\\slash",
    "star*", "#1", "^", "Київ", "東京", "🏙", "a\u00a0b", "\ue000",
    " leading and trailing ", ".", "..", "~", "a&b+c",
]  # fmt: skip
# Glue refuses them as partition values.
REFUSED_NAMES = [
    "tab\there", "new\nline", "\x7f", "\x85", "\x9b2J", "a\0b", "\u2028INFO all is well", "\u2029", "\u202emoc",
    "zero\u200bwidth", "\ufeffmark", "soft\u00adhyphen",
]  # fmt: skip
