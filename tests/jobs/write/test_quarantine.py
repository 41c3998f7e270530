"""A rejected record is a line with its reason, its origin and its exact bytes."""

from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from jobs.catalog.tables import lake_tables
from jobs.schema.rejections import Rejection
from jobs.write.quarantine import quarantine_lines
from tests.helpers.samples import TRAVEL_TIMES, arrived


def bytes_of_line(line: bytes) -> bytes:
    """Decodes the record's bytes from a line."""
    found = json.loads(line)
    payload: str = found["payload"]
    return payload.encode() if found["encoding"] == "utf-8" else base64.b64decode(payload, validate=True)


@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))),
        min_size=1,
    )
)
def test_a_line_keeps_the_exact_bytes(records: list[bytes]) -> None:
    rejections = {position: Rejection("not_json") for position in range(len(records))}
    found = quarantine_lines(arrived(records), rejections, "q-1", "transform").to_pylist()
    assert all(b"\n" not in line and b"\r" not in line for line in found)
    assert [bytes_of_line(line) for line in found] == records


def test_a_line_has_the_reason_and_the_origin() -> None:
    records = arrived([b"good", b"{", b"\xff"], first=101)
    rejections = {2: Rejection("not_utf8"), 1: Rejection("wrong_type", "Mean", 'n"a')}
    first, second = (json.loads(line) for line in quarantine_lines(records, rejections, "q-1", "transform").to_pylist())
    assert first == {
        "reason": "wrong_type",
        "stage": "transform",
        "field": "Mean",
        "value": 'n"a',
        "shard_id": "shardId-000000000000",
        "sequence_number": "102",
        "partition_key": "key",
        "arrival_time": "2026-11-23T10:30:00Z",
        "batch": "q-1",
        "encoding": "utf-8",
        "payload": "{",
    }
    assert (second["reason"], second["field"], second["value"]) == ("not_utf8", None, None)
    assert (second["encoding"], second["payload"], second["sequence_number"]) == ("base64", "/w==", "103")


def test_a_line_has_the_columns_of_its_glue_table() -> None:
    (line,) = quarantine_lines(arrived([b"x"]), {0: Rejection("not_json")}, "q-1", "transform").to_pylist()
    assert list(json.loads(line)) == [name for name, _, _ in lake_tables(TRAVEL_TIMES)[2].columns]


def test_no_rejection_gives_no_line() -> None:
    assert len(quarantine_lines(arrived([b"x"]), {}, "q-1", "transform")) == 0
