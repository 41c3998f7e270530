"""What is packaged: the same bytes from the same input, what is needed and no more, and nothing trusted unchecked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from jobs.common.errors import ConfigurationError
from movement.packaging import wheel as wheel_module
from movement.packaging.archives import Entry, write_tar_gz, write_zip
from movement.packaging.environment import build_environment, copy_environment
from movement.packaging.functions import modules
from movement.packaging.lock import needed, read_lock
from movement.packaging.release import Manifest, package, read_manifest
from movement.packaging.target import Target, target
from movement.packaging.wheel import ROOT, build_wheel, dependencies

EMR = target("3.11", "x86_64")
GLUE = target("3.13", "x86_64")
# The modules that the scripts of a release, and the workers that unpickle their tasks, import first.
ENTRY_POINTS = ["spark_kinesis.data_source", "jobs.stream.job", "jobs.delivery.job", "jobs.write.task"]
JOBS = ["boto3", "msgspec", "pyarrow", "pandas", "pydantic", "pyyaml", "aws_kinesis_agg"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("write", [write_tar_gz, write_zip], ids=["tar.gz", "zip"])
def test_an_archive_knows_no_clock_no_order_and_no_mode_of_this_machine(write: object, tmp_path: Path) -> None:
    for number, mode in ((1, 0o600), (2, 0o664)):
        (tmp_path / f"file{number}").write_text("content")
        os.utime(tmp_path / f"file{number}", (number, number))
        (tmp_path / f"file{number}").chmod(mode)
    first = [Entry("b", b"text"), Entry("a/c", tmp_path / "file1", executable=True)]
    second = [Entry("a/c", tmp_path / "file2", executable=True), Entry("b", b"text")]

    write(tmp_path / "one", first)  # type: ignore[operator]
    write(tmp_path / "two", second)  # type: ignore[operator]

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_tar_holds_links_and_two_kinds_of_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    write_tar_gz(tmp_path / "t", [Entry("bin/python", link="/usr/bin/python3.11"), Entry("x", b"1", executable=True)])

    with tarfile.open(tmp_path / "t") as tar:
        link, program = tar.getmembers()
    assert (link.name, link.linkname, link.issym()) == ("bin/python", "/usr/bin/python3.11", True)
    assert (program.mode, program.mtime, program.uid, program.uname) == (0o755, 1700000000, 0, "")


def test_two_entries_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x: two entries have this name"):
        write_zip(tmp_path / "z", [Entry("x"), Entry("x")])
    assert not (tmp_path / "z").exists()


def test_the_jobs_get_what_they_ask_for_and_no_more() -> None:
    found = {pin.name: pin for pin in needed(read_lock(ROOT / "requirements.lock"), JOBS, EMR)}

    assert {"botocore", "numpy", "python-dateutil", "pydantic-core", "protobuf", "urllib3"} <= found.keys()
    assert found.keys() & {"pyspark", "py4j", "delta-spark", "moto", "pytest", "fastapi", "colorama"} == set()
    assert all(pin.hashes for pin in found.values())


def test_markers_are_the_targets_not_those_of_the_python_that_packages() -> None:
    pins = read_lock(ROOT / "requirements.lock")

    versions = {each.python: [p.version for p in needed(pins, ["numpy"], each)] for each in (EMR, GLUE)}

    assert len(versions["3.11"]) == len(versions["3.13"]) == 1
    assert versions["3.11"] != versions["3.13"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("boto3>=1.40\n    --hash=sha256:" + "0" * 64, "'boto3>=1.40' is not a pinned requirement"),
        ("boto3==1.40.0\n    # via x", "boto3==1.40.0 has no hash"),
    ],
)
def test_a_lock_without_pins_or_hashes_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        read_lock(tmp_path / "requirements.lock")


def test_what_the_lock_lacks_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no left-pad for Python 3.11; `make lock`"):
        needed(read_lock(ROOT / "requirements.lock"), ["left-pad"], EMR)


@pytest.mark.parametrize(
    ("python", "processor", "interpreter", "told"),
    [
        ("3.9", "x86_64", None, "--python 3.9: allowed: 3.11, 3.12, 3.13"),
        ("3.11", "sparc", None, "--platform sparc: allowed: x86_64"),
        ("3.11", "arm64", "python3", "--interpreter python3: allowed: an absolute path"),
    ],
)
def test_a_target_that_no_platform_has_is_refused(
    python: str, processor: str, interpreter: str | None, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        target(python, processor, interpreter)


def test_graviton_takes_wheels_of_its_own() -> None:
    assert all(tag.endswith("_aarch64") for tag in target("3.11", "arm64").platforms)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A release without environments, which are the slow part."""
    folder = tmp_path_factory.mktemp("package") / "release"
    return folder, package(folder, {}, level=6, step=lambda _: None)


