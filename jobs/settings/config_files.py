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
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> Any:
    """The content of a YAML text. Raises ConfigurationError that names `path` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - made from SafeLoader
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {error}") from error


def line_in_yaml(path: Path, key: str) -> str:
    """`<path>, line <n>` of a key such as `columns.city.type`, or of the nearest key that contains it; else the path.

    A part of the key is a name in a mapping, or in a list an index or the value of an entry's key `column`.
    """
    node, line = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader), 0
    for part in key.split("."):
        found = _child(node, part)
        if found is None:
            break
        node, line = found
    return f"{path}, line {line}" if line else str(path)


def _child(node: yaml.Node | None, part: str) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        return next((_at(key, value) for key, value in node.value if key.value == part), None)
    if not isinstance(node, yaml.SequenceNode):
        return None
    for index, entry in enumerate(node.value):
        named = _child(entry, "column")
        if part == str(index) or (named and named[0].value == part):
            return _at(entry, entry)
    return None


def _at(place: yaml.Node, node: yaml.Node) -> tuple[yaml.Node, int]:
    return node, place.start_mark.line + 1


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
