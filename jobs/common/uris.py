"""One spelling for each folder, because Spark accepts several for the same one."""

from __future__ import annotations

import os
import posixpath
import re


def checked_folder(uri: str) -> str:
    """The folder in the spelling that boto3, S3A and delta-rs take for the same place. Raises ValueError.

    To boto3, `a//b` and `a/../b` are keys of their own; Hadoop makes `a/b` and `b` of them, and the files of one lake
    would be in two places. On S3 such a name is refused. Slashes at either end name no folder and are removed:
    `s3://bucket//a/` becomes `s3://bucket/a`. A local path is resolved as Hadoop does, without looking at links.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return re.sub("^//+", "/", os.path.normpath(uri)) if uri else uri
    bucket, _, key = rest.partition("/")
    key = key.strip("/")
    if set(key.split("/")) & {"", ".", ".."} and key:
        plain = posixpath.normpath(f"/{key}").strip("/")
        raise ValueError(
            f"a folder's name is empty, '.' or '..': to Spark this is another folder than to S3. Allowed: "
            f"{scheme}://{'/'.join(filter(None, (bucket, plain)))}"
        )
    return f"{scheme}://{bucket}/{key}".rstrip("/") if bucket else uri


def normalize_uri(uri: str) -> str:
    """The URI in a form that can be compared.

    S3 always has the scheme `s3`, a local folder is its real path, and there are no extra slashes: `s3a://bucket//a/b/`
    becomes `s3://bucket/a/b`, which itself stays as it is.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return os.path.realpath(re.sub("^file:(//)?", "", uri))
    scheme = "s3" if scheme in ("s3a", "s3n") else scheme
    return f"{scheme}://{re.sub('/+', '/', rest).rstrip('/')}"
