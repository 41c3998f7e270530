"""Private columns: `privacy: drop` keeps a value out of the table, `privacy: sha256` writes its hash instead.

The hash is the SHA-256 of the salt and the value, both as UTF-8, in hexadecimal. The salt comes from the environment of
the driver and travels to Spark's workers within the pickled task.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from jobs.common.errors import ConfigurationError
from jobs.schema.columns import Check, Path, SourceColumn

SALT_VARIABLE = "MOVEMENT_PRIVACY_SALT"
# Glue sets only variables with this prefix: --customer-driver-env-vars in
# https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-etl-glue-arguments.html
GLUE_PREFIX = "CUSTOMER_"
SALT_CHARACTERS = 16


_SEALED = re.compile("sha256:([0-9a-f]{64}):([0-9a-f]{32})")


class Salt:
    """A salt. `str` and `repr` do not show it."""

    __slots__ = ("_salt",)

    def __init__(self, salt: str) -> None:
        self._salt = salt.encode()

    def __repr__(self) -> str:
        return "Salt(hidden)"

    def sha256(self, text: str) -> str:
        """The hash of a text, 64 hexadecimal digits."""
        return hashlib.sha256(self._salt + text.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Tells salts apart, and does not tell the salt."""
        return self._mac("fingerprint")

    def seal(self, digest: str) -> str:
        """What stands for a hash in a redacted record: `sha256:<hash>:<proof that this salt's owner wrote it>`."""
        return f"sha256:{digest}:{self._mac(digest)}"

    def sealed_hash(self, text: str) -> str | None:
        """The hash in a text that `seal` has made with this salt; None for any other text."""
        found = _SEALED.fullmatch(text)
        return found[1] if found and hmac.compare_digest(found[2], self._mac(found[1])) else None

    def _mac(self, text: str) -> str:
        return hmac.new(self._salt, text.encode(), "sha256").hexdigest()[:32]

    def sha256_of_each(self, texts: pa.StringArray) -> pa.StringArray:
        """The hash of each text, or the one that is sealed in it; null and an empty text, which is absent, stay."""
        encoded = texts.dictionary_encode()
        hashes = [text and (self.sealed_hash(text) or self.sha256(text)) for text in encoded.dictionary.to_pylist()]
        return pa.array(hashes, pa.string()).take(encoded.indices)


def privacy_salt(columns: Iterable[SourceColumn]) -> Salt | None:
    """The salt in the environment; None if none of the columns needs one.

    Raises ConfigurationError if it is absent or too short.
    """
    hashed = [column.column for column in columns if column.privacy == "sha256"]
    if not hashed:
        return None
    salt = os.environ.get(SALT_VARIABLE) or os.environ.get(GLUE_PREFIX + SALT_VARIABLE, "")
    if len(salt) < SALT_CHARACTERS:
        found = f"has {len(salt)} characters" if salt else "is not set"
        raise ConfigurationError(
            f"columns.{hashed[0]}.privacy: sha256 needs a salt: the environment variable {SALT_VARIABLE} {found}; set "
            f"it to a secret of at least {SALT_CHARACTERS} characters, the same for every job of the lake"
        )
    return Salt(salt)


def check_salt(what: str, written_with: str | None, current: str | None) -> None:
    """Raises ConfigurationError if hashes in raw or quarantine are of another salt: they would be hashed again.

    Both are fingerprints; `written_with` is None without hashes.
    """
    if written_with is not None and written_with != current:
        raise ConfigurationError(
            f"{what} was redacted with another salt than {SALT_VARIABLE} has, or the contract has no privacy: sha256 "
            "any more: set the salt of that time and its contract. Nothing was changed"
        )


def check_private_columns(
    columns: Sequence[SourceColumn],
    partition_by: Sequence[str],
    checks: Sequence[Check],
    key: Sequence[Path],
    redacted: bool = False,
) -> None:
    """Raises ValueError if a private value would reach the table, the stream's keys or a folder's name otherwise.

    `key`: the places of the record's partition key on the stream. `redacted`: whether raw is.
    """
    if redacted and not any(column.privacy for column in columns):
        raise ValueError("raw: redacted needs a column with privacy: drop or sha256; leave out raw")
    for column in columns:
        if column.privacy is None:
            continue
        for other in columns:
            if other.location and other.privacy != column.privacy and _meet(other.location, column.location):
                raise ValueError(
                    f"columns.{column.column}.privacy: column {other.column!r} has the same value, or one around or "
                    f"within it, without privacy: {column.privacy}; give both the same, or take other places"
                )
        if column.column in partition_by:
            raise ValueError(f"partition_by: {column.column!r} is private: a folder for each hash is of no use")
        if any(column.column in check.ascending for check in checks):
            raise ValueError(f"checks: {column.column!r} is private, and its hash has no order")
        if column.location in key and any(each.metadata == "partition_key" for each in columns):
            raise ValueError(
                f"columns.{column.column}.privacy: the value is in stream_partition_key, which a column with metadata: "
                "partition_key puts into the table; leave out one of them"
            )
        if column.location in key and redacted:
            raise ValueError(
                f"columns.{column.column}.privacy: the value is in stream_partition_key, which quarantine holds: with "
                "raw: redacted choose another key"
            )


def _meet(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> bool:
    """Whether one place is within the other, or both need the same value to be an object here and an array there."""
    for first, second in zip(one, other, strict=False):
        if first != second:
            return type(first) is not type(second)
    return True


class PrivatePlaces:
    """The places of a contract's private values in a record."""

    def __init__(self, columns: Iterable[SourceColumn]) -> None:
        self._columns = [column for column in columns if column.privacy and len(column.location) > 1]

    def withhold(self, record: dict[str, Any], instead: str | None = None) -> Iterator[str]:
        """Replaces each value that is where an object with a private value is expected; yields the columns' names.

        A text or an array there may hold the private value, and would be rescued as a whole.
        """
        for column in self._columns:
            inner: Any = record
            for part in column.location[:-1]:
                value = inner.get(part)
                if value is None:
                    break
                if not isinstance(value, dict):
                    if value != "":
                        inner[part] = instead
                        yield column.column
                    break
                inner = value
