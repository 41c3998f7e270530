"""A configuration file that lies in S3: fetched once a process, so that a job on a cluster takes one of your own."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from jobs.contract.aws import client, explained
from jobs.contract.errors import ConfigurationError
from jobs.contract.s3_object import read_object

# A configuration is kilobytes; what is larger is another file.
LARGEST = 1024 * 1024


@lru_cache(maxsize=16)
def fetched(uri: str) -> Path:
    """The file at `s3://bucket/key`, in a temporary folder under its own name.

    Raises ConfigurationError where the address or the file's size is wrong, AwsAccessError or TransientError.
    """
    parts = urlsplit(uri)
    key = parts.path.lstrip("/")
    if not parts.netloc or not key or key.endswith("/"):
        raise ConfigurationError(f"'{uri}': allowed: s3://bucket/key")
    with explained(f"read {uri}"):
        content, _ = read_object(client("s3"), most=LARGEST + 1, Bucket=parts.netloc, Key=key)
    if len(content) > LARGEST:
        raise ConfigurationError(f"{uri}: larger than {LARGEST:,} bytes: not a configuration file")
    file = Path(tempfile.mkdtemp(prefix="movement-")) / Path(key).name
    file.write_bytes(content)
    return file
