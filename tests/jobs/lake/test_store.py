"""The object store behaves the same on S3 and in a folder."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from jobs.common.errors import AwsAccessError, TerminalError, TransientError
from jobs.common.process_identity import process_start
from jobs.lake.store import FolderLake, Lake, S3Lake, lake_at
from tests.helpers.paths import ROOT

ODD_FOLDERS = [
    "city=São Paulo",
    "city=a%2Fb",
    "city=it%27s",
    "city= x ",
    "city=Київ",
    "city=a&b<c>",
    "city=100%25",
    "city=+",
]


def put(lake: Lake, path: str, content: bytes = b"x") -> None:
    lake.put(path, io.BytesIO(content))


def test_a_file_is_read_as_it_was_written(lake: Lake) -> None:
    content = bytes(range(256)) * 1000
    put(lake, "processed/a/b.bin", content)
    assert lake.get("processed/a/b.bin") == content


def test_a_missing_file_is_none(lake: Lake) -> None:
    assert lake.get("nowhere/x") is None


@pytest.mark.parametrize("folder", ODD_FOLDERS)
def test_a_copy_has_the_same_content_in_any_folder(lake: Lake, folder: str) -> None:
    put(lake, f"processed/{folder}/x", b"one")
    put(lake, f"relocated/{folder}/x", b"before")
    assert lake.copy(f"processed/{folder}/x", f"relocated/{folder}/x")
    assert lake.get(f"relocated/{folder}/x") == lake.get(f"processed/{folder}/x") == b"one"
    assert not lake.copy(f"processed/{folder}/gone", f"relocated/{folder}/x")
    assert lake.get(f"relocated/{folder}/x") == b"one"


def test_an_empty_file_is_a_file(lake: Lake) -> None:
    put(lake, "raw/empty", b"")
    assert lake.get("raw/empty") == b""
    assert list(lake.list("raw/")) == [("raw/empty", 0)]


def test_writing_again_replaces_the_whole_file(lake: Lake) -> None:
    put(lake, "raw/x", b"a long first version")
    put(lake, "raw/x", b"short")
    assert lake.get("raw/x") == b"short"


def test_a_listing_has_every_file_with_the_prefix_and_no_other(lake: Lake) -> None:
    for path in ("raw/a/1", "raw/b/2", "raw2/c", "processed/raw/1", "raw/a/b/c/3"):
        put(lake, path, b"12345")
    assert sorted(lake.list("raw/")) == [("raw/a/1", 5), ("raw/a/b/c/3", 5), ("raw/b/2", 5)]
    assert sorted(path for path, _ in lake.list("raw")) == ["raw/a/1", "raw/a/b/c/3", "raw/b/2", "raw2/c"]
    assert sorted(path for path, _ in lake.list("raw/a/b")) == ["raw/a/b/c/3"]
    assert len(list(lake.list(""))) == 5
    assert list(lake.list("nothing/")) == []
    assert list(lake.list("nothing")) == []


@pytest.mark.parametrize("folder", ODD_FOLDERS)
def test_odd_folder_names_are_listed_and_deleted_unchanged(lake: Lake, folder: str) -> None:
    path = f"processed/{folder}/start_date=2016-09-03/x.parquet"
    put(lake, path)
    assert [found for found, _ in lake.list("processed/")] == [path]
    lake.delete([path])
    assert list(lake.list("")) == []


def test_thousands_of_files_are_all_listed_and_all_deleted(lake: Lake) -> None:
    paths = sorted(f"processed/p={number % 7}/{number:04}.x" for number in range(1003))
    for path in paths:
        put(lake, path, b"")
    put(lake, "raw/kept")
    assert sorted(path for path, _ in lake.list("processed/")) == paths
    lake.delete(path for path, _ in lake.list("processed/"))
    assert list(lake.list("")) == [("raw/kept", 1)]


def test_deleting_missing_files_or_nothing_is_no_error(lake: Lake) -> None:
    lake.delete(["raw/gone"])
    lake.delete([])


def test_put_if_absent_writes_only_a_new_file(lake: Lake) -> None:
    assert lake.put_if_absent("_ledger/q/0.json", b"first")
    assert not lake.put_if_absent("_ledger/q/0.json", b"second")
    assert lake.get("_ledger/q/0.json") == b"first"


def test_put_if_absent_accepts_the_same_content_again(lake: Lake) -> None:
    """The client retried a request whose answer was lost."""
    assert lake.put_if_absent("_ledger/q/0.json", b"mine")
    assert lake.put_if_absent("_ledger/q/0.json", b"mine")


def test_of_many_puts_at_once_one_wins_and_its_content_stays(folder_lake: FolderLake) -> None:
    """S3 guarantees this; moto with many threads in one process does not."""
    lake = folder_lake
    start = threading.Barrier(8)
    won: list[bytes] = []

    def race(content: bytes) -> None:
        start.wait()
        if lake.put_if_absent("_ledger/q/7.json", content):
            won.append(content)

    racers = [threading.Thread(target=race, args=(b"racer %d" % number,)) for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(won) == 1
    assert lake.get("_ledger/q/7.json") == won[0]


def test_a_folder_never_shows_a_partial_file(folder_lake: FolderLake, tmp_path: Path) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 1024:
                raise OSError("the disk is gone")
            return super().read(1024)

    put(folder_lake, "raw/x", b"before")
    with pytest.raises(TerminalError, match=r"lake/raw/x: the disk is gone"):
        folder_lake.put("raw/x", Breaks(b"y" * 4096))
    assert folder_lake.get("raw/x") == b"before"
    assert [path for path, _ in folder_lake.list("raw/")] == ["raw/x"]
    assert list((tmp_path / "lake/_drafts").iterdir()) == []


def test_one_put_writes_an_s3_object_so_that_no_upload_stays_incomplete(
    s3_lake: S3Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    s3_lake._s3.meta.events.register("before-call.s3", lambda model, **_: calls.append(model.name))
    put(s3_lake, "raw/large", b"x" * 20_000_000)
    assert calls == ["PutObject"], "a multipart upload would start at 8 MB in boto3's transfer manager"


def test_an_error_of_s3_names_the_object(s3_lake: S3Lake) -> None:
    missing = S3Lake("s3://not-there/lake")
    with pytest.raises(AwsAccessError, match="write s3://not-there/lake/raw/x: does not exist"):
        put(missing, "raw/x")
    with pytest.raises(AwsAccessError, match="list s3://not-there/lake/raw/"):
        list(missing.list("raw/"))
    with pytest.raises(AwsAccessError, match="read s3://not-there/lake/raw/x"):
        missing.get("raw/x")


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", AwsAccessError), ("InternalError", TransientError)])
def test_a_key_that_s3_will_not_delete_is_an_error(
    s3_lake: S3Lake, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Exception]
) -> None:
    def refuse(**_: Any) -> dict[str, Any]:
        return {"Errors": [{"Key": "some/lake/raw/x", "Code": code, "Message": "no"}]}

    monkeypatch.setattr(s3_lake._s3, "delete_objects", refuse)
    with pytest.raises(kind, match="delete files of s3://tests/some/lake"):
        s3_lake.delete(["raw/x"])


def test_a_concurrent_request_of_another_writer_is_waited_for(s3_lake: S3Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 409 while another conditional write of the same key is in progress."""
    original, answers = s3_lake._s3.put_object, iter(["ConditionalRequestConflict", "ConditionalRequestConflict"])

    def conflict(**arguments: Any) -> Any:
        code = next(answers, None)
        if code:
            raise ClientError({"Error": {"Code": code, "Message": "conflict"}}, "PutObject")
        return original(**arguments)

    monkeypatch.setattr(s3_lake._s3, "put_object", conflict)
    assert s3_lake.put_if_absent("_ledger/q/1.json", b"x")


