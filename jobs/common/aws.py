"""AWS clients: configured by the standard environment variables and profiles, with bounded retries and clear errors.

botocore, the core of boto3, reads `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>` itself. It is imported with the
first client, because Spark starts processes that never call AWS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, overload

from jobs.common.errors import AwsAccessError, ConfigurationError, TransientError
from jobs.common.retry import RetryPolicy

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from botocore.session import Session
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_events import EventBridgeClient
    from types_boto3_glue import GlueClient
    from types_boto3_kinesis import KinesisClient
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient
    from types_boto3_sts import STSClient

BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
DENIED = {"AccessDenied", "AccessDeniedException", *BAD_CREDENTIALS}
MISSING = {"EntityNotFoundException", "NoSuchBucket", "ResourceNotFoundException"}
# For connections that break within an object's content.
BODY_RETRY = RetryPolicy()


@lru_cache(maxsize=1)
def _models() -> Any:
    import botocore.loaders

    return botocore.loaders.create_loader()


def core_session() -> Session:
    """A new botocore session, so that a changed environment takes effect. The service models are loaded only once."""
    import botocore.session

    core = botocore.session.Session()
    core.register_component("data_loader", _models())
    return core


def region() -> str | None:
    """The region that boto3 and the AWS SDKs use; None if no region is configured."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if named:
        return named
    configured: str | None = core_session().get_config_variable("region")
    return configured


def ca_bundle(session: Session | None = None) -> str | None:
    """The PEM file of CAs that boto3 trusts instead of its own: AWS_CA_BUNDLE or the profile's `ca_bundle`.

    Raises ConfigurationError if the file is missing.
    """
    bundle: str | None = (session or core_session()).get_config_variable("ca_bundle")
    if bundle and not os.path.isfile(bundle):
        raise ConfigurationError(f"AWS_CA_BUNDLE: no such file: {bundle}; it holds the CA's certificate, in PEM")
    return bundle or None


def use_region(name: str | None) -> None:
    """Sets this process's region to `name`, unless the environment has one or `name` is None.

    For a job's `--region`, because some platforms do not pass the region to a driver.
    """
    if name and not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        os.environ["AWS_REGION"] = name


# The types come from the stubs of the dev extra; other services' clients are untyped.
@overload
def client(service: Literal["cloudformation"], *, connections: int = ..., **config: Any) -> CloudFormationClient: ...
@overload
def client(service: Literal["cloudwatch"], *, connections: int = ..., **config: Any) -> CloudWatchClient: ...
@overload
def client(service: Literal["events"], *, connections: int = ..., **config: Any) -> EventBridgeClient: ...
@overload
def client(service: Literal["glue"], *, connections: int = ..., **config: Any) -> GlueClient: ...
@overload
def client(service: Literal["kinesis"], *, connections: int = ..., **config: Any) -> KinesisClient: ...
@overload
def client(service: Literal["s3"], *, connections: int = ..., **config: Any) -> S3Client: ...
@overload
def client(service: Literal["sqs"], *, connections: int = ..., **config: Any) -> SQSClient: ...
@overload
def client(service: Literal["sts"], *, connections: int = ..., **config: Any) -> STSClient: ...
@overload
def client(service: str, *, connections: int = ..., **config: Any) -> Any: ...
def client(service: str, *, connections: int = 10, **config: Any) -> Any:
    """A botocore client of `service`. It retries throttled and failed (5xx) requests, in botocore's standard mode.

    `config` overrides the settings made here; its keys are those of botocore's Config. Clients do not pickle, so create
    them in the worker that uses them. Raises ConfigurationError if no region is configured or the profile is missing.
    """
    from botocore.config import Config
    from botocore.exceptions import NoRegionError, ProfileNotFound

    defaults: dict[str, Any] = {
        "retries": {"mode": "standard", "max_attempts": 8},
        "max_pool_connections": connections,
        "connect_timeout": 5,
        "read_timeout": 60,
        "user_agent_extra": "movement-lake",
    }
    settings = Config(**{**defaults, **config})
    try:
        session = core_session()
        ca_bundle(session)  # a missing file is an error here, not at the first request
        return session.create_client(service, region_name=region(), config=settings)
    except NoRegionError as error:
        raise ConfigurationError("no AWS region: set AWS_REGION, or a region in the AWS profile") from error
    except ProfileNotFound as error:
        raise ConfigurationError(
            f"AWS_PROFILE: {error}; `aws configure list-profiles` lists those that exist"
        ) from error


def error_code(error: ClientError) -> str:
    """The code of an AWS error, such as `AccessDeniedException`."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translate_aws_errors(what: str) -> Iterator[None]:
    """Translates botocore's errors into ours. `what` is the operation: `with translate_aws_errors("list stream x"):`.

    Raises AwsAccessError if the permission, the credentials or the resource is missing, otherwise TransientError;
    botocore has already done its retries.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
        SSLError,
    )

    try:
        yield
    except NoCredentialsError as error:
        raise AwsAccessError(
            f"{what}: no AWS credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            'or run `eval "$(movement local env)"` for the embedded AWS'
        ) from error
    except ClientError as error:
        code = error_code(error)
        message = error.response.get("Error", {}).get("Message", "")
        if code in DENIED:
            raise AwsAccessError(f"{what}: AWS refused ({code}: {message}); check the role's policy") from error
        if code in MISSING:
            raise AwsAccessError(
                f"{what}: does not exist ({code}: {message}); check name, region and account"
            ) from error
        raise TransientError(f"{what}: {code}: {message}") from error
    except SSLError as error:
        raise AwsAccessError(
            f"{what}: {error}; if the endpoint has a certificate of a private CA, set AWS_CA_BUNDLE to a PEM file "
            "with the CA's certificate"
        ) from error
    except EndpointConnectionError as error:
        raise TransientError(
            f"{what}: {error}; is it running (`movement local up`) and reachable from here?"
        ) from error
    except BotoCoreError as error:
        raise TransientError(f"{what}: {error}") from error


def read_object(s3: S3Client, *, most: int | None = None, **place: Any) -> tuple[bytes, str]:
    """Returns the content of the object at `Bucket` and `Key`, or its first `most` bytes, and the ETag of that content.

    Repeats the request if the connection breaks within the body or the body does not match its checksum, and raises
    TransientError if that goes on. Other errors of botocore are raised unchanged; use `translate_aws_errors`.
    """
    from botocore.exceptions import (
        FlexibleChecksumError,
        IncompleteReadError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    def attempt() -> tuple[bytes, str]:
        answer = s3.get_object(**place)
        try:
            content = answer["Body"].read(most)
            if most is not None and len(content) < most:
                answer["Body"].read()  # botocore checks the length only if the body is read to its end
            return content, answer["ETag"]
        except (FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError) as error:
            raise TransientError(
                f"read s3://{place['Bucket']}/{place['Key']}: the connection broke or the checksum did "
                f"not match {BODY_RETRY.attempts} times: {error}"
            ) from error

    return BODY_RETRY.call(attempt)
