"""`movement doctor` on the embedded AWS: what is broken fails, what AWS did not say is unknown, nothing is changed."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient
from typer.testing import CliRunner

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import stream_tables
from jobs.common.aws import client
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from movement.cli.main import app
from tests.helpers.emr_clusters import start_cluster
from tests.helpers.lakes import make_lake, put, record
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.aws
READS = re.compile(r"(Describe|Get|List|Head|Simulate)[A-Z]")
ROLE = "arn:aws:iam::123456789012:role/movement-job"
# What the embedded AWS invents or does not have.
UNKNOWN = (
    "lake: owner",
    "lake: key",
    "lake: versioning",
    "lake: conditional writes",
    "catalog: Lake Formation",
    "role: trust",
    "role: stream-job",
    "release: readable by the role",
    "quota: shards",
    "quota: vCPUs of EMR Serverless",
)
_numbers = itertools.count(1)


@pytest.fixture
def lake(embedded_aws: object, tmp_path: Path) -> Settings:
    """A lake with its tables, as `movement local up` makes it."""
    settings = make_lake(tmp_path)
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    catalog.ensure_tables(stream_tables(load_contract(settings.contract), "parquet"))
    return settings


def doctor(settings: Settings, folder: Path, *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by name."""
    given = [f"lake={settings.lake}", f"database={settings.database}", f"stream.name={settings.stream.name}", *more]
    sets = [part for each in given if not each.startswith("--") for part in ("--set", each)]
    options = [part for each in given if each.startswith("--") for part in each.split("=", 1)]
    file = folder / "doctor.json"
    done = CliRunner().invoke(app, ["doctor", *sets, *options, "--json", str(file)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    found = json.loads(file.read_text())
    statuses = [each["status"] for each in found["checks"]]
    assert found["counts"] == {status: statuses.count(status) for status in ("pass", "fail", "unknown")}
    assert found["ok"] == (done.exit_code == 0)
    return done.exit_code, {each["name"]: each for each in found["checks"]}


def released(*, without: str = "", python: str = "3.13") -> tuple[str, str]:
    """Uploads a release of two files; returns `deploy.artifacts` and its name."""
    bucket, release = f"artifacts-{next(_numbers)}-{without.partition('.')[0] or 'whole'}", "0.1.0-5f0c2a91"
    s3 = client("s3")
    s3.create_bucket(Bucket=bucket)
    files = {"jobs/stream_job.py": b"pass", "environment.tar.gz": b"12", "glue-environment.tar.gz": b"123"}
    environment = {"python": python, "processor": "x86_64", "interpreter": "/usr/bin/python3", "packages": {}}
    manifest = {
        "release": release,
        "environments": {"environment.tar.gz": environment, "glue-environment.tar.gz": environment},
        "artifacts": {name: {"sha256": "", "bytes": len(content)} for name, content in files.items()},
    }
    for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
        if name != without:
            s3.put_object(Bucket=bucket, Key=f"movement/{release}/{name}", Body=content)
    return f"s3://{bucket}/movement", release


def test_a_healthy_lake_passes_and_what_the_embedded_aws_cannot_answer_is_unknown(
    lake: Settings, tmp_path: Path
) -> None:
    artifacts, _ = released()
    code, found = doctor(lake, tmp_path, f"deploy.artifacts={artifacts}", f"deploy.role_arn={ROLE}")

    assert code == 0, [each for each in found.values() if each["status"] == "fail"]
    assert {found[name]["status"] for name in UNKNOWN} == {"unknown"}
    assert "lacks SimulatePrincipalPolicy" in found["role: stream-job"]["found"]
    for name in ("caller", "clock", "stream", "stream: read", "catalog: tables and partitions", "release: files"):
        assert found[name]["status"] == "pass", found[name]


def test_only_read_calls_are_made_and_the_document_lists_them(
    lake: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, release = released()
    put(lake, [record(n=1)])
    deploy = [f"deploy.artifacts={artifacts}", f"deploy.role_arn={ROLE}", f"--role=producer={ROLE}"]
    application = an_application(lake, tmp_path)
    cluster = start_cluster()
    job = f"streaming-{next(_numbers)}"
    client("glue").create_job(
        Name=job,
        Role="arn:aws:iam::123456789012:role/job",
        Command={"Name": "gluestreaming", "ScriptLocation": f"{artifacts}/{release}/jobs/stream_job.py"},
        GlueVersion="6.0",
        SecurityConfiguration="none-such",
    )
    calls: set[tuple[str, str]] = set()
    send = BaseClient._make_api_call  # type: ignore[attr-defined]

    def recorded(self: Any, operation: str, parameters: Any) -> Any:
        calls.add((self.meta.service_model.service_name, operation))
        return send(self, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", recorded)
    for platform in (
        f"deploy.emr_serverless.application_id={application}",
        f"deploy.emr.cluster_id={cluster}",
        f"deploy.glue.job_name={job}",
    ):
        doctor(lake, tmp_path, *deploy, platform)

    assert len(calls) > 20
    assert sorted(operation for _, operation in calls if not READS.match(operation)) == []
    documented = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert sorted(f"{service}:{operation}" for service, operation in calls if f"`{operation}`" not in documented) == []


@pytest.mark.parametrize(
    ("broken", "name", "told"),
    [
        (lambda lake: client("kinesis").delete_stream(StreamName=lake.stream.name), "stream", "ResourceNotFound"),
        (
            lambda lake: client("glue").delete_table(DatabaseName=lake.database, Name="raw"),
            "catalog: tables and partitions",
            "raw: missing",
        ),
        (lambda lake: client("glue").delete_database(Name=lake.database), "catalog: database", "the lake has batches"),
    ],
)
def test_what_is_gone_fails_with_a_remedy(
    broken: Callable[[Settings], object], name: str, told: str, lake: Settings, tmp_path: Path
) -> None:
    bucket = lake.lake.split("/")[2]
    client("s3").put_object(Bucket=bucket, Key="lake/_ledger/abc/00000000000000000000.json", Body=b"{}")
    broken(lake)
    code, found = doctor(lake, tmp_path)

    assert code == 1
    assert found[name]["status"] == "fail"
    assert told in found[name]["found"]
    assert found[name]["remedy"]


def test_a_lake_that_no_job_has_started_yet_is_unknown_not_broken(embedded_aws: object, tmp_path: Path) -> None:
    settings = make_lake(tmp_path)

    code, found = doctor(settings, tmp_path)

    assert (code, found["catalog: tables and partitions"]["status"]) == (0, "unknown")


def test_a_bucket_that_does_not_exist_fails(lake: Settings, tmp_path: Path) -> None:
    code, found = doctor(lake, tmp_path, "lake=s3://no-such-bucket-here/lake")

    assert (code, found["lake: owner"]["status"]) == (1, "fail")
    assert "movement deploy stack" in found["lake: owner"]["remedy"]


def test_a_release_that_lacks_a_file_or_has_another_python_fails(lake: Settings, tmp_path: Path) -> None:
    broken, _ = released(without="glue-environment.tar.gz")
    older, _ = released(python="3.11")

    _, first = doctor(lake, tmp_path, f"deploy.artifacts={broken}")
    _, second = doctor(lake, tmp_path, f"deploy.artifacts={older}")

    assert "glue-environment.tar.gz is missing" in first["release: files"]["found"]
    assert first["release: files"]["status"] == "fail"
    assert (second["release: files"]["status"], second["release: Python and processor"]["status"]) == ("pass", "fail")
    assert "movement package --python 3.13" in second["release: Python and processor"]["remedy"]


def an_application(lake: Settings, folder: Path, **network: Any) -> str:
    created = client("emr-serverless").create_application(
        name="movement", releaseLabel="emr-spark-8.1.0", type="SPARK", **network
    )
    return str(created["applicationId"])


def test_an_application_of_another_release_or_without_a_network_fails(lake: Settings, tmp_path: Path) -> None:
    application = an_application(lake, tmp_path)
    _, found = doctor(lake, tmp_path, f"deploy.emr_serverless.application_id={application}")
    _, other = doctor(
        lake,
        tmp_path,
        f"deploy.emr_serverless.application_id={application}",
        "deploy.emr_release=emr-spark-8.0.0",
    )

    assert (found["platform"]["status"], other["platform"]["status"]) == ("pass", "fail")
    assert found["network: ways to AWS"]["status"] == "fail"
    assert "Kinesis cannot be reached" in found["network: ways to AWS"]["found"]


def test_a_private_subnet_needs_each_endpoint_with_private_dns(lake: Settings, tmp_path: Path) -> None:
    ec2 = client("ec2")
    network = ec2.create_vpc(CidrBlock="10.60.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.60.0.0/20")["Subnet"]["SubnetId"]
    ec2.modify_vpc_attribute(VpcId=network, EnableDnsHostnames={"Value": True})
    (routes,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [network]}])["RouteTables"]
    application = an_application(lake, tmp_path, networkConfiguration={"subnetIds": [subnet]})
    which = f"deploy.emr_serverless.application_id={application}"

    _, without = doctor(lake, tmp_path, which)
    service = "com.amazonaws.us-east-1"
    ec2.create_vpc_endpoint(VpcId=network, ServiceName=f"{service}.s3", RouteTableIds=[routes["RouteTableId"]])
    for name in ("kinesis-streams", "glue", "logs"):
        ec2.create_vpc_endpoint(
            VpcId=network,
            ServiceName=f"{service}.{name}",
            VpcEndpointType="Interface",
            SubnetIds=[subnet],
            PrivateDnsEnabled=name != "glue",
        )
    _, complete = doctor(lake, tmp_path, which)

    assert without["network: ways to AWS"]["status"] == "fail"
    for name in ("s3", "kinesis-streams", "glue", "logs"):
        assert f"{subnet}: {name}" in without["network: ways to AWS"]["found"]
    assert complete["network: ways to AWS"]["status"] == "pass", complete["network: ways to AWS"]
    assert (complete["network: private DNS"]["status"], "glue" in complete["network: private DNS"]["found"]) == (
        "fail",
        True,
    )


def test_firehose_beside_the_job_is_named(lake: Settings, tmp_path: Path) -> None:
    arn = client("kinesis").describe_stream_summary(StreamName=lake.stream.name)["StreamDescriptionSummary"][
        "StreamARN"
    ]
    name = f"delivery-{next(_numbers)}"
    client("firehose").create_delivery_stream(
        DeliveryStreamName=name,
        DeliveryStreamType="KinesisStreamAsSource",
        KinesisStreamSourceConfiguration={"KinesisStreamARN": arn, "RoleARN": ROLE},
        ExtendedS3DestinationConfiguration={"RoleARN": ROLE, "BucketARN": "arn:aws:s3:::b"},
    )
    _, found = doctor(lake, tmp_path)

    assert f"Firehose {name}" in found["stream: consumers"]["found"]
    assert found["stream: consumers"]["status"] == "unknown", "there is no metric of throttled reads"
