"""`raw: redacted`: what raw and quarantine hold, and that it is read as the same rows."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.common.errors import ConfigurationError
from jobs.schema.privacy import Salt, check_salt
from jobs.schema.record_parser import RecordParser
from jobs.schema.redaction import Redactor, readable
from jobs.settings.sections import SinkSettings
from jobs.write.task import WriteTask
from tests.helpers.examples import examples
from tests.helpers.samples import arrived, as_data
from tests.jobs.schema.test_any_contract import VALUES
from tests.jobs.schema.test_privacy import COLUMNS, RECORD, SALT, SECRETS, USERS, contract

REDACTED = contract(COLUMNS | {"speed": {"type": "int"}}, raw="redacted")
AS_RECEIVED = contract(COLUMNS | {"speed": {"type": "int"}})
UNREADABLE = [b"078-05-1120 is no JSON", b"\xff078-05-1120", b'"078-05-1120"', b"[]", b"\xf3\x89\x9a\xc2078-05-1120"]


def redact(data: bytes, salt: str = SALT) -> bytes:
    return Redactor(REDACTED, Salt(salt)).redact(data)


def parsed(data: bytes, by: Any) -> tuple[Any, str | None]:
    found = RecordParser(readable(by), Salt(SALT)).parse(as_data([data]))
    rejection = found.rejections.get(0)
    return (None, rejection.reason) if rejection else (found.columns.to_pylist()[0], None)


PLACES = st.dictionaries(st.sampled_from(["city", "phone", "token", "speed", "x"]), VALUES)


@settings(max_examples=examples(200), deadline=None)
@given(st.one_of(USERS, VALUES), PLACES)
def test_a_redacted_record_is_the_same_row_and_redacting_it_again_changes_nothing(user: Any, more: Any) -> None:
    record = json.dumps({"user": user} | more).encode()
    once = redact(record)
    assert redact(once) == once
    assert parsed(once, REDACTED) == parsed(record, AS_RECEIVED)
    if SECRETS[0] not in json.dumps(more):
        assert SECRETS[0].encode() not in once


@pytest.mark.parametrize("data", UNREADABLE)
def test_of_an_unreadable_record_only_the_reason_and_size_are_left(data: bytes) -> None:
    once = redact(data)
    assert b"078" not in once
    assert redact(once) == once
    assert parsed(once, REDACTED)[1] == parsed(data, AS_RECEIVED)[1]


def test_a_record_of_the_largest_size_is_accepted_although_its_hashes_are_longer() -> None:
    limited = contract(raw="redacted", max_record_bytes=60)
    record = b'{"city":"Paris","phone":"1","user":{"email":"a"},"x":12345}'
    assert len(record) == 59
    redactor = Redactor(limited, Salt(SALT))
    once = redactor.redact(record)
    assert len(once) > 60
    assert redactor.redact(once) == once
    assert parsed(once, limited)[1] is None
    assert redactor.redact(record[:-1] + b"  }") == b"#withheld:too_large:61"


def test_a_text_that_looks_like_a_sealed_hash_is_hashed() -> None:
    forged = Salt("of somebody else's").seal("0" * 64)
    assert redact(json.dumps({"phone": forged}).encode()) != json.dumps({"phone": forged}).encode()
    (row, _), (expected, _) = (
        parsed(data, by)
        for data, by in (
            (redact(json.dumps({"phone": forged}).encode()), REDACTED),
            (json.dumps({"phone": forged}).encode(), AS_RECEIVED),
        )
    )
    assert row == expected
    assert row["phone"] == Salt(SALT).sha256(forged)


def test_no_file_of_the_lake_holds_a_private_value_and_raw_lines_give_the_same_rows(tmp_path: Path) -> None:
    task = WriteTask(str(tmp_path / "a"), "q-7", REDACTED, SinkSettings(), salt=Salt(SALT))
    records = [*(RECORD | more for more in ({}, {"x": 1.50}, {"speed": "fast"}, {"user": [SECRETS[1]]})), {"x": 1}]
    report = task.write(iter([arrived([*(json.dumps(each).encode() for each in records), *UNREADABLE])]), "q-7-00000")
    assert (report.read, report.raw, report.processed, report.quarantined) == (10, 10, 3, 7)
    assert report.redacted_with == Salt(SALT).fingerprint
    (raw,) = (tmp_path / "a" / "raw").rglob("*.gz")
    lines = gzip.decompress(raw.read_bytes()).splitlines()
    files = [path for path in (tmp_path / "a").rglob("*.*") if path.is_file()]
    content = b"".join(gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes() for p in files)
    assert not [secret for secret in SECRETS if secret.encode() in content]

    again = replace(task, lake=str(tmp_path / "b"))
    second = again.write(iter([arrived(lines)]), "q-7-00000")
    assert (second.reasons, second.nulled, second.rescued) == (report.reasons, report.nulled, report.rescued)
    rows = [
        ds.dataset(tmp_path / lake / "processed").to_table().sort_by("sequence_number").to_pylist() for lake in "ab"
    ]
    assert rows[0] == rows[1]


def test_records_of_another_salt_are_not_replayed() -> None:
    check_salt("batch q-7", None, None)
    check_salt("batch q-7", Salt(SALT).fingerprint, Salt(SALT).fingerprint)
    for current in (Salt("another salt of 16").fingerprint, None):
        with pytest.raises(ConfigurationError, match="batch q-7 was redacted with another salt"):
            check_salt("batch q-7", Salt(SALT).fingerprint, current)


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        ({}, {}, "needs a column with privacy"),
        ({"id": {"privacy": "drop"}}, {"stream_partition_key": ["id"]}, "choose another key"),
        ({"id": {"privacy": "drop"}}, {"encoding": "gzip"}, "without encoding"),
    ],
)
def test_a_contract_that_cannot_be_redacted_is_refused(columns: Any, more: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        contract({"city": {"type": "string"}} | columns, raw="redacted", **more)
