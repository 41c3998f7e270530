"""How the `deltalake` library (delta-rs) finds S3: where boto3 and S3A find it, in the standard environment."""

from __future__ import annotations

import os

from jobs.contract.aws import region


def delta_options() -> dict[str, str]:
    """`storage_options` for `deltalake.DeltaTable`; the library finds credentials and profiles by itself."""
    options: dict[str, str] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}
    if region():
        options["AWS_REGION"] = str(region())
    return options
