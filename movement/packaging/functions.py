"""Builds one zip for each Lambda function: the handler's module and our modules that it imports.

Lambda's Python runtime has boto3, so the zip needs nothing else.
"""

from __future__ import annotations

import ast
from pathlib import Path

from movement.packaging.archives import Entry, write_zip
from movement.packaging.wheel import source_tree

# By zip: the handler's module.
FUNCTIONS = {
    "lambda-crawler-trigger.zip": "lambdas.crawler_trigger",
    "lambda-gluejob-trigger.zip": "lambdas.gluejob_trigger",
}


def build_functions(folder: Path) -> list[Path]:
    """Writes the zips into `folder`."""
    built = []
    for name, module in FUNCTIONS.items():
        write_zip(folder / name, (Entry(_path(found), source_tree() / _path(found)) for found in modules(module)))
        built.append(folder / name)
    return built


def modules(module: str) -> set[str]:
    """`module`, our modules that it imports, and the packages that contain them."""
    chosen: set[str] = set()
    asked = [module]
    while asked:
        found = asked.pop()
        if found in chosen:
            continue
        chosen.add(found)
        asked += [found.rpartition(".")[0]] if "." in found else []
        asked += sorted(_imports((source_tree() / _path(found)).read_text(encoding="utf-8")))
    return chosen


def _imports(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] == "lambdas"}


def _path(module: str) -> str:
    """A module's file, relative to the source tree."""
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (source_tree() / path).is_dir() else f"{path}.py"
