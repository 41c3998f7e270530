"""delta-rs reaches S3 as boto3 does."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from moto import mock_aws

from jobs.common.aws import client
from jobs.common.errors import AwsAccessError, ConfigurationError
from jobs.lake.delta import open_delta, storage_options
from jobs.lake.store import lake_at
from local.server import RunningServer
from tests.helpers.private_ca import TlsProxy, make_certificate


def options() -> dict[str, str]:
    found = storage_options("s3://bucket/lake/processed")
    assert found is not None
    return found


@mock_aws
def test_the_region_is_the_buckets_not_the_jobs(aws_environment: pytest.MonkeyPatch) -> None:
    client("s3").create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    found = storage_options("s3://far-away/lake/processed")
    assert found is not None
    assert found["AWS_REGION"] == "eu-west-1"


def test_an_endpoint_with_a_private_ca_is_reached_with_its_certificate(
    embedded_aws: RunningServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/another.pem")
    ca = make_certificate(tmp_path)
    with TlsProxy(embedded_aws.endpoint, ca) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(AwsAccessError, match=r"certificate verify failed.*set AWS_CA_BUNDLE to a PEM file"):
            lake_at.__wrapped__("s3://private-ca/lake").get("x")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca.certificate))
        client("s3").create_bucket(Bucket="private-ca")
        schema = pa.schema([("n", pa.int64())])
        uri = "s3://private-ca/lake/processed"
        DeltaTable.create(uri, schema, storage_options=storage_options(uri))
        found = open_delta(uri)
    assert found is not None
    assert found.version() == 0


def test_a_missing_ca_bundle_is_named(aws_environment: pytest.MonkeyPatch) -> None:
    aws_environment.setenv("AWS_CA_BUNDLE", "/no/such.pem")
    with pytest.raises(ConfigurationError, match=r"AWS_CA_BUNDLE: no such file: /no/such\.pem"):
        client("s3")


@mock_aws
def test_plain_http_is_only_for_an_endpoint_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")

    assert not options().keys() & {"AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"}
    assert options()["AWS_REGION"] == "eu-west-3"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://127.0.0.1:2")
    assert options()["AWS_ENDPOINT_URL"] == "https://127.0.0.1:2"
    assert options()["AWS_ALLOW_HTTP"] == "false"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert options()["AWS_ALLOW_HTTP"] == "true"
