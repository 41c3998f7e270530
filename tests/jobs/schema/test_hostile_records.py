"""10,000 hostile payloads: each becomes a row or a rejection, none raises, and RecordChecks agrees with the parser."""

from __future__ import annotations

import pyarrow as pa
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.schema.checks import RecordChecks
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import VALUE_CHARACTERS
from jobs.schema.table import TableContract
from tests.helpers.examples import examples
from tests.helpers.hostile_records import hostile, with_twins
from tests.helpers.samples import GOOD, READING, READINGS_YAML, TRAVEL_TIMES, as_data

# 2 contracts × 250 examples × 10 payloads, each once as drawn and once with a byte changed or its end missing.
PAYLOADS = 10
SETTINGS = settings(
    max_examples=examples(250), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

READINGS = TableContract.model_validate(yaml.safe_load(READINGS_YAML))


def account_for(contract: TableContract, records: list[bytes]) -> None:
    parsed = RecordParser(contract).parse(as_data(records))
    checks = RecordChecks(contract)
    assert parsed.columns.num_rows == len(records)
    parsed.columns.validate(full=True)
    assert set(parsed.rejections) <= set(range(len(records)))
    for position, record in enumerate(records):
        expected = checks.reject_bytes(record)
        found = parsed.rejections.get(position)
        assert found == expected, record[:300]
        if found is not None and found.value is not None:
            assert len(found.value) <= VALUE_CHARACTERS
    accepted = [position for position in range(len(records)) if position not in parsed.rejections]
    rows = parsed.columns.take(pa.array(accepted, pa.int64()))
    for column in contract.columns:
        if column.required:
            assert rows[column.column].null_count == 0


@SETTINGS
@given(st.lists(hostile(GOOD), min_size=PAYLOADS, max_size=PAYLOADS))
def test_every_hostile_travel_time_becomes_a_row_or_a_rejection(records: list[bytes]) -> None:
    account_for(TRAVEL_TIMES, with_twins(records))


@SETTINGS
@given(st.lists(hostile(READING | {"place": "Lab/1", "low": 1}), min_size=PAYLOADS, max_size=PAYLOADS))
def test_every_hostile_reading_becomes_a_row_or_a_rejection(records: list[bytes]) -> None:
    account_for(READINGS, with_twins(records))