def test_a_lake_at_the_root_of_a_bucket_has_no_leading_slash(s3_lake: S3Lake) -> None:
    root = S3Lake("s3://tests")
    put(root, "raw/x")
    assert [found["Key"] for found in boto3.client("s3").list_objects_v2(Bucket="tests")["Contents"]] == ["raw/x"]
    assert list(root.list("raw/")) == [("raw/x", 1)]


def test_a_lake_is_created_once_per_address(s3_lake: S3Lake, tmp_path: Path) -> None:
    lake_at.cache_clear()
    assert isinstance(lake_at(str(tmp_path)), FolderLake)
    assert isinstance(lake_at("s3://tests/lake"), S3Lake)
    assert lake_at(str(tmp_path)) is lake_at(str(tmp_path))
    lake_at.cache_clear()


def test_replace_writes_only_over_the_expected_content(lake: Lake) -> None:
    assert not lake.replace("_claims/x.json", b"one", b"two"), "no such file"
    put(lake, "_claims/x.json", b"one")
    assert not lake.replace("_claims/x.json", b"other", b"two")
    assert lake.get("_claims/x.json") == b"one"
    assert lake.replace("_claims/x.json", b"one", b"two")
    assert lake.get("_claims/x.json") == b"two"
    assert lake.replace("_claims/x.json", b"one", b"two"), "a retry after a lost answer"
    assert not lake.replace("_claims/x.json", b"one", b"three")


