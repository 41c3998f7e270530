"""The lake's object store, on S3 or in a local folder: read, write, list, copy and delete whole files.

A file appears whole or not at all: a PUT to S3 is atomic, and a folder's file is renamed into place. So no output
committer is needed (docs/adr/0003).
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from jobs.common.aws import client, error_code, read_object, translate_aws_errors
from jobs.common.errors import TerminalError, TransientError
from jobs.common.process_identity import is_gone, signature
from jobs.common.retry import RetryPolicy

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import ObjectIdentifierTypeDef

AT_ONCE = 16  # parallel requests
_DELETE_LIMIT = 1000  # keys in one DeleteObjects
_CONFLICT_RETRY = RetryPolicy(attempts=50, first_pause=0.1, longest_pause=0.1)
# A folder's temporary files, and the age after which nobody can be writing one.
_DRAFTS = "_drafts"
_DRAFT_SECONDS = 3600.0
_LOCK = "replace.lock"

T = TypeVar("T")
R = TypeVar("R")


class _ConflictError(TransientError):
    """Another writer's conditional request for the same key is in progress."""


class Lake(Protocol):
    """A lake. Every path is relative to `uri`, with `/` between folders."""

    uri: str

    def put(self, path: str, content: BinaryIO) -> None:
        """Writes a file, replacing an existing one."""

    def put_if_absent(self, path: str, content: bytes) -> bool:
        """Writes a file unless the path exists. Returns False if it exists with other content; nothing is written then.

        Returns True for an existing file with the same content: it is from a retried request whose answer was lost.
        """
        ...

    def replace(self, path: str, expected: bytes, content: bytes) -> bool:
        """Compare-and-swap: replaces a file whose content is `expected`. Returns False, and writes nothing, otherwise.

        Returns True if the file already has `content`, as `put_if_absent` does.
        """
        ...

    def get(self, path: str) -> bytes | None:
        """A file's bytes, or None if there is no file."""
        ...

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(path, size in bytes) of every file whose path starts with `prefix`."""
        ...

    def copy(self, source: str, target: str) -> bool:
        """Copies a file, replacing an existing target. Returns False, and writes nothing, if there is no source."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """The names of the folders directly below `prefix`, which ends with `/`. Does not list their files."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Deletes files. A missing file is no error."""

    def clear_drafts(self) -> None:
        """Deletes the temporary files of writers that were killed. They are outside of every table."""


class S3Lake:
    """A lake at `s3://bucket/prefix`. Raises AwsAccessError or TransientError, naming the object."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self.uri = uri
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
        self._s3 = client("s3")

    def put(self, path: str, content: BinaryIO) -> None:
        with translate_aws_errors(f"write {self.uri}/{path}"):
            self._s3.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=content)

    def put_if_absent(self, path: str, content: bytes) -> bool:
        return self._put_if(path, content, IfNoneMatch="*")

    def replace(self, path: str, expected: bytes, content: bytes) -> bool:
        with translate_aws_errors(f"read {self.uri}/{path}"):
            try:
                current, etag = read_object(self._s3, Bucket=self._bucket, Key=self._prefix + path)
            except ClientError as error:
                if error_code(error) in ("NoSuchKey", "404"):
                    return False
                raise
        if current != expected:
            return current == content
        return self._put_if(path, content, IfMatch=etag)

    def _put_if(self, path: str, content: bytes, **condition: Any) -> bool:
        def attempt() -> bool:
            with translate_aws_errors(f"write {self.uri}/{path}"):
                try:
                    self._s3.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=content, **condition)
                    return True
                except ClientError as error:
                    if error_code(error) in ("PreconditionFailed", "412"):
                        return self.get(path) == content
                    if error_code(error) == "ConditionalRequestConflict":
                        raise _ConflictError(
                            f"write {self.uri}/{path}: other writers kept writing the same file; try again"
                        ) from error
                    raise

        return _CONFLICT_RETRY.call(attempt, on=_ConflictError)

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
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(self._prefix), item["Size"]

    def copy(self, source: str, target: str) -> bool:
        with translate_aws_errors(f"copy {self.uri}/{source} to {self.uri}/{target}"):
            try:
                # One request within S3, for files of up to 5 GiB.
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
                for item in page.get("CommonPrefixes", []):
                    yield item["Prefix"].removesuffix("/").rpartition("/")[2]

    def delete(self, paths: Iterable[str]) -> None:
        keys: list[ObjectIdentifierTypeDef] = [{"Key": self._prefix + path} for path in paths]
        for start in range(0, len(keys), _DELETE_LIMIT):
            with translate_aws_errors(f"delete files of {self.uri}"):
                answer = self._s3.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": keys[start : start + _DELETE_LIMIT], "Quiet": True}
                )
                for refused in answer.get("Errors", []):
                    raise ClientError({"Error": refused}, f"DeleteObjects of {refused['Key']}")

    def clear_drafts(self) -> None:
        """Nothing to do: a PUT that breaks off leaves nothing, and there are no multipart uploads."""


_DISK_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space and start again; no record is lost"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "give this user the right to write there, or choose another folder"
    ),
}


@contextmanager
def _translate_disk_errors(what: str) -> Iterator[None]:
    """Translates an error of the file system into a TerminalError that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        remedy = _DISK_REMEDIES.get(error.errno or 0, "check the disk")
        raise TerminalError(f"{what}: {error.strerror or error}; {remedy}") from error


