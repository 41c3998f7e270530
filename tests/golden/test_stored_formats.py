"""What an earlier release has stored is readable with today's readers: no Spark, no AWS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.delivery.ledger import DeliveryLedger
from jobs.lake.lease import leases
from jobs.lake.ledger import check_counts, entries, queries
from jobs.lake.partition_locations import LayoutFile
from jobs.lake.sent_journal import SentLines
from jobs.lake.store import FolderLake
from jobs.maintenance.raw import unfinished_plans
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, Offset, parse_offset
from tests.golden.dump import Dump, releases

LAKES = ["lake", "delta-lake"]


@pytest.fixture(params=releases(), ids=lambda folder: folder.name, scope="module")
def golden(request: pytest.FixtureRequest) -> Dump:
    return Dump(request.param)


def in_a_folder(golden: Dump, lake: str, folder: Path) -> FolderLake:
    for path, content in golden.objects(lake).items():
        if not path.endswith("/"):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return FolderLake(str(folder))


def lost(stored: Any, again: Any, where: str = "") -> list[str]:
    """Where the JSON value `again` lacks something that `stored` has, or differs from it; new keys are no loss."""
    if isinstance(stored, dict) and isinstance(again, dict):
        return [
            found
            for key, value in stored.items()
            for found in ([f"{where}/{key}"] if key not in again else lost(value, again[key], f"{where}/{key}"))
        ]
    if isinstance(stored, list) and isinstance(again, list) and len(stored) == len(again):
        pairs = enumerate(zip(stored, again, strict=True))
        return [found for number, pair in pairs for found in lost(*pair, f"{where}/{number}")]
    return [] if stored == again else [where]


def lost_by(struct: msgspec.Struct, stored: bytes) -> list[str]:
    """What of a stored JSON object is gone once it is read into `struct` and written again: a key without a field."""
    return lost(json.loads(stored), json.loads(msgspec.json.encode(struct)))


def offsets(golden: Dump, lake: str) -> list[str]:
    """The source's offset of each batch in Spark's checkpoint: the last line of a file named for the batch."""
    folder = "_checkpoints/stream/offsets/"
    found = {
        int(path.removeprefix(folder)): content.decode().splitlines()[-1]
        for path, content in golden.objects(lake).items()
        if path.startswith(folder) and path != folder
    }
    return [found[batch] for batch in sorted(found)]


def parsed_offsets(golden: Dump, lake: str) -> list[Offset]:
    return [parse_offset(text, golden.name) for text in offsets(golden, lake)]


@pytest.mark.parametrize("lake", LAKES)
def test_every_offset_is_read_and_written_again_as_the_same_text(golden: Dump, lake: str) -> None:
    found = offsets(golden, lake)
    assert len(found) >= 4
    for text in found:
        assert json.dumps(parse_offset(text, golden.name).to_json()) == text


@pytest.mark.parametrize("lake", LAKES)
def test_the_offsets_hold_a_closed_parent_its_children_and_what_a_cap_left(golden: Dump, lake: str) -> None:
    found = parsed_offsets(golden, lake)
    positions = {position for offset in found for position in offset.shards.values()}
    assert {SHARD_END, TRIM_HORIZON} < positions
    assert any(offset.behind for offset in found)
    assert all(offset.bytes for offset in found)


@pytest.mark.parametrize("lake", LAKES)
def test_every_ledger_entry_is_read_and_its_counts_add_up(golden: Dump, lake: str, tmp_path: Path) -> None:
    folder = in_a_folder(golden, lake, tmp_path)
    found = entries(folder)
    assert [entry.batch for entry in found] == list(range(len(found)))
    assert [entry.query for entry in found] == queries(folder) * len(found)
    stored = golden.objects(lake)
    for entry in found:
        check_counts(entry)
        assert lost_by(entry, stored[f"_ledger/{entry.query}/{entry.batch}.json"]) == []
        assert {file.path for file in entry.report.files} <= set(stored)
    # The ranges of the ledger end where the offsets of the checkpoint do.
    for entry, offset in zip(found, parsed_offsets(golden, lake), strict=False):
        for shard, part in entry.report.shards.items():
            assert str(offset.shards[shard]) in (part.last, str(SHARD_END))


def test_the_batch_paths_plan_and_entry_name_the_same_files(golden: Dump, tmp_path: Path) -> None:
    ledger = DeliveryLedger(in_a_folder(golden, "lake", tmp_path))
    plan, entry = ledger.plan(0), ledger.run(0)
    assert plan is not None
    assert entry is not None
    planned = [file.removeprefix(f"s3://{golden.name}/lake/") for task in plan.tasks for file in task]
    assert planned == entry.files == ledger.files_by_run()[0]
    stored = golden.objects("lake")
    assert lost_by(plan, stored["_plans/batch/0.json"]) == lost_by(entry, stored["_ledger/batch/0.json"]) == []
    assert entry.report.read == entry.report.processed + entry.report.quarantined > 0


@pytest.mark.parametrize(
    ("lake", "states"),
    [
        (
            "lake",
            {
                "s3://golden/lake/_checkpoints/stream": None,
                "s3://golden/lake/processed": None,
                "quarantine of s3://golden/lake": None,
                "s3://golden/lake/gold": "clean",
            },
        ),
        (
            "delta-lake",
            {"s3://golden/delta-lake/_checkpoints/stream": None, "s3://golden/delta-lake/processed": "clean"},
        ),
    ],
)
def test_every_lease_is_read(golden: Dump, lake: str, states: dict[str, str | None], tmp_path: Path) -> None:
    found = leases(in_a_folder(golden, lake, tmp_path))
    assert {lease.checkpoint: lease.released for lease in found} == states
    contents = [content for path, content in golden.objects(lake).items() if path.startswith("_claims/")]
    stored = {json.loads(content)["checkpoint"]: content for content in contents}
    assert [lost_by(lease, stored[lease.checkpoint]) for lease in found] == [[]] * len(states)


def test_the_partition_locations_name_a_moved_partition_and_one_on_its_way(golden: Dump, tmp_path: Path) -> None:
    layout = LayoutFile(in_a_folder(golden, "lake", tmp_path), "processed").read()
    moved = layout.partitions["city=Paris/start_date=2016-07-31"]
    assert moved.current.startswith("relocated/processed/city=Paris/start_date=2016-07-31/")
    assert [old.location for old in moved.retired] == ["processed/city=Paris/start_date=2016-07-31/"]
    assert moved.retired[0].since.tzinfo is not None
    moving = layout.partitions["city=Boston/start_date=2016-07-31"]
    assert moving.current == "processed/city=Boston/start_date=2016-07-31/"
    assert moving.next is not None
    assert not moving.next.switching
    stored = golden.objects("lake")["_layout/processed.json"]
    assert msgspec.json.format(msgspec.json.encode(layout)) == stored, "it changes by compare-and-swap of its bytes"


def test_the_replay_journal_tells_lines_that_were_sent_from_lines_in_doubt(golden: Dump, tmp_path: Path) -> None:
    journal = SentLines(in_a_folder(golden, "lake", tmp_path))
    files = [path for path in golden.objects("lake") if path.startswith("quarantine/")]
    sent, in_doubt = (sum(len(journal.of(path)[which]) for path in files) for which in (0, 1))
    assert (sent, in_doubt) == (2, 2)


def test_the_plan_of_a_rebuild_that_was_killed_is_read(golden: Dump, tmp_path: Path) -> None:
    (plan,) = unfinished_plans(in_a_folder(golden, "lake", tmp_path))
    stored = golden.objects("lake")
    assert lost_by(plan, stored[f"_rebuild/{plan.run}/plan.json"]) == []
    assert len(plan.entries) == 2
    for entry in plan.entries:
        assert entry.rebuilt_at is not None
        check_counts(entry)
    assert {file.path for files in plan.rows.values() for file in files} <= set(stored)
    assert {staged for staged, _ in plan.add} | set(plan.remove) <= set(stored)