def test_another_checkout_gives_the_same_release(
    release: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another place, other times and modes, a build's leftovers: the bytes are the same."""
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for package_name in (*wheel_module.PACKAGES, "bootstrap"):
        shutil.copytree(ROOT / package_name, copy / package_name, copy_function=shutil.copyfile)
    for name in ("setup.py", "pyproject.toml", "README.md", "requirements.lock"):
        shutil.copyfile(ROOT / name, copy / name)
    for path in copy.rglob("*.py"):
        path.chmod(0o600)
    (copy / "jobs" / "__pycache__").mkdir(exist_ok=True)
    (copy / "jobs" / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"x")
    monkeypatch.setattr(wheel_module, "ROOT", copy)

    again = package(tmp_path / "release", {}, level=6, step=lambda _: None)

    assert files(tmp_path / "release") == files(release[0])
    assert again == release[1]


def test_a_release_holds_what_the_templates_count_on(release: tuple[Path, Manifest]) -> None:
    folder, manifest = release
    names = set(manifest.artifacts)

    assert names == files(folder).keys() - {"manifest.json"}
    assert {
        manifest.wheel,
        "lambda-crawler-trigger.zip",
        "lambda-gluejob-trigger.zip",
        "conf/travel_times.yaml",
        "conf/emr.yaml",
        "conf/glue.yaml",
        "jobs/stream_job.py",
        "jobs/batch_job.py",
        "emr-bootstrap.sh",
    } <= names
    assert manifest.spark == "4.1.1"
    assert manifest.release.startswith(f"{manifest.version}-")
    assert read_manifest(folder) == manifest
    with zipfile.ZipFile(folder / manifest.wheel) as packed:
        content = set(packed.namelist())
        assert {"jobs/stream_job.py", "conf/travel_times.yaml", "movement/cli/main.py"} <= content
        assert {f"{name.replace('.', '/')}.py" for name in ENTRY_POINTS} <= content
        assert {info.external_attr >> 16 & 0o777 for info in packed.infolist()} <= {0o644, 0o664}


def test_a_file_that_was_changed_after_packaging_is_not_deployed(
    release: tuple[Path, Manifest], tmp_path: Path
) -> None:
    shutil.copytree(release[0], tmp_path / "release")
    (tmp_path / "release" / "conf" / "emr.yaml").write_text("lake: s3://other/lake\n")

    with pytest.raises(ConfigurationError, match=r"conf/emr.yaml: its content differs from manifest.json; `movement"):
        read_manifest(tmp_path / "release")


def test_a_folder_of_other_files_is_not_packaged_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(ConfigurationError, match="has other files"):
        package(tmp_path, {}, level=6, step=lambda _: None)
    assert (tmp_path / "thesis.txt").exists()


def test_the_wheel_names_its_dependencies_those_of_kpl_included(release: tuple[Path, Manifest]) -> None:
    found = dependencies(release[0] / release[1].wheel, ("kpl",))

    assert {"boto3", "pyarrow", "aws_kinesis_agg"} <= set(found)
    assert set(found) & {"pyspark", "moto", "pytest"} == set()


def test_a_function_takes_the_modules_it_imports_along() -> None:
    assert modules("lambdas.crawler_trigger") == {"lambdas", "lambdas.crawler_trigger", "lambdas.sqs_batch"}


def test_wrong_options_end_with_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "movement", "package", "--python", "2.7", "--out", "x"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--python 2.7: allowed" in done.stderr
    assert not (tmp_path / "x").exists()


BOOTSTRAP = ROOT / "bootstrap" / "emr-bootstrap.sh"


def bootstrap(folder: Path, digest: str) -> subprocess.CompletedProcess[str]:
    """The bootstrap action, with an `aws` that serves s3://b/ from a folder and writes down what it is asked."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "aws").write_text(
        f'#!/bin/sh\necho "$4 $6" >> "{folder}/asked"\ncp "{folder}/${{6#s3://b/}}" "$7"\n'
    )
    (folder / "bin" / "sudo").write_text('#!/bin/sh\nexec "$@"\n')  # where the tests' user is not root
    for program in (folder / "bin").iterdir():
        program.chmod(0o755)
    return subprocess.run(
        ["bash", str(BOOTSTRAP), "--region", "eu-west-1", "s3://b/0.1.0-abc", digest, str(folder / "opt")],
        env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def served(tmp_path: Path) -> tuple[Path, str]:
    """A small release in a folder that `bootstrap` serves, and its manifest's SHA-256."""
    released = tmp_path / "0.1.0-abc"
    released.mkdir()
    interpreter = os.path.realpath(sys.executable)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    settings = f"home = {os.path.dirname(interpreter)}\ninclude-system-site-packages = false\nversion = {python}\n"
    site = f"lib/python{python}/site-packages"
    entries = [Entry("pyvenv.cfg", settings.encode()), Entry("bin/python", link=interpreter)]
    write_tar_gz(released / "environment.tar.gz", [*entries, Entry(f"{site}/ours.py", b"here = 1\n")])
    archive = hashlib.sha256((released / "environment.tar.gz").read_bytes()).hexdigest()
    manifest = {
        "artifacts": {"environment.tar.gz": {"sha256": archive}},
        "environments": {"environment.tar.gz": {"python": python}},
    }
    (released / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path, hashlib.sha256((released / "manifest.json").read_bytes()).hexdigest()


def test_the_bootstrap_action_installs_what_it_has_checked_and_repeats_harmlessly(served: tuple[Path, str]) -> None:
    folder, digest = served

    first, second = bootstrap(folder, digest), bootstrap(folder, digest)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    python = folder / "opt" / "0.1.0-abc" / "bin" / "python"
    assert subprocess.check_output([python, "-I", "-c", "import ours; print(ours.here)"], text=True) == "1\n"
    asked = (folder / "asked").read_text().splitlines()
    assert asked.count("eu-west-1 s3://b/0.1.0-abc/environment.tar.gz") == 1
    assert "exists already" in second.stdout


@pytest.mark.parametrize("changed", ["manifest.json", "environment.tar.gz"])
def test_the_bootstrap_action_installs_nothing_that_was_changed(served: tuple[Path, str], changed: str) -> None:
    folder, digest = served
    with (folder / "0.1.0-abc" / changed).open("ab") as file:
        file.write(b" ")

    done = bootstrap(folder, digest)

    assert done.returncode == 1
    assert f"{changed}: its SHA-256 is not" in done.stderr
    assert not list((folder / "opt").glob("*"))


@pytest.mark.skipif("PACKAGE_FULL" not in os.environ, reason="minutes and the package index: make nightly")
@pytest.mark.parametrize("wanted", [EMR, GLUE], ids=["emr", "glue"])
def test_an_environment_of_the_lock_has_the_same_bytes_twice(wanted: Target, tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    for name in ("one.tar.gz", "two.tar.gz"):
        build_environment(tmp_path / name, wheel, wanted)

    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


@pytest.mark.skipif("PACKAGE_FULL" not in os.environ, reason="minutes and the package index: make nightly")
def test_an_environment_of_the_lock_is_all_that_the_jobs_import(tmp_path: Path) -> None:
    """Built for this machine's Python, moved to another place, with Spark alone beside it."""
    import pyspark

    here = Target("3.11", os.uname().machine, os.path.realpath(sys.executable))
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the lock's wheels are fetched for Python 3.11 here")
    build_environment(tmp_path / "e.tar.gz", build_wheel(tmp_path), here, level=1)
    with tarfile.open(tmp_path / "e.tar.gz") as archive:
        archive.extractall(tmp_path / "moved", filter="fully_trusted")  # noqa: S202 - our own
    spark = Path(pyspark.__file__).parent / "python" / "lib"
    done = subprocess.run(
        [str(tmp_path / "moved" / "bin" / "python"), "-c", "import jobs.stream_job, jobs.batch_job, aws_kinesis_agg"],
        env={"PYTHONPATH": ":".join(map(str, spark.glob("*.zip"))), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_copied_environment_is_for_the_python_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w-1-py3-none-any.whl").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "w-1-py3-none-any.whl", "w") as packed:
        packed.writestr("w-1.dist-info/METADATA", "Metadata-Version: 2.4\nName: w\nRequires-Dist: tenacity\n")
        packed.writestr("w/__init__.py", "")

    held = copy_environment(tmp_path / "e.tar.gz", tmp_path / "w-1-py3-none-any.whl")

    assert set(held) == {"tenacity"}
    with tarfile.open(tmp_path / "e.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "e", filter="fully_trusted")  # noqa: S202 - our own
    assert not [name for name in names if name.endswith((".pyc", "/RECORD", "/INSTALLER", "direct_url.json"))]
    found = subprocess.check_output(
        [str(tmp_path / "e" / "bin" / "python"), "-I", "-c", "import sys, tenacity, w; print(tenacity.__file__)"],
        text=True,
    )
    assert found.startswith(str(tmp_path / "e" / "lib"))
    assert stat.S_ISLNK((tmp_path / "e" / "bin" / "python").lstat().st_mode)
