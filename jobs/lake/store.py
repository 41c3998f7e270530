"""The lake as a store of objects, on S3 or in a folder of this machine: put whole files, list, delete.

A file appears whole or not at all, on S3 because one PUT is atomic, in a folder by a rename. Nothing here
leaves parts behind, so no committer is needed (ADR 0003).
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from jobs.common.aws import client, error_code, read_object, translate_aws_errors
from jobs.common.errors import TransientError
from jobs.common.process_identity import is_gone, signature

_DELETE_LIMIT = 1000  # keys in one DeleteObjects
_CONFLICTS = 50
_LOCK = "replace.lock"
_DRAFT_SECONDS = 3600.0


class Lake(Protocol):
    """A lake; every path is relative to it, with `/` between folders."""

    uri: str

    def put(self, path: str, content: BinaryIO) -> None:
        """Writes a file whole, over what may stand there."""

    def put_if_absent(self, path: str, content: bytes) -> bool:
        """Writes a file unless another stands there already; False, and nothing written, if so.

        One of exactly this content is taken for our own: a request that was sent again after its answer was lost.
        """
        ...

    def replace(self, path: str, expected: bytes, content: bytes) -> bool:
        """Writes a file over one that holds exactly `expected`; False, and nothing written, where it does not.

        One that holds `content` already is taken for our own, as by `put_if_absent`.
        """
        ...

    def get(self, path: str) -> bytes | None:
        """A file's bytes, or None where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(path, bytes) of every file whose path starts with `prefix`."""
        ...

    def copy(self, source: str, target: str) -> bool:
        """Copies a file whole, over what may stand there; False, and nothing written, where there is no source."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """The names of the folders directly below `prefix`, which ends with `/`; what they hold is not listed."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Deletes files; one that is gone already is no error."""

    def clear_drafts(self) -> None:
        """Deletes what writers that were killed left half written, outside of every table."""


