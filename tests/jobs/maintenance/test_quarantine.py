"""Replay of quarantine against a failing Kinesis: each record is sent once, in order, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.common.errors import AlreadyRunningError, ConfigurationError, TransientError
from jobs.lake.lease import Lease
from jobs.lake.sent_journal import JOURNAL
from jobs.lake.store import FolderLake
from jobs.maintenance.quarantine import CHUNK_RECORDS, ReplayProgress, replay_quarantine
from jobs.schema.privacy import SALT_VARIABLE, Salt
from jobs.settings.settings import Settings, load_settings
from tests.helpers.faulty_kinesis import Fail, FaultyKinesis, Reset, Status
from tests.helpers.replay_lakes import DAY, Bad, numbered, reject

pytestmark = pytest.mark.aws

Environment = pytest.MonkeyPatch


def settings_for(kinesis: FaultyKinesis, folder: Path, environment: Environment, *overrides: str) -> Settings:
    environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
    return load_settings(
        None, ["stream.name=stream", f"lake={folder / 'lake'}", "producer.request_timeout_seconds=2", *overrides]
    )


@pytest.fixture
def quarantine(tmp_path: Path) -> FolderLake:
    return FolderLake(str(tmp_path / "lake"))


def payloads(kinesis: FaultyKinesis) -> list[bytes]:
    return [data for _, data in kinesis.accepted]


def by_key(records: list[tuple[str, bytes]]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for key, data in records:
        found.setdefault(key, []).append(data)
    return found


def as_put(records: list[Bad]) -> list[tuple[str, bytes]]:
    return [(record.key or "", record.payload) for record in records]


def test_the_exact_bytes_go_back_under_their_key_and_a_second_run_sends_nothing(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    records = [Bad(b"\xff\xfe", "not_utf8", "a"), Bad(b"{\n}", "not_json", "b"), Bad("São".encode(), "not_json", "a|b")]
    reject(quarantine, 0, records)
    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment)
        first, second = replay_quarantine(settings), replay_quarantine(settings)
        assert sorted(kinesis.accepted) == sorted(as_put(records))
    assert (first.sent, first.by_reason) == (3, {"not_json": 2, "not_utf8": 1})
    assert (first.stream, first.lake) == ("stream", settings.lake)
    assert (second.sent, second.already_sent, second.already_sent_by_reason) == (0, 3, {"not_json": 2, "not_utf8": 1})
    assert first.possible_duplicates == second.possible_duplicates == 0


def test_a_record_that_is_rejected_again_is_a_new_line_for_the_next_run(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    reject(quarantine, 0, numbered(2))
    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment)
        replay_quarantine(settings, on_progress=lambda _: None)
        reject(quarantine, 1, numbered(2))  # the job has rejected them again
        result = replay_quarantine(settings)
    assert (result.sent, result.already_sent) == (2, 2)
    assert Counter(payloads(kinesis)) == {b"record 0": 2, b"record 1": 2}


def test_a_line_that_appears_during_a_run_waits_for_the_next_run(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    """Otherwise a record that is always rejected would go round for ever."""
    reject(quarantine, 0, numbered(3))
    added = iter([True])

    def job_rejects_it_again(_: ReplayProgress) -> None:
        if next(added, False):
            reject(quarantine, 1, numbered(3))

    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment)
        assert replay_quarantine(settings, on_progress=job_rejects_it_again).sent == 3
        assert len(kinesis.accepted) == 3


def test_reason_and_since_select_records(quarantine: FolderLake, tmp_path: Path, aws_environment: Environment) -> None:
    reject(quarantine, 0, [Bad(b"old", "not_json", at=DAY - timedelta(days=2))])
    reject(quarantine, 1, [Bad(b"early", "not_json", at=DAY), Bad(b"1", "not_json", at=DAY + timedelta(hours=1))])
    reject(quarantine, 2, [Bad(b"2", "wrong_type", at=DAY + timedelta(hours=2))])
    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment)
        late = DAY + timedelta(minutes=1)
        result = replay_quarantine(settings, reasons=["not_json", "too_large"], since=late)
        assert payloads(kinesis) == [b"1"]
        assert (result.sent, result.skipped, result.skipped_by_reason) == (1, 2, {"not_json": 1, "wrong_type": 1})
        rest = replay_quarantine(settings)
        assert (rest.sent, rest.already_sent) == (3, 1)
        assert payloads(kinesis)[1:] == [b"old", b"early", b"2"]


def test_a_dry_run_counts_and_changes_nothing(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    reject(quarantine, 0, numbered(5))
    before = dict(quarantine.list(""))
    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment)
        result = replay_quarantine(settings, dry_run=True)
        assert (result.sent, result.dry_run) == (5, True)
        assert kinesis.accepted == []
    assert dict(quarantine.list("")) == before


def test_redacted_records_go_back_with_the_same_salt_only_and_withheld_ones_not_at_all(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    salt = Salt("pepper and salt, 16")
    file = tmp_path / "users.yaml"
    file.write_text(
        "{version: 2, name: users, raw: redacted, partition_by: [city], stream_partition_key: [city], "
        "columns: {city: {type: string}, email: {type: string, privacy: sha256}}}"
    )
    records = [Bad(b'{"email":"%s"}' % salt.seal("0" * 64).encode()), Bad(b"#withheld:not_json:7", "not_json")]
    reject(quarantine, 0, records, redacted_with=salt.fingerprint)
    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment, f"contract={file}")
        aws_environment.setenv(SALT_VARIABLE, "another salt of 16")
        with pytest.raises(ConfigurationError, match="redacted with another salt"):
            replay_quarantine(settings)
        assert kinesis.accepted == []
        aws_environment.setenv(SALT_VARIABLE, "pepper and salt, 16")
        result = replay_quarantine(settings)
        assert payloads(kinesis) == [records[0].payload]
    assert (result.sent, result.unsendable_by_reason) == (1, {"not_json": 1})


def test_lines_of_the_batch_path_and_of_dead_batches_are_not_sent(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    reject(quarantine, 0, numbered(2), query="batch")
    reject(quarantine, 1, numbered(3), final=False)
    reject(quarantine, 2, numbered(1, first=9))
    with FaultyKinesis() as kinesis:
        result = replay_quarantine(settings_for(kinesis, tmp_path, aws_environment))
        assert payloads(kinesis) == [b"record 9"]
    assert (result.sent, result.skipped, result.uncommitted, result.files) == (1, 2, 1, 2)


def test_unsendable_records_are_counted_and_block_nothing(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    limit = 1024 * 1024
    reject(
        quarantine,
        0,
        [
            Bad(b"x" * (limit - 2), "too_large"),
            Bad(b"y" * (limit - 3), "too_large"),
            Bad(b"no key", "not_json", key=None),
            Bad(b"ok", "not_json"),
        ],
    )
    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment)
        result = replay_quarantine(settings)
        assert sorted(map(len, payloads(kinesis))) == [2, limit - 3]
        assert (result.sent, result.unsendable) == (2, 2)
        assert result.unsendable_by_reason == {"not_json": 1, "too_large": 1}
        assert replay_quarantine(settings).unsendable == 2, "it is counted in every run"


FAULTS: dict[str, Callable[[int], object]] = {
    "throttled-as-a-whole": lambda n: Status(400, "ProvisionedThroughputExceededException") if n in (1, 2) else None,
    "refused-record-by-record": lambda n: Fail(lambda place: place % 3 == n % 3) if n < 6 else None,
    "cut-off-after-they-were-taken": lambda n: Reset(after=True) if n in (1, 2) else None,
    "cut-off-before": lambda n: Reset(after=False) if n == 1 else None,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_every_record_arrives_once_and_in_order_by_key_when_kinesis_refuses_some(
    fault: Callable[[int], object], quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    for batch in range(3):
        reject(quarantine, batch, numbered(30, first=30 * batch), files=2)
    with FaultyKinesis(fault) as kinesis:
        result = replay_quarantine(settings_for(kinesis, tmp_path, aws_environment))
        assert result.sent == 90
        times = Counter(payloads(kinesis))
        assert sum(times.values()) - len(times) <= result.possible_duplicates
        once = list(dict.fromkeys(kinesis.accepted))
        assert by_key(once) == by_key(as_put(numbered(90)))


def test_a_throttled_shard_is_waited_for(quarantine: FolderLake, tmp_path: Path, aws_environment: Environment) -> None:
    reject(quarantine, 0, numbered(600, keys=600))
    with FaultyKinesis(records_per_second=150) as kinesis:
        result = replay_quarantine(settings_for(kinesis, tmp_path, aws_environment))
        assert kinesis.refused > 0
        assert Counter(payloads(kinesis)) == Counter(record.payload for record in numbered(600))
    assert (result.sent, result.possible_duplicates) == (600, 0)


@pytest.mark.parametrize(
    ("fault", "doubled"),
    [
        (Status(500, "InternalFailure", after=True), True),
        (Status(400, "ProvisionedThroughputExceededException"), False),
    ],
    ids=["without-an-answer", "throttled"],
)
def test_a_run_that_gives_up_notes_the_sent_lines_and_the_next_sends_the_rest(
    fault: Status, doubled: bool, quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    reject(quarantine, 0, numbered(CHUNK_RECORDS + 40, keys=CHUNK_RECORDS + 40))
    broken = [True]
    with FaultyKinesis(lambda n: fault if n > 0 and broken else None) as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment, "producer.delivery_timeout_seconds=0.2")
        with pytest.raises(TransientError, match="nothing was accepted"):
            replay_quarantine(settings)
        broken.clear()
        result = replay_quarantine(settings)
        times = Counter(payloads(kinesis))
    assert set(times) == {record.payload for record in numbered(CHUNK_RECORDS + 40)}
    assert (result.sent, result.already_sent) == (40, CHUNK_RECORDS)
    assert result.possible_duplicates == (40 if doubled else 0)
    assert sum(count > 1 for count in times.values()) == (40 if doubled else 0)


def test_a_stop_ends_between_two_chunks_and_the_next_run_goes_on(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    reject(quarantine, 0, numbered(CHUNK_RECORDS * 2, keys=CHUNK_RECORDS * 2))
    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment)
        result = replay_quarantine(settings, stop=lambda: bool(kinesis.accepted))
        assert (result.sent, result.stopped) == (CHUNK_RECORDS, True)
        rest = replay_quarantine(settings)
        assert (rest.sent, rest.already_sent, rest.stopped) == (CHUNK_RECORDS, CHUNK_RECORDS, False)
        assert Counter(payloads(kinesis)).most_common(1)[0][1] == 1


def test_large_records_are_sent_in_smaller_chunks(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    reject(quarantine, 0, [Bad(b"%d" % n + b"x" * 900_000, key=str(n)) for n in range(12)])
    with FaultyKinesis() as kinesis:
        assert replay_quarantine(settings_for(kinesis, tmp_path, aws_environment)).sent == 12
        assert [len(keys) for keys in kinesis.requests] == [5, 5, 2]


def test_many_small_files_share_requests(quarantine: FolderLake, tmp_path: Path, aws_environment: Environment) -> None:
    for batch in range(30):
        reject(quarantine, batch, [Bad(b"%d" % batch, key=str(batch))])
    with FaultyKinesis() as kinesis:
        assert replay_quarantine(settings_for(kinesis, tmp_path, aws_environment)).sent == 30
        assert len(kinesis.requests) == 1
    assert len(list(quarantine.list(JOURNAL))) == 1


def test_two_replays_at_once_send_nothing_twice(
    quarantine: FolderLake, tmp_path: Path, aws_environment: Environment
) -> None:
    reject(quarantine, 0, numbered(3))
    with FaultyKinesis() as kinesis:
        settings = settings_for(kinesis, tmp_path, aws_environment)
        with (
            Lease(quarantine, f"quarantine of {settings.lake}"),
            pytest.raises(AlreadyRunningError, match=r"another replay of the quarantine of .* wait for its end"),
        ):
            replay_quarantine(settings)
        assert kinesis.accepted == []
        assert replay_quarantine(settings).sent == 3
