"""Finds and reads YAML files: settings and contracts, on disk, in `conf/` or on S3."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from jobs.common.aws import client, read_object, translate_aws_errors
from jobs.common.errors import ConfigurationError

# The project's own configuration files: beside `jobs/`, in a checkout and in an installed package.
SHIPPED = Path(__file__).parents[2] / "conf"
# A configuration file has kilobytes; a larger file is given by mistake.
MAX_BYTES = 1024 * 1024


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a duplicate key is an error; PyYAML silently keeps the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key: Any = self.construct_object(key_node, deep=True)
            if isinstance(key, str):
                if key in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", key_node.start_mark)
                keys.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises ConfigurationError with the file and the line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - made from SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {error}") from error


@lru_cache(maxsize=16)
def download(uri: str) -> Path:
    """Downloads the file at `s3://bucket/key` to a temporary folder, under its own name, once a process.

    Raises ConfigurationError if the URI or the file's size is wrong; AwsAccessError; TransientError.
    """
    parts = urlsplit(uri)
    key = parts.path.lstrip("/")
    if not parts.netloc or not key or key.endswith("/"):
        raise ConfigurationError(f"'{uri}': allowed: s3://bucket/key")
    with translate_aws_errors(f"read {uri}"):
        content, _ = read_object(client("s3"), most=MAX_BYTES + 1, Bucket=parts.netloc, Key=key)
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"{uri}: larger than {MAX_BYTES:,} bytes; is it a configuration file?")
    file = Path(tempfile.mkdtemp(prefix="movement-")) / Path(key).name
    file.write_bytes(content)
    return file


def find_configuration(name: str) -> Path:
    """The file with this path or s3:// URI; otherwise the one with this name that ships in `conf/`."""
    if name.startswith("s3://"):
        return download(name)
    path = Path(name)
    if path.is_file():
        return path
    shipped = SHIPPED / path.name
    if path.parent == Path() and shipped.is_file():
        return shipped
    known = ", ".join(sorted(file.name for file in SHIPPED.glob("*.yaml")))
    raise ConfigurationError(f"no such file: '{name}'; give a path, or the name of a file that ships: {known}")
