"""A contract drafted from the embedded AWS's stream."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from jobs.common.aws import client
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from movement.cli.main import app
from movement.contract.sample import read_stream


def put(stream: str, count: int) -> None:
    client("kinesis").put_records(
        StreamName=stream,
        Records=[
            {"Data": json.dumps({"id": f"r{at}", "day": "2026-11-23"}).encode(), "PartitionKey": str(at)}
            for at in range(count)
        ],
    )


def test_a_contract_is_drafted_from_all_shards_of_a_stream(lake_settings: Settings, tmp_path: Path) -> None:
    stream, file = lake_settings.stream.name, tmp_path / "clicks.yaml"
    put(stream, 40)
    done = CliRunner().invoke(app, ["contract", "init", "--from-stream", stream, "--output", str(file)])
    assert done.exit_code == 0, done.output
    assert file.read_text().startswith(f"# Drafted from 40 records of stream {stream}")
    assert {column.column: column.type for column in load_contract(str(file)).columns} == {
        "id": "string",
        "day": "date",
    }


def test_no_more_records_are_read_than_asked_for(lake_settings: Settings) -> None:
    put(lake_settings.stream.name, 40)
    parts = read_stream(lake_settings.stream.name, records=7, seconds=30)
    assert sum(part.rows for part in parts) == 7
    assert list(read_stream(lake_settings.stream.name, records=7, seconds=0)) == []


def test_a_stream_that_does_not_exist_is_named(lake_settings: Settings) -> None:
    done = CliRunner().invoke(app, ["contract", "init", "--from-stream", "no-such-stream"])
    assert "stream no-such-stream" in str(done.exception)
    assert "does not exist" in str(done.exception)
