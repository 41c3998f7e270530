"""YAML files as they are read here: safely, and with a key that stands twice as an error instead of a guess."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from jobs.common.aws import client, read_object, translate_aws_errors
from jobs.common.errors import ConfigurationError

# The project's own configuration files: beside `jobs/`, in a checkout as in an installed package.
SHIPPED = Path(__file__).parents[2] / "conf"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself keeps the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: set[Any] = set()
        for key_node, _ in node.value:
            key: Any = self.construct_object(key_node, deep=True)
            if isinstance(key, str):
                if key in found:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands twice", key_node.start_mark)
                found.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises ConfigurationError naming the file and the place."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - made from SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {error}") from error


# A configuration file that lies in S3: fetched once a process, so that a job on a cluster takes one of your own.

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
    with translate_aws_errors(f"read {uri}"):
        content, _ = read_object(client("s3"), most=LARGEST + 1, Bucket=parts.netloc, Key=key)
    if len(content) > LARGEST:
        raise ConfigurationError(f"{uri}: larger than {LARGEST:,} bytes: not a configuration file")
    file = Path(tempfile.mkdtemp(prefix="movement-")) / Path(key).name
    file.write_bytes(content)
    return file


def find_configuration(name: str) -> Path:
    """A configuration file: the path or s3:// address as given, else one of that name that ships in `conf/`."""
    if name.startswith("s3://"):
        return fetched(name)
    path = Path(name)
    if path.is_file():
        return path
    shipped = SHIPPED / path.name
    if path.parent == Path() and shipped.is_file():
        return shipped
    known = ", ".join(sorted(found.name for found in SHIPPED.glob("*.yaml")))
    raise ConfigurationError(f"no such file: '{name}'; give a path, or the name of one that ships: {known}")
