"""The source as a distribution of its own: what its wheel holds, and that it works without the rest of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from movement.packaging.wheel import run_pip
from tests.helpers.paths import ROOT

# The project's other packages cannot be imported.
ALONE = "import sys; sys.modules.update(dict.fromkeys(('jobs', 'movement', 'producer', 'local', 'lambdas')))\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip install ./spark_kinesis` does, from a copy and without isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout" / "spark_kinesis"
    shutil.copytree(ROOT / "spark_kinesis", copy, ignore=shutil.ignore_patterns("__pycache__"))
    tools, pins = folder / "tools", str(ROOT / "bootstrap" / "wheel-build.txt")
    run_pip(["install", "--no-deps", "--require-hashes", "--target", str(tools), "-r", pins], "fetch setuptools")
    build = ["-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run(
        [sys.executable, *build, str(copy)], env={**os.environ, "PYTHONPATH": str(tools)}, cwd=folder, check=True
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def run_alone(program: str, installed: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", ALONE + program],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed), "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout.strip()


@pytest.mark.aws
def test_the_wheel_holds_the_source_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        lines = packed.read(metadata).decode().splitlines()
    assert names == {f"spark_kinesis/{path.name}" for path in (ROOT / "spark_kinesis").glob("*.py")}
    needed = {line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")}
    assert {need for need in needed if "extra ==" not in need} == {
        "boto3>=1.40",
        "msgspec>=0.19",
        "pyarrow>=18",
        "tenacity>=9",
    }


@pytest.mark.aws
def test_the_installed_source_imports_without_the_rest_of_the_project(installed: Path) -> None:
    modules = sorted(path.stem for path in (ROOT / "spark_kinesis").glob("*.py") if path.stem != "__init__")
    program = "".join(f"import spark_kinesis.{module}\n" for module in modules)
    assert run_alone(f"{program}print(spark_kinesis.__file__)", installed) == str(
        installed / "spark_kinesis" / "__init__.py"
    )


@pytest.mark.spark
def test_the_installed_source_registers_with_spark(installed: Path) -> None:
    program = """
from pyspark.sql import SparkSession
from spark_kinesis import KinesisDataSource
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
spark.dataSource.register(KinesisDataSource)
rows = spark.readStream.format("kinesis").options(streamName="s", region="eu-west-1").load()
print(rows.columns)
"""
    columns = ["data", "shard_id", "sequence_number", "partition_key", "arrival_time", "stream"]
    assert run_alone(program, installed).splitlines()[-1] == str(columns)
