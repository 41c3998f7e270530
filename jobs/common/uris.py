"""One spelling for each folder, because Spark accepts several for the same one."""

from __future__ import annotations

import os
import re


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