def test_drafts_of_killed_writers_are_deleted_and_those_of_running_writers_stay(
    folder_lake: FolderLake, tmp_path: Path
) -> None:
    put(folder_lake, "raw/x")
    mine = folder_lake._draft(io.BytesIO(b"half"))
    writes = (
        "import sys; from jobs.lake.store import FolderLake; FolderLake(sys.argv[1]).put('raw/y', sys.stdin.buffer)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", writes, str(tmp_path / "lake")], cwd=ROOT, stdin=subprocess.PIPE
    ) as writer:
        drafts = tmp_path / "lake/_drafts"
        deadline = time.monotonic() + 60
        while len(list(drafts.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        folder_lake.clear_drafts()
        (theirs,) = set(drafts.iterdir()) - {mine}
        writer.kill()
    os.utime(theirs)
    # A draft whose process id belongs to another process now.
    again = theirs.with_name(mine.name.replace(f".{process_start(os.getpid())}-", ".1-"))
    again.write_bytes(b"half")

    folder_lake.clear_drafts()

    assert list(drafts.iterdir()) == [mine]


def test_drafts_that_somebody_may_be_writing_stay(folder_lake: FolderLake, tmp_path: Path) -> None:
    put(folder_lake, "raw/x")
    drafts = tmp_path / "lake/_drafts"
    old, young = drafts / "tmpold", drafts / "tmpyoung"
    for draft in (old, young):
        draft.write_bytes(b"half")
    os.utime(old, (1, 1))
    folder_lake.clear_drafts()
    assert (old.exists(), young.exists()) == (False, True)
    assert folder_lake.get("raw/x") == b"x"


def test_a_full_disk_is_an_error_that_says_what_to_do(folder_lake: FolderLake) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # a longer file fails as on a full disk
    try:
        with pytest.raises(TerminalError) as error:
            put(folder_lake, "raw/x", b"x" * 2000)
        with pytest.raises(TerminalError, match="free space"):
            folder_lake.put_if_absent("raw/y", b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(error.value).startswith(f"write {folder_lake.uri}/raw/x: ")
    assert "free space and start again; no record is lost" in str(error.value)
    assert list(folder_lake.list("")) == [], "no part of a file is left"


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy() -> None:
    lake = FolderLake("/sys/movement-lake")  # not even root may create it
    for write in (
        lambda: put(lake, "x"),
        lambda: lake.put_if_absent("x", b""),
        lambda: lake.replace("x", b"", b"y"),
    ):
        with pytest.raises(TerminalError, match=r"write /sys/movement-lake/x: .*; give this user the right to write"):
            write()


def test_a_folder_without_a_file_does_not_exist(lake: Lake) -> None:
    lake.put("t/city=a/day=1/x", io.BytesIO(b"1"))
    lake.put("t/city=b/day=1/x", io.BytesIO(b"1"))
    lake.delete(["t/city=b/day=1/x"])
    assert list(lake.folders("t/")) == ["city=a"]
    assert list(lake.folders("t/city=a/")) == ["day=1"]
    assert list(lake.folders("t/city=b/")) == []
