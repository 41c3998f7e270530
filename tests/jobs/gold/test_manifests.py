"""The manifests for Redshift."""

from __future__ import annotations

import json

from jobs.gold.manifests import copy_manifest, symlink_manifest

FILES = [("part-0.parquet", 10), ("part-1.parquet", 20)]


def test_the_symlink_manifest_is_one_uri_a_line() -> None:
    assert symlink_manifest("s3://b/gold/t", FILES) == b"s3://b/gold/t/part-0.parquet\ns3://b/gold/t/part-1.parquet\n"
    assert symlink_manifest("s3://b/gold/t", []) == b""


def test_the_copy_manifest_has_each_files_length() -> None:
    assert json.loads(copy_manifest("s3://b/gold/t", FILES)) == {
        "entries": [
            {"url": "s3://b/gold/t/part-0.parquet", "mandatory": True, "meta": {"content_length": 10}},
            {"url": "s3://b/gold/t/part-1.parquet", "mandatory": True, "meta": {"content_length": 20}},
        ]
    }
