"""Names of partition folders (`city=…/start_date=…`): writing and parsing them.

They follow Hive, as Spark, Athena and Glue do: special characters of a value become %XX; everything else, including
spaces and non-ASCII letters, is unchanged.
Source: Spark's ExternalCatalogUtils.escapePathName (from Hive's FileUtils).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

# Hive's name for the folder of a null or empty value.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

_ESCAPED = frozenset([chr(code) for code in range(1, 32)] + list("\"#%'*/:=?\\\x7f{[]^"))
_UNSUPPORTED = frozenset("\0\ufffe\uffff")


def escape(value: str) -> str:
    """A partition value as a part of a path: `a/b` becomes `a%2Fb`."""
    return "".join(f"%{ord(char):02X}" if char in _ESCAPED else char for char in value)


def unescape(value: str) -> str:
    """The inverse of `escape`: `a%2Fb` becomes `a/b`."""
    return unquote(value, errors="strict") if "%" in value else value


def partition_path(names: Sequence[str], values: Mapping[str, object]) -> str:
    """The folder of a partition, such as `city=Paris/start_date=2016-09-03`, relative to its table."""
    return "/".join(f"{name}={_folder(values[name])}" for name in names)


def _folder(value: object) -> str:
    if value is None or value == "":
        return NULL_PARTITION
    text = str(value)
    return escape(text.lower() if isinstance(value, bool) else text)  # Hive and Spark write true, Python True


def is_usable(name: str, value: str) -> bool:
    """Whether every file system and S3 can have a folder for this partition value.

    A folder's name has at most 255 bytes. Hive cannot escape NUL, S3's XML cannot hold U+FFFE and U+FFFF, and the name
    of the null partition would be read back as null.
    """
    return not _UNSUPPORTED & set(value) and value != NULL_PARTITION and len(f"{name}={escape(value)}".encode()) <= 255


def parse_partition_path(path: str) -> dict[str, str | None]:
    """The names and values of a partition's folder. The value of the null partition is None.

    Raises ValueError if a part of the path is not `name=value`.
    """
    values: dict[str, str | None] = {}
    for part in path.strip("/").split("/"):
        name, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"'{path}' is not a partition folder: '{part}' is not of the form name=value")
        values[name] = None if value == NULL_PARTITION else unescape(value)
    return values
