"""The whole streaming job on hostile payloads: each is accounted for, and the log has none of their text unescaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category

import pytest
from hypothesis import HealthCheck, given, settings

from jobs.catalog.glue import GlueCatalog
from jobs.common.aws import client
from jobs.common.errors import TerminalError
from jobs.settings.settings import Settings
from jobs.stream.job import run
from movement.cli.log_file import log_to_file
from tests.helpers.hostile_records import hostile, with_twins
from tests.helpers.lake_audit import RecordKey, audit
from tests.helpers.samples import GOOD, good

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws, pytest.mark.nightly]

DRAWN = 300
UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
NEEDLE = "needle-in-a-record"
# Private use: Hive does not escape it, and Glue takes it.
CITIES = ["\ue000", "\U000f0000", "\U0010fffd"]
# Control sequences, right-to-left text, Unicode line breaks: Glue takes no partition with them.
REFUSED_CITIES = ["\x9b2J", "\u202emoc", "\u2028INFO jobs: all is well", "\x85", "\u200b", "\x1b[31m", "\r\n"]


def drawn() -> list[bytes]:
    """Payloads, drawn one by one: together they are too large for one Hypothesis example."""
    found: list[bytes] = []

    @settings(
        max_examples=DRAWN, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(hostile(GOOD))
    def draw(payload: bytes) -> None:
        found.append(payload)

    draw()
    return found


def test_hostile_payloads_are_accounted_for_and_none_of_their_text_is_unescaped_in_the_log(
    spark: SparkSession, lake_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = [
        *with_twins(drawn()),
        *(good(City=f"x{city}x") for city in CITIES + REFUSED_CITIES),
        good(unknown=NEEDLE),
        NEEDLE.encode(),
        good(**{"Date Range": NEEDLE}),
        b"\xff" + NEEDLE.encode(),
    ]
    kinesis, accepted = client("kinesis"), dict[RecordKey, bytes]()
    for number, payload in enumerate(payloads):
        answer = kinesis.put_record(StreamName=lake_settings.stream.name, Data=payload, PartitionKey=str(number))
        accepted[answer["ShardId"], answer["SequenceNumber"]] = payload

    def refuse(_catalog: GlueCatalog, table: str, folders: list[str], _locations: object) -> int:
        raise TerminalError(f"register in {table}: {', '.join(folders)}")

    with log_to_file(tmp_path / "log"):
        with monkeypatch.context() as patched:
            # An error that names every folder and leaves all files behind.
            patched.setattr("jobs.stream.micro_batch.TABLES", ("processed", "raw", "quarantine"))
            patched.setattr(GlueCatalog, "register", refuse)
            with pytest.raises(TerminalError, match="register in processed: city="):
                run(lambda: spark, lake_settings, until_drained=True)
        result = run(lambda: spark, lake_settings, until_drained=True)

    audit(lake_settings, accepted)
    assert result.read == len(payloads) > 2 * DRAWN
    # Hypothesis's draws depend on the modules loaded before. These lower limits hold in any case.
    assert result.processed > len(CITIES)
    assert len(result.partitions) > len(CITIES)
    assert result.reasons["bad_partition_value"] >= len(REFUSED_CITIES)
    assert len(result.reasons) >= 4, "of many kinds"
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert f"{result.read} records" in log
    assert r"city=x\ue000x" in log
    assert "files of a run that died" in log
    assert not {char for char in log if category(char) in UNSEEN} - {"\n"}
    assert NEEDLE not in log
