"""The walls of the house, held by reading the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("jobs", "producer", "local", "movement", "lambdas")
STAGES = ("source", "transform", "sink", "catalog", "delivery", "parity", "gold", "observe")
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, `from a import b` as `a.b` too, for b may be a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def strangers(file: Path, allowed: tuple[str, ...]) -> list[str]:
    """What a file imports of ours that it may not."""
    return [
        module
        for module in imports(file)
        if any(is_within(module, ours) for ours in OURS) and not any(is_within(module, home) for home in allowed)
    ]


def test_the_modules_are_found() -> None:
    assert {"jobs", "producer", "local", "movement"} <= {file.relative_to(ROOT).parts[0] for file in FILES}


@pytest.mark.parametrize("file", sorted((ROOT / "jobs/contract").rglob("*.py")), ids=lambda file: file.stem)
def test_the_contract_needs_neither_spark_nor_us(file: Path) -> None:
    assert strangers(file, ("jobs.contract",)) == []
    assert [module for module in imports(file) if is_within(module, "pyspark")] == []


@pytest.mark.parametrize("stage", [stage for stage in STAGES if (ROOT / "jobs" / stage).is_dir()])
def test_a_stage_knows_the_contract_and_itself_alone(stage: str) -> None:
    found = {
        str(file.relative_to(ROOT)): strangers(file, ("jobs.contract", f"jobs.{stage}"))
        for file in sorted((ROOT / "jobs" / stage).rglob("*.py"))
    }
    assert {file: modules for file, modules in found.items() if modules} == {}


@pytest.mark.parametrize("package", ["producer", "local"])
def test_what_stands_beside_the_jobs_knows_their_contract_alone(package: str) -> None:
    found = {
        str(file.relative_to(ROOT)): strangers(file, ("jobs.contract", package))
        for file in sorted((ROOT / package).rglob("*.py"))
    }
    assert {file: modules for file, modules in found.items() if modules} == {}


def test_nothing_but_the_command_line_imports_the_command_line() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {module}"
        for file in FILES
        if file.relative_to(ROOT).parts[0] != "movement"
        for module in imports(file)
        if is_within(module, "movement")
    ]
    assert found == []


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
