"""README's picture of the folders, DESIGN.md's tree and the real tree agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

DESIGN = ROOT.parent / "shared" / "DESIGN.md"
PACKAGES = ("producer", "spark_kinesis", "jobs", "lambdas", "movement", "local")


def folders_in(text: str, heading: str) -> list[str]:
    """The folders that the first code block after `heading` lists, as paths, in its order."""
    block = text.partition(heading)[2].split("```")[1]
    found: list[str] = []
    parent = ""
    for line in block.splitlines():
        for name in re.findall(r"(?:^ *|  )([a-z_]+)/(?= )", line):
            parent = parent if line.startswith(" ") else name
            found.append(f"{parent}/{name}" if line.startswith(" ") else name)
    return found


def real_folders() -> set[str]:
    """Every folder of the packages that holds Python modules."""
    modules = (module for package in PACKAGES for module in (ROOT / package).rglob("*.py"))
    return {str(module.parent.relative_to(ROOT)) for module in modules}


def readme_folders() -> list[str]:
    return folders_in((ROOT / "README.md").read_text(encoding="utf-8"), "The folders of the code")


def test_readme_lists_every_folder_of_the_code_and_no_other() -> None:
    assert sorted(readme_folders()) == sorted(real_folders())


def test_readme_and_design_list_the_folders_in_one_order() -> None:
    if not DESIGN.is_file():
        pytest.skip(f"DESIGN.md is not here: {DESIGN}")
    ours = readme_folders()
    design = [folder for folder in folders_in(DESIGN.read_text(encoding="utf-8"), "## Folders") if folder in ours]
    # DESIGN.md names the folders below movement/ within one line.
    assert design == [folder for folder in ours if not folder.startswith("movement/")]
    assert all((ROOT / folder).is_dir() for folder in design)


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]), ids=lambda page: page.name
)
def test_every_path_in_the_documents_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = re.findall(
        r"(?<![\w/])((?:tests|jobs|producer|spark_kinesis|movement|local|lambdas|benchmarks)/[a-z_/]+\.py)\b", text
    )
    assert [path for path in paths if not (ROOT / path).is_file()] == []