class S3Lake:
    """A lake at `s3://bucket/prefix`. Raises AwsAccessError or TransientError, naming the object."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self.uri = uri
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
        self._s3: Any = client("s3")

    def put(self, path: str, content: BinaryIO) -> None:
        with translate_aws_errors(f"write {self.uri}/{path}"):
            self._s3.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=content)

    def put_if_absent(self, path: str, content: bytes) -> bool:
        return self._put_if(path, content, IfNoneMatch="*")

    def replace(self, path: str, expected: bytes, content: bytes) -> bool:
        with translate_aws_errors(f"read {self.uri}/{path}"):
            try:
                standing, etag = read_object(self._s3, Bucket=self._bucket, Key=self._prefix + path)
            except ClientError as error:
                if error_code(error) in ("NoSuchKey", "404"):
                    return False
                raise
        if standing != expected:
            return standing == content
        return self._put_if(path, content, IfMatch=etag)

    def _put_if(self, path: str, content: bytes, **condition: str) -> bool:
        for _ in range(_CONFLICTS):
            with translate_aws_errors(f"write {self.uri}/{path}"):
                try:
                    self._s3.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=content, **condition)
                    return True
                except ClientError as error:
                    if error_code(error) in ("PreconditionFailed", "412"):
                        return self.get(path) == content
                    if error_code(error) != "ConditionalRequestConflict":
                        raise
            time.sleep(0.1)  # another writer's request for the same key is under way
        raise TransientError(f"write {self.uri}/{path}: other writers of the same file kept being under way")

    def get(self, path: str) -> bytes | None:
        with translate_aws_errors(f"read {self.uri}/{path}"):
            try:
                return read_object(self._s3, Bucket=self._bucket, Key=self._prefix + path)[0]
            except ClientError as error:
                if error_code(error) in ("NoSuchKey", "404"):
                    return None
                raise

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        with translate_aws_errors(f"list {self.uri}/{prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for found in page.get("Contents", []):
                    yield found["Key"].removeprefix(self._prefix), found["Size"]

    def copy(self, source: str, target: str) -> bool:
        with translate_aws_errors(f"copy {self.uri}/{source} to {self.uri}/{target}"):
            try:
                # Within S3, in one request: it takes files of up to 5 GiB.
                self._s3.copy_object(
                    Bucket=self._bucket,
                    Key=self._prefix + target,
                    CopySource={"Bucket": self._bucket, "Key": self._prefix + source},
                )
            except ClientError as error:
                if error_code(error) in ("NoSuchKey", "404"):
                    return False
                raise
        return True

    def folders(self, prefix: str) -> Iterator[str]:
        with translate_aws_errors(f"list {self.uri}/{prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix, Delimiter="/"
            )
            for page in pages:
                for found in page.get("CommonPrefixes", []):
                    yield found["Prefix"].removesuffix("/").rpartition("/")[2]

    def delete(self, paths: Iterable[str]) -> None:
        keys = [{"Key": self._prefix + path} for path in paths]
        for start in range(0, len(keys), _DELETE_LIMIT):
            with translate_aws_errors(f"delete files of {self.uri}"):
                answer = self._s3.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": keys[start : start + _DELETE_LIMIT], "Quiet": True}
                )
                for refused in answer.get("Errors", []):
                    raise ClientError({"Error": refused}, f"DeleteObjects of {refused['Key']}")

    def clear_drafts(self) -> None:
        """Nothing to do: a PUT that was cut off leaves nothing, and no multipart upload is ever begun."""


class FolderLake:
    """A lake in a folder of this machine."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(uri)

    def put(self, path: str, content: BinaryIO) -> None:
        draft = self._draft(content)
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(target)

    def put_if_absent(self, path: str, content: bytes) -> bool:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = self._draft(io.BytesIO(content))
        try:
            os.link(draft, target)  # unlike a rename, fails where the target exists
        except FileExistsError:
            return target.read_bytes() == content
        finally:
            draft.unlink()
        return True

    def replace(self, path: str, expected: bytes, content: bytes) -> bool:
        drafts = self._root / "_drafts"
        drafts.mkdir(parents=True, exist_ok=True)
        with (drafts / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of this machine's processes; a folder is one machine's lake
            standing = self.get(path)
            if standing == expected:
                self.put(path, io.BytesIO(content))
            return standing in (expected, content)

    def get(self, path: str) -> bytes | None:
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        folder = self._root / prefix.rpartition("/")[0]
        for found in sorted(folder.rglob("*")):
            path = found.relative_to(self._root).as_posix()
            if path.startswith(prefix) and found.is_file():
                yield path, found.stat().st_size

    def copy(self, source: str, target: str) -> bool:
        try:
            with (self._root / source).open("rb") as content:
                self.put(target, content)
        except FileNotFoundError:
            return False
        return True

    def folders(self, prefix: str) -> Iterator[str]:
        folder = self._root / prefix
        if folder.is_dir():
            yield from sorted(found.name for found in folder.iterdir() if found.is_dir())

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            (self._root / path).unlink(missing_ok=True)

    def clear_drafts(self) -> None:
        for draft in (self._root / "_drafts").glob("*"):
            if draft.name == _LOCK:
                continue
            # Another job may write to the same lake. Where its process cannot be looked for: what it holds is young.
            with suppress(FileNotFoundError):  # moved to its place meanwhile
                if is_gone(draft.name.rpartition("-")[0]) or time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:
                    draft.unlink()

    def _draft(self, content: BinaryIO) -> Path:
        """The content in a file beside the tables, synced, to be moved to its place in one step."""
        drafts = self._root / "_drafts"
        drafts.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=drafts, prefix=f"{signature()}-", delete=False) as file:
            try:
                shutil.copyfileobj(content, file, 1024 * 1024)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.unlink(file.name)
                raise
        return Path(file.name)


@lru_cache(maxsize=8)
def lake_at(uri: str) -> Lake:
    """The lake at `s3://bucket/prefix` or in a folder; one client a process and lake."""
    return S3Lake(uri) if uri.startswith("s3://") else FolderLake(uri)
