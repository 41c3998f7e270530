"""Translation of botocore's errors, and clients configured by the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.stub import Stubber

from jobs.common import aws
from jobs.common.errors import AwsAccessError, ConfigurationError, MovementError, TransientError


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def glue() -> Iterator[tuple[Any, Stubber]]:
    client: Any = boto3.client(
        "glue", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    with Stubber(client) as stub:
        yield client, stub


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        ("AccessDeniedException", AwsAccessError, "check the role's policy"),
        ("AccessDenied", AwsAccessError, "check the role's policy"),
        ("ExpiredTokenException", AwsAccessError, "check the role's policy"),
        ("UnrecognizedClientException", AwsAccessError, "check the role's policy"),
        ("EntityNotFoundException", AwsAccessError, "check name, region and account"),
        ("NoSuchBucket", AwsAccessError, "check name, region and account"),
        ("ResourceNotFoundException", AwsAccessError, "check name, region and account"),
        ("ThrottlingException", TransientError, "ThrottlingException"),
        ("InternalServiceException", TransientError, "InternalServiceException"),
        ("SlowDown", TransientError, "SlowDown"),
        ("SomethingNew", TransientError, "SomethingNew"),
    ],
)
def test_an_aws_error_becomes_ours_with_operation_code_and_remedy(
    glue: tuple[Any, Stubber], code: str, kind: type[MovementError], remedy: str
) -> None:
    client, stub = glue
    stub.add_client_error("get_database", code, "the words of AWS")
    with pytest.raises(kind) as error, aws.translate_aws_errors("look at database d"):
        client.get_database(Name="d")
    assert str(error.value).startswith("look at database d: ")
    assert code in str(error.value)
    assert "the words of AWS" in str(error.value)
    assert remedy in str(error.value)
    assert isinstance(error.value.__cause__, ClientError)


@pytest.mark.parametrize(
    "raised",
    [
        EndpointConnectionError(endpoint_url="http://nowhere"),
        ReadTimeoutError(endpoint_url="http://nowhere"),
        ConnectTimeoutError(endpoint_url="http://nowhere"),
    ],
)
def test_a_network_that_fails_is_transient(raised: Exception) -> None:
    with pytest.raises(TransientError, match=r"read it: .*http://nowhere"), aws.translate_aws_errors("read it"):
        raise raised


def test_missing_credentials_are_an_error_that_says_what_to_set() -> None:
    with (
        pytest.raises(AwsAccessError, match=r"AWS_PROFILE or AWS_ACCESS_KEY_ID.*movement local env"),
        aws.translate_aws_errors("x"),
    ):
        raise NoCredentialsError


def test_any_other_error_is_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), aws.translate_aws_errors("divide"):
        _ = 1 / 0


def test_an_aws_error_without_a_code_becomes_ours() -> None:
    with pytest.raises(TransientError, match="odd"), aws.translate_aws_errors("odd"):
        raise ClientError({}, "Odd")


def test_no_region_is_a_configuration_error_that_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        aws.client("kinesis")


def test_an_unknown_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="nobody"):
        aws.client("s3")


def test_the_region_is_found_where_boto3_and_the_sdks_look(monkeypatch: pytest.MonkeyPatch) -> None:
    assert aws.region() is None
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert aws.region() == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert aws.region() == "eu-west-3"


def test_endpoints_come_from_the_environment_and_settings_of_a_client_can_be_overridden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", "http://127.0.0.1:2")
    assert aws.client("s3").meta.endpoint_url == "http://127.0.0.1:1"
    client = aws.client("glue", connections=3, read_timeout=7)
    assert client.meta.endpoint_url == "http://127.0.0.1:2"
    assert (client.meta.config.max_pool_connections, client.meta.config.read_timeout) == (3, 7)
