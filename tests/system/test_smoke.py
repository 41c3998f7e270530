"""`movement deploy smoke` with the packaged release on a real cluster, by no other call than the role may make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import stream_tables
from jobs.common.aws import client
from jobs.lake.store import lake_at
from jobs.schema.table import load_contract
from local.server import RunningServer
from movement.cli.main import app
from movement.packaging.release import EMR_ENVIRONMENT, package
from tests.helpers.call_recorder import Recorder, component_environment
from tests.helpers.lakes import make_lake, put, record
from tests.helpers.policies import policies, refused
from tests.helpers.standalone_cluster import HOME, cluster

pytestmark = [pytest.mark.spark, pytest.mark.aws, pytest.mark.nightly]


def test_a_smoke_run_proves_the_platform_as_the_jobs_role_and_leaves_nothing(
    embedded_aws: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release"
    package(release, {EMR_ENVIRONMENT: None}, level=1, step=lambda _: None)
    settings = make_lake(tmp_path)
    GlueCatalog(client("glue"), settings.database, settings.lake).ensure_tables(
        stream_tables(load_contract(settings.contract), settings.sink.format)
    )
    put(settings, (record(n=n) for n in range(3)))
    given = {
        "lake": settings.lake,
        "database": settings.database,
        "stream.name": settings.stream.name,
        "observe.metrics": "cloudwatch",
        "local.state_dir": str(tmp_path),
    }
    sets = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    monkeypatch.setenv("SPARK_HOME", str(HOME))
    with Recorder(embedded_aws.endpoint) as recorder:
        for name, value in {**component_environment("stream-job"), "AWS_ENDPOINT_URL": recorder.endpoint}.items():
            monkeypatch.setenv(name, value)
        with cluster(tmp_path, workers=1) as running:
            file = tmp_path / "smoke.json"
            done = CliRunner().invoke(
                app,
                ["deploy", "smoke", "--master", running.url, "--release", str(release), *sets, "--json", str(file)],
            )
        left = [path for path, _ in lake_at(settings.lake).list("")]
        calls, unknown = set(recorder.calls), sorted(recorder.unknown)

    (tmp_path / "output.txt").write_text(done.output)
    assert done.exit_code == 0, (done.output, done.exception, (tmp_path / "smoke.log").read_text()[-4000:])
    found = {each["name"]: each for each in json.loads(file.read_text())["checks"]}
    assert {name for name, each in found.items() if each["status"] != "pass"} <= {"Delta"}, found
    assert "3 read = 3 raw = 3 processed + 0 quarantined" in found["one record in, one row out"]["found"]
    assert "last one of batch 0" in found["checkpoint"]["found"]
    assert found["class behind s3://"]["found"].endswith("S3AFileSystem")
    assert left == [], "everything is deleted"
    bucket, _, prefix = settings.lake.removeprefix("s3://").partition("/")
    granted = policies(
        BucketName=bucket, LakePrefix=prefix, Database=settings.database, StreamName=settings.stream.name
    )
    assert unknown == []
    assert len(calls) > 20
    assert refused(calls, {"stream-job": granted["access.StreamJobPolicy"]}) == []
