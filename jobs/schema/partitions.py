"""Partition folders (`city=…/start_date=…`): the one place that writes and reads their names.

The names follow Hive, which Spark, Athena and Glue share: a value's special characters become %XX, everything
else, spaces and non-ASCII letters included, stays as it is.
Source: Spark's ExternalCatalogUtils.escapePathName (from Hive's FileUtils).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

# Hive's name for the folder of a null or empty value.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

_ESCAPED = frozenset([chr(code) for code in range(1, 32)] + list("\"#%'*/:=?\\\x7f{[]^"))
_UNSAYABLE = frozenset("\0\ufffe\uffff")


def escape(value: str) -> str:
    """A partition value as it stands in a path: `a/b` becomes `a%2Fb`."""
    return "".join(f"%{ord(char):02X}" if char in _ESCAPED else char for char in value)


def unescape(value: str) -> str:
    """The partition value that `escape` was given."""
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
    """Whether a partition of this value can be a folder everywhere: file systems stop at 255 bytes a name.

    NUL has no escape in Hive's scheme, the null partition's own name would read back as null, and S3's XML has no
    way to say the two characters that Unicode keeps for nobody.
    """
    return not _UNSAYABLE & set(value) and value != NULL_PARTITION and len(f"{name}={escape(value)}".encode()) <= 255


def parse_partition_path(path: str) -> dict[str, str | None]:
    """The names and values of a partition's folder; the null partition's value is None.

    Raises ValueError where a part of the path is not `name=value`.
    """
    values: dict[str, str | None] = {}
    for part in path.strip("/").split("/"):
        name, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"'{path}' is no partition folder: '{part}' is not of the form name=value")
        values[name] = None if value == NULL_PARTITION else unescape(value)
    return values
