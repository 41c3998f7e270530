"""All spellings of one folder compare equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.common.uris import normalize_uri
from jobs.settings.settings import load_settings


def test_an_s3_folder_has_one_spelling_and_a_normalized_one_is_unchanged() -> None:
    plain = "s3://bucket/lake/_checkpoints/stream"
    ways = [
        plain,
        plain + "/",
        plain + "//",
        "s3a" + plain[2:],
        "s3n" + plain[2:] + "/",
        "s3://bucket/lake//_checkpoints/stream",
    ]
    assert {normalize_uri(each) for each in ways} == {plain}
    assert normalize_uri("hdfs://host:8020/a/b/") == "hdfs://host:8020/a/b"


def test_a_local_folder_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    folder = f"{tmp_path}/here/ck"
    ways = [folder, folder + "/", "here/ck", "./here//ck", "other/ck", f"file:{folder}", f"file://{folder}/"]
    assert {normalize_uri(each) for each in ways} == {str((tmp_path / "here/ck").resolve())}


def test_jobs_compare_normalized_checkpoints_and_spark_gets_the_setting_itself() -> None:
    settings = load_settings(None, ["stream_job.checkpoint=s3a://bucket/ck/"])
    assert settings.checkpoint == "s3a://bucket/ck/"
    assert settings.checkpoint_name == "s3://bucket/ck"
