"""Private columns: what reaches the table, and what does not."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.common.errors import ConfigurationError
from jobs.schema.checks import RecordChecks
from jobs.schema.on_fail import count_failed
from jobs.schema.privacy import SALT_VARIABLE, Salt, privacy_salt
from jobs.schema.record_parser import RecordParser
from jobs.schema.table import TableContract, contract_of
from jobs.settings.sections import SinkSettings
from jobs.write.task import WriteTask
from tests.helpers.examples import examples
from tests.helpers.paths import ROOT
from tests.helpers.samples import arrived, as_data

SALT = "pepper and salt, 16"
COLUMNS: dict[str, Any] = {
    "city": {"type": "string"},
    "email": {"path": "user.email", "type": "string", "privacy": "sha256"},
    "ssn": {"path": "user.ssn", "privacy": "drop"},
    "token": {"privacy": "drop"},
    "phone": {"type": "string", "privacy": "sha256", "required": True},
}


def contract(columns: dict[str, Any] = COLUMNS, **more: Any) -> TableContract:
    content = {
        "version": 2, "name": "users", "columns": columns, "partition_by": ["city"], "stream_partition_key": ["city"],
    }  # fmt: skip
    return contract_of(content | more, ROOT / "conf" / "travel_times.yaml")


def hashed(text: str) -> str:
    return hashlib.sha256((SALT + text).encode()).hexdigest()


SECRETS = ("ann@example.org", "078-05-1120", "t0ken", "+44 1632 960001")
RECORD = {"city": "Paris", "user": {"email": SECRETS[0], "ssn": SECRETS[1]}, "token": SECRETS[2], "phone": SECRETS[3]}


def test_a_hashed_column_has_the_hash_of_salt_and_text_and_a_dropped_one_is_no_column() -> None:
    usual, unusual = RECORD, RECORD | {"token": {"a": 1}, "phone": 446, "extra": 1}
    parsed = RecordParser(contract(), Salt(SALT)).parse(
        as_data([json.dumps(each).encode() for each in (usual, unusual)])
    )
    assert not parsed.rejections
    assert parsed.columns.to_pylist() == [
        {"city": "Paris", "email": hashed(SECRETS[0]), "phone": hashed(SECRETS[3]), "rescued_data": None},
        {"city": "Paris", "email": hashed(SECRETS[0]), "phone": hashed("446"), "rescued_data": '{"extra":1}'},
    ]


def test_an_absent_value_has_no_hash_and_can_be_required() -> None:
    records = [
        {"phone": "1"},
        {"phone": "1", "user": {"email": None}},
        {"phone": "1", "user": {"email": ""}},
        {"phone": ""},
    ]
    data = [json.dumps(each).encode() for each in records]
    parsed = RecordParser(contract(), Salt(SALT)).parse(as_data(data))
    assert parsed.columns["email"].to_pylist()[:3] == [None, None, ""]
    assert {at: each.reason for at, each in parsed.rejections.items()} == {3: "missing_field"}
    assert RecordChecks(contract()).reject_bytes(data[3]) == parsed.rejections[3]


@pytest.mark.parametrize("user", [json.dumps(RECORD["user"]), [RECORD["user"]], SECRETS[0]])
def test_a_value_in_place_of_an_object_with_private_values_is_not_rescued(user: Any) -> None:
    data = as_data([json.dumps(RECORD | {"user": user, "extra": 1}).encode()])
    parsed = RecordParser(contract(), Salt(SALT)).parse(data)
    assert parsed.columns["rescued_data"].to_pylist() == ['{"extra":1}']
    assert count_failed(parsed.failed, parsed.rejections, "null") == {"email.withheld": 1}


def test_no_private_value_is_in_the_processed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SALT_VARIABLE, SALT)
    task = WriteTask(str(tmp_path), "q-7", contract(), SinkSettings())
    monkeypatch.delenv(SALT_VARIABLE)
    task = pickle.loads(pickle.dumps(task))
    records = [RECORD, RECORD | {"x": 1}, RECORD | {"user": [SECRETS[1]]}]
    report = task.write(iter([arrived([json.dumps(each).encode() for each in records])]), "q-7-00000")
    assert (report.processed, report.nulled) == (3, {"email.withheld": 1})
    rows = ds.dataset(tmp_path / "processed", partitioning="hive").to_table().to_pylist()
    assert {row["phone"] for row in rows} == {hashed(SECRETS[3])}
    assert not [secret for secret in SECRETS if secret in str(rows)]
    raw = b"".join(gzip.decompress(path.read_bytes()) for path in (tmp_path / "raw").rglob("*.gz"))
    assert SECRETS[0].encode() in raw, "raw holds records as they came"


OPEN = st.recursive(
    st.one_of(st.none(), st.integers(), st.text("ab", max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
)
SECRET = st.recursive(
    st.just(SECRETS[0]), lambda inner: st.one_of(st.lists(inner), inner.map(json.dumps)), max_leaves=3
)
PRIVATE_USERS = st.builds(
    lambda email, ssn, more: more | {"email": email, "ssn": ssn}, SECRET, SECRET, st.dictionaries(st.just("x"), OPEN)
)
USERS = st.recursive(PRIVATE_USERS, lambda inner: st.one_of(st.lists(inner), inner.map(json.dumps)), max_leaves=3)


@settings(max_examples=examples(100), deadline=None)
@given(USERS, SECRET, st.dictionaries(st.sampled_from(["city", "x", "y"]), OPEN))
def test_no_record_carries_a_private_value_into_a_column(user: Any, token: Any, more: dict[str, Any]) -> None:
    record = json.dumps({"user": user, "token": token, "phone": SECRETS[0]} | more).encode()
    parsed = RecordParser(contract(), Salt(SALT)).parse(as_data([record]))
    assert SECRETS[0] not in str(parsed.columns.to_pylist())
    rest = {name: value for name, value in more.items() if name in "xy"}
    rescued = json.loads(parsed.columns["rescued_data"][0].as_py() or "{}")
    assert {name: rescued.get(name) for name in rest} == rest, "what is not private is rescued"


def test_a_salt_is_needed_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SALT_VARIABLE, SALT)
    task = WriteTask(str(tmp_path), "q-7", contract(), SinkSettings())
    assert SALT not in repr(task) + str(task.salt) + repr(replace(task, batch="q-8"))
    assert privacy_salt(contract({"city": {"type": "string"}, "token": {"privacy": "drop"}}).columns) is None
    monkeypatch.delenv(SALT_VARIABLE)
    monkeypatch.setenv(f"CUSTOMER_{SALT_VARIABLE}", SALT)  # as Glue passes it
    found_salt = privacy_salt(contract().columns)
    assert found_salt is not None
    assert found_salt.sha256("a") == hashed("a")
    monkeypatch.delenv(f"CUSTOMER_{SALT_VARIABLE}")
    monkeypatch.setenv(SALT_VARIABLE, SALT)
    for salt, found in ((None, "is not set"), ("too short", "has 9 characters")):
        monkeypatch.setenv(SALT_VARIABLE, salt) if salt else monkeypatch.delenv(SALT_VARIABLE)
        with pytest.raises(
            ConfigurationError, match=f"{SALT_VARIABLE} {found}; set it to a secret of at least 16"
        ) as at:
            privacy_salt(contract().columns)
        assert "too short" not in str(at.value)
        monkeypatch.setenv(SALT_VARIABLE, SALT)


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        ({"id": {"type": "int", "privacy": "sha256"}}, {}, "the type is string, not int"),
        ({"id": {"type": "string", "privacy": "sha256", "pattern": "a"}}, {}, "a private value is not checked"),
        ({"id": {"privacy": "drop", "required": True}}, {}, "of these keys it takes none"),
        ({"id": {"path": ["user", 0], "privacy": "drop"}}, {}, "give the whole array privacy"),
        ({"key": {"metadata": "partition_key", "privacy": "drop"}}, {}, "not for its metadata"),
        (
            {"id": {"privacy": "drop"}, "copy": {"source": "id", "type": "string"}},
            {},
            "column 'copy' has the same value",
        ),
        ({"id": {"path": "user.id", "privacy": "drop"}, "user": {"type": "json"}}, {}, "column 'user' has the same"),
        ({"id": {"path": "user.id", "privacy": "drop"}, "one": {"path": ["user", 0], "type": "int"}}, {}, "'one' has"),
        ({"id": {"type": "string", "privacy": "sha256"}}, {"partition_by": ["id"]}, "a folder for each hash"),
        ({"id": {"privacy": "drop"}}, {"sort_by": ["id"]}, "no column is named 'id'"),
        (
            {"id": {"type": "string", "privacy": "sha256"}, "key": {"metadata": "partition_key"}},
            {"stream_partition_key": ["id"]},
            "the value is in stream_partition_key",
        ),
    ],
)
def test_a_contract_through_which_a_private_value_would_pass_is_refused(columns: Any, more: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        contract({"city": {"type": "string"}} | columns, **more)
