"""The layers of DESIGN.md ("Folders"): imports go down the list and never up."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.helpers.paths import ROOT

# Each package, with the packages that it may import besides itself.
_COMMON = ("jobs.common",)
_SETTINGS = (*_COMMON, "jobs.settings")
_SCHEMA = (*_SETTINGS, "jobs.schema")
_LAKE = (*_SCHEMA, "jobs.lake", "jobs.catalog")
_WRITE = (*_LAKE, "jobs.write")
_STAGES = tuple(f"jobs.{stage}" for stage in ("stream", "delivery", "gold", "parity", "maintenance"))
_JOBS = tuple(f"jobs.{job}_job" for job in ("stream", "smoke", "batch", "gold", "parity", "compact", "replay_raw"))
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "spark_kinesis": (),
    "lambdas": (),
    "jobs.common": (),
    "jobs.settings": _COMMON,
    "jobs.schema": _SETTINGS,
    "jobs.catalog": _LAKE,
    "jobs.lake": _LAKE,
    "jobs.write": _LAKE,
    "jobs.metrics": (*_SCHEMA, "jobs.lake"),
    "jobs.stream": (*_WRITE, "jobs.metrics", "spark_kinesis"),
    "jobs.delivery": _WRITE,
    "jobs.gold": _WRITE,
    "jobs.parity": _WRITE,
    "jobs.maintenance": (*_WRITE, "producer"),
    **dict.fromkeys(_JOBS, (*_WRITE, *_STAGES)),
    "producer": _SCHEMA,
    "local": _SCHEMA,
    "movement.packaging": _SETTINGS,
    "movement.deploy": (*_SCHEMA, "jobs.lake", "movement.packaging"),
    "movement.cost": _SETTINGS,
    "movement.doctor": (*_WRITE, "local", "movement.packaging", "movement.deploy"),
    "movement.contract": (*_SCHEMA, "jobs.catalog", "jobs.stream", "producer", "spark_kinesis"),
    "movement.report": (*_WRITE, *_STAGES),
    "movement.cli": ("spark_kinesis", "lambdas", "jobs", "producer", "local", "movement"),
}
OURS = ("spark_kinesis", "jobs", "producer", "lambdas", "local", "movement")
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def imports(module: str) -> Iterator[str]:
    """Our modules that a module imports, wherever in it the import is written."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            found = [
                f"{node.module}.{name.name}" if f"{node.module}.{name.name}" in MODULES else str(node.module)
                for name in node.names
            ]
        else:
            continue
        yield from (name for name in found if any(is_within(name, package) for package in OURS))


def package_of(module: str) -> str | None:
    return max((package for package in MAY_IMPORT if is_within(module, package)), key=len, default=None)


def test_every_module_belongs_to_a_layer() -> None:
    homeless = [module for module in MODULES if package_of(module) is None]
    assert homeless == ["jobs", "movement", "movement.__main__"]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_down_the_list_of_layers(package: str) -> None:
    allowed = (package, *MAY_IMPORT[package])
    upward = [
        f"{module} imports {imported}"
        for module in sorted(MODULES)
        if package_of(module) == package
        for imported in imports(module)
        if not any(is_within(imported, layer) for layer in allowed)
    ]
    assert upward == []


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > 450} == {}


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {name for name in imports(module) if name in MODULES} - {module} for module in MODULES}
    settled: set[str] = set()
    while ready := {module for module, needed in graph.items() if module not in settled and needed <= settled}:
        settled |= ready
    circles = {module: sorted(needed - settled) for module, needed in graph.items() if module not in settled}
    assert circles == {}


def test_every_decoder_of_a_type_is_made_at_the_import() -> None:
    # msgspec 0.22 crashes the process if several threads are the first to decode a type.
    late = [module for module, path in MODULES.items() if "type=" in _calls_of_decode(path.read_text(encoding="utf-8"))]
    assert late == []


def _calls_of_decode(source: str) -> str:
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return " ".join(
        ast.unparse(call) for call in calls if ast.unparse(call.func) in ("msgspec.json.decode", "msgspec.convert")
    )