class FolderLake:
    """A lake in a local folder, used by one machine. Raises TerminalError, naming the file."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(uri)

    def put(self, path: str, content: BinaryIO) -> None:
        with _translate_disk_errors(f"write {self.uri}/{path}"):
            draft = self._draft(content)
            target = self._root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(target)

    def put_if_absent(self, path: str, content: bytes) -> bool:
        with _translate_disk_errors(f"write {self.uri}/{path}"):
            target = self._root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = self._draft(io.BytesIO(content))
            try:
                os.link(draft, target)  # unlike a rename, fails if the target exists
            except FileExistsError:
                return target.read_bytes() == content
            finally:
                draft.unlink()
            return True

    def replace(self, path: str, expected: bytes, content: bytes) -> bool:
        drafts = self._root / _DRAFTS
        with _translate_disk_errors(f"write {self.uri}/{path}"):
            drafts.mkdir(parents=True, exist_ok=True)
            file = (drafts / _LOCK).open("wb")
        with file as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # among this machine's processes
            current = self.get(path)
            if current == expected:
                self.put(path, io.BytesIO(content))
            return current in (expected, content)

    def get(self, path: str) -> bytes | None:
        with _translate_disk_errors(f"read {self.uri}/{path}"):
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
            # As on S3, a folder without a file does not exist.
            yield from sorted(
                found.name
                for found in folder.iterdir()
                if found.is_dir() and any(each.is_file() for each in found.rglob("*"))
            )

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            with _translate_disk_errors(f"delete {self.uri}/{path}"):
                (self._root / path).unlink(missing_ok=True)

    def clear_drafts(self) -> None:
        for draft in (self._root / _DRAFTS).glob("*"):
            if draft.name == _LOCK:
                continue
            # Another job may be writing its draft: delete only old drafts and those of processes that are gone.
            with suppress(FileNotFoundError):  # renamed into place meanwhile
                if is_gone(draft.name.rpartition("-")[0]) or time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:
                    draft.unlink()

    def _draft(self, content: BinaryIO) -> Path:
        """Writes the content to a temporary file, synced to disk, that can be renamed into place."""
        drafts = self._root / _DRAFTS
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
    """The lake at `s3://bucket/prefix` or in a local folder. One client per process and lake."""
    return S3Lake(uri) if uri.startswith("s3://") else FolderLake(uri)


def parallel_map(function: Callable[[T], R], items: Iterable[T], at_once: int = AT_ONCE) -> Iterator[R]:
    """`map` with up to `at_once` calls in parallel threads; results in the order of `items`.

    For requests to the lake. The calls start with the first `next()`.
    """
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(function, items)


def file_name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]
