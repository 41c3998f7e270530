"""Names of partition folders (`city=…/start_date=…`): writing and parsing them.

They follow Hive, as Spark, Athena and Glue do: special characters of a value become %XX; everything else, including
spaces and non-ASCII letters, is unchanged.
Source: Spark's ExternalCatalogUtils.escapePathName (from Hive's FileUtils).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from unicodedata import category
from urllib.parse import unquote

# Hive's name for the folder of a null or empty value.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

_ESCAPED = frozenset([chr(code) for code in range(1, 32)] + list("\"#%'*/:=?\\\x7f{[]^"))
_NOT_IN_XML = frozenset("\ufffe\uffff")
# Controls, formats such as U+202E, surrogates, line separators such as U+2028: Glue refuses them in partition values.
_REFUSED_BY_GLUE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST_NAME = 255
# S3's limit is 1,024 bytes for a key; the rest is for the lake's prefix, the table and the file's name.
_LONGEST_PARTITION = 700


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


def is_usable(name: str, value: str, columns: int = 1) -> bool:
    """Whether every file system, S3 and Glue can have this partition value. `columns`: how many columns partition.

    A folder's name has at most 255 bytes, and all names of a partition at most 700 together: with 4 partition columns
    at most 175 each. S3's XML cannot hold U+FFFE and U+FFFF, and the name of the null partition would be read back as
    null.
    """
    if not value.isprintable() and any(char in _NOT_IN_XML or category(char) in _REFUSED_BY_GLUE for char in value):
        return False
    longest = min(_LONGEST_NAME, _LONGEST_PARTITION // columns)
    return value != NULL_PARTITION and len(f"{name}={escape(value)}".encode()) <= longest


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
