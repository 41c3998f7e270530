"""One folder, one name: the ways to write a folder's address that lead Spark to the same place."""

from __future__ import annotations

import os
import re


def normalize_uri(address: str) -> str:
    """The address as it can be compared: `s3://` for all of Hadoop's names for S3, a local folder by its real path,
    no slash too many. One that is `s3://bucket/a/b` already stays as it is."""
    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        return os.path.realpath(re.sub("^file:(//)?", "", address))
    scheme = "s3" if scheme in ("s3a", "s3n") else scheme
    return f"{scheme}://{re.sub('/+', '/', rest).rstrip('/')}"
