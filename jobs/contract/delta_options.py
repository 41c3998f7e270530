"""How the `deltalake` library (delta-rs) finds S3: exactly as boto3 does, its profiles and endpoints included."""

from __future__ import annotations

from urllib.parse import urlsplit

import boto3

from jobs.contract.aws import client, region


def delta_options() -> dict[str, str]:
    """`storage_options` for `deltalake.DeltaTable`: boto3's credentials, region and endpoint as they are now.

    Plain HTTP is allowed only for an endpoint that says `http://`. Raises ConfigurationError where no region is found.
    """
    endpoint = urlsplit(client("s3").meta.endpoint_url)
    options = {"AWS_REGION": str(region()), "connect_timeout": "5s", "timeout": "60s", "max_retries": "4"}
    if ".amazonaws.com" not in endpoint.netloc:
        options["AWS_ENDPOINT_URL"] = endpoint.geturl()
        options["AWS_ALLOW_HTTP"] = str(endpoint.scheme == "http").lower()
    credentials = boto3.Session().get_credentials()
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
        if frozen.token:
            options["AWS_SESSION_TOKEN"] = frozen.token
    return options
