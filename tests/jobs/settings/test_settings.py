"""Settings: a wrong one stops a job before it starts, with a line that says what to change."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.common.errors import ConfigurationError
from jobs.settings.reference import reference
from jobs.settings.settings import RENAMED, Settings, load_settings
from jobs.settings.validation import StrictModel
from tests.helpers.paths import ROOT

REFERENCE = ROOT / "conf/reference.yaml"


def keys(model: type[StrictModel], prefix: str = "") -> Iterator[str]:
    for key, field in model.fields_by_key().items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, StrictModel):
            yield from keys(field.annotation, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content[part]
    return content


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stream.nam=x", ["--set", "stream.nam", "unknown key", "did you mean 'name'?", "known here: name, shards"]),
        ("steam.name=x", ["--set", "steam", "unknown key", "did you mean 'stream'?"]),
        ("stream.shards=many", ["--set", "stream.shards", "integer", "got 'many'"]),
        ("stream.shards=true", ["--set", "stream.shards", "integer", "got True"]),
        ("stream.shards='4'", ["--set", "stream.shards", "integer", "got '4'"]),
        ("stream.shards=0", ["--set", "stream.shards", "greater than or equal to 1", "got 0"]),
        ("stream.name=123", ["--set", "stream.name", "string", "got 123"]),
        ("stream.name=a b", ["--set", "stream.name", "pattern", "got 'a b'"]),
        ("stream=x", ["--set", "stream", "got 'x'"]),
        ("source.fail_on_data_loss=1", ["--set", "source.fail_on_data_loss", "boolean", "got 1"]),
        ("source.connector=kafka", ["--set", "source.connector", "'native' or 'aws-kinesis'", "got 'kafka'"]),
        ("source.starting_position=2026-01-01T00:00:00", ["--set", "source.starting_position", "TRIM_HORIZON"]),
        ("source.starting_position={}", ["--set", "source.starting_position", "last sequence number read"]),
        ('source.starting_position={"a": 1}', ["--set", "source.starting_position", "last sequence number read"]),
        ("source.starting_position=yesterday", ["--set", "source.starting_position", "TRIM_HORIZON", "'yesterday'"]),
        ("stream_job.trigger_seconds=.nan", ["--set", "stream_job.trigger_seconds"]),
        ("stream_job.trigger_seconds=-1", ["--set", "stream_job.trigger_seconds", "greater than or equal to 0"]),
        ("sink.parquet_compression=lz5", ["--set", "sink.parquet_compression", "'zstd'", "got 'lz5'"]),
        ("lake=gs://bucket/x", ["--set", "lake", "s3://bucket/prefix", "got 'gs://bucket/x'"]),
        ("lake=s3://Bad_Bucket", ["--set", "lake", "s3://bucket/prefix"]),
        ("lake=", ["--set", "lake", "got None"]),
        ("database=My-Db", ["--set", "database", "got 'My-Db'"]),
        ("spark.conf={a: [1]}", ["--set", "spark.conf"]),
        ("stream.name", ["--set stream.name", "key=value"]),
        ("=5", ["--set =5", "key=value"]),
        ("stream.name=[", ["--set stream.name=[", "YAML"]),
    ],
)
def test_a_wrong_override_is_named_with_its_key_value_and_what_is_allowed(override: str, told: list[str]) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_settings(None, [override])
    for words in told:
        assert words in str(error.value)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_an_earlier_release_is_named_with_its_new_name(old: str, new: str, config: Path) -> None:
    section, _, key = old.partition(".")
    config.write_text(f"{section}: {{{key}: 1}}\n")
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'{config}: {old}: renamed to {new}')}$"):
        load_settings(str(config))
    with pytest.raises(ConfigurationError, match=f"^--set: {old}: renamed to {new}$"):
        load_settings(None, [f"{old}=1"])
    assert new in keys(Settings)


def test_settings_that_are_written_and_loaded_again_are_the_same(config: Path) -> None:
    settings = load_settings(None, ["producer.validate=false", "local.state_dir=/tmp/x"])
    config.write_text(json.dumps(settings.model_dump(mode="json")))
    assert load_settings(str(config)) == settings
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_a_wrong_key_of_a_file_is_named_with_the_file(config: Path) -> None:
    config.write_text("sink: {target_file_bytes: 5}\nstreem: {}\n")
    with pytest.raises(ConfigurationError) as error:
        load_settings(str(config))
    lines = str(error.value).splitlines()
    assert len(lines) == 2, "each mistake has its line"
    assert all(line.startswith(f"{config}: ") for line in lines)
    assert "sink.target_file_bytes: input should be greater than or equal to 1048576; got 5" in lines[0]
    assert "streem: unknown key; did you mean 'stream'?" in lines[1]


def test_the_error_names_the_layer_with_the_mistake(config: Path) -> None:
    config.write_text("stream: {name: fine, shards: 0}\n")
    with pytest.raises(ConfigurationError, match=rf"^{config}: stream.shards"):
        load_settings(str(config), ["stream.name=also-fine"])
    with pytest.raises(ConfigurationError, match=r"^--set: stream.shards"):
        load_settings(str(config), ["stream.shards=-1"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1, 2]", "holds list"),
        ("a: [", "not readable as YAML"),
        ("a: 1\na: 2", "duplicate key 'a'"),
        ("\udcff", "YAML"),
    ],
)
def test_a_file_without_settings_is_named(config: Path, content: str, told: str) -> None:
    config.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError) as error:
        load_settings(str(config))
    assert str(config) in str(error.value)
    assert told in str(error.value)


def test_a_missing_file_is_named_with_those_that_ship() -> None:
    with pytest.raises(ConfigurationError, match=r"'nowhere.yaml'.*reference.yaml"):
        load_settings("nowhere.yaml")


def test_an_empty_file_changes_nothing(config: Path) -> None:
    config.write_text("# nothing yet\n")
    assert load_settings(str(config)) == Settings()


def test_a_later_layer_wins_whatever_its_value(config: Path) -> None:
    config.write_text(
        "stream_job: {trigger_seconds: 30, checkpoint: /tmp/x}\nproducer: {validate: true, keep_order: false}\n"
    )
    found = load_settings(
        str(config), ["stream_job.trigger_seconds=0", "producer.validate=false", "stream_job.checkpoint=null"]
    )
    assert found.stream_job.trigger_seconds == 0
    assert found.producer.validate_records is False
    assert found.stream_job.checkpoint is None
    assert found.producer.keep_order is False, "what the later layer does not name stays"
    assert found.producer.max_in_flight == Settings().producer.max_in_flight


def test_the_last_of_two_overrides_wins() -> None:
    assert load_settings(None, ["stream.shards=2", "stream.shards=8"]).stream.shards == 8


def test_a_spark_setting_keeps_the_dots_of_its_name(config: Path) -> None:
    config.write_text("spark: {conf: {spark.ui.enabled: true}}\n")
    found = load_settings(str(config), ["spark.conf.spark.sql.shuffle.partitions=3"])
    assert found.spark.conf == {"spark.ui.enabled": True, "spark.sql.shuffle.partitions": 3}


@pytest.mark.parametrize("text", ["2026-11-23T00:00:00Z", "'2026-11-23T01:00:00+01:00'", "2026-11-23 00:00:00 +00:00"])
def test_a_starting_time_needs_no_quotes(text: str) -> None:
    found = load_settings(None, [f"source.starting_position={text}"]).source.starting_position
    assert datetime.fromisoformat(found) == datetime(2026, 11, 23, tzinfo=UTC)


def test_positions_by_shard_may_be_json_or_a_mapping(config: Path) -> None:
    config.write_text("source: {starting_position: {shardId-0: '4958'}}\n")
    assert load_settings(str(config), []).source.starting_position == '{"shardId-0": "4958"}'
    found = load_settings(None, ['source.starting_position={"shardId-0": "4958"}'])
    assert found.source.starting_position == '{"shardId-0": "4958"}'


@pytest.mark.parametrize("position", ["LATEST", "TRIM_HORIZON", "2026-11-23"])
def test_a_named_position_is_kept(position: str) -> None:
    assert load_settings(None, [f"source.starting_position={position}"]).source.starting_position == position


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().stream.name = "other"  # type: ignore[misc]


def test_a_local_lake_becomes_absolute_and_one_on_s3_loses_its_last_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, ["lake=lake"]).lake == str(tmp_path / "lake")
    assert load_settings(None, ["lake=s3://my-bucket/a/b/"]).lake == "s3://my-bucket/a/b"


def test_the_default_checkpoint_is_in_the_lake() -> None:
    assert load_settings(None, ["lake=s3://my-bucket"]).checkpoint == "s3://my-bucket/_checkpoints/stream"
    assert load_settings(None, ["stream_job.checkpoint=/elsewhere"]).checkpoint == "/elsewhere"


def test_the_reference_file_is_up_to_date() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference()
    printed = subprocess.run(
        [sys.executable, "-m", "jobs.settings.reference"], cwd=ROOT, capture_output=True, check=True
    )
    assert printed.stdout.decode() == reference()


def test_loading_the_reference_gives_the_defaults() -> None:
    assert load_settings(str(REFERENCE)) == Settings()


def test_the_reference_explains_every_key() -> None:
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    content = yaml.safe_load(REFERENCE.read_text(encoding="utf-8"))
    for key in keys(Settings):
        assert at(content, key) == at(Settings().model_dump(), key)
        name = key.rpartition(".")[2]
        where = [number for number, line in enumerate(lines) if line.strip().startswith(f"{name}:")]
        assert any(lines[number - 1].strip().startswith("# ") for number in where), f"{key} has no comment"


SETTINGS_FILES = [file for file in (ROOT / "conf").glob("*.yaml") if "columns:" not in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("file", sorted(SETTINGS_FILES), ids=lambda file: file.name)
def test_every_settings_file_that_ships_loads(file: Path) -> None:
    assert isinstance(load_settings(file.name), Settings)


def test_one_override_may_be_a_json_object_of_several() -> None:
    both = load_settings(None, ['{"lake": "s3://b-b/p", "stream.shards": 2, "source.fail_on_data_loss": "false"}'])

    assert both == load_settings(None, ["lake=s3://b-b/p", "stream.shards=2", "source.fail_on_data_loss=false"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ('{"lake": "s3://b', "not readable as a JSON object"),
        ('{"lake": "ftp://b"}', "lake"),
        ('{"stream.shard": 1}', "did you mean 'shards'?"),
    ],
)
def test_a_wrong_override_in_json_is_named(override: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        load_settings(None, [override])


@pytest.mark.parametrize("uri", ["s3://", "s3://bucket", "s3://bucket/folder/"])
def test_a_configuration_on_s3_needs_a_bucket_and_a_key(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed: s3://bucket/key"):
        load_settings(uri)
