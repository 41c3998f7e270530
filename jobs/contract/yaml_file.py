"""YAML files as they are read here: safely, and with a key that stands twice as an error instead of a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jobs.contract.errors import ConfigurationError


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
