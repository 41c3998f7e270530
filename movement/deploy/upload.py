"""Uploads a release to `<artifacts>/<release>/`, without the files that are there already with the same checksum.

S3 checks each upload against its SHA-256 and refuses to overwrite, so a release never changes. The manifest goes
last: a release that has its manifest is complete. S3 also refuses if the bucket is of another account: somebody could
have taken the name of a bucket that was deleted.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from jobs.common.aws import client, error_code, translate_aws_errors
from jobs.common.errors import AwsAccessError, ConfigurationError, TerminalError
from movement.deploy.calls import Call
from movement.packaging.release import MANIFEST, Manifest

# The largest file that S3 accepts in one request.
LARGEST = 5 * 1024**3
# Stands for the caller's account until a request is sent: --dry-run needs no credentials.
CALLER = "<the caller's account>"


def release_uri(artifacts: str | None, release: str) -> str:
    """The release's folder in S3. Raises ConfigurationError if `deploy.artifacts` is not set."""
    if artifacts is None:
        raise ConfigurationError(
            "deploy.artifacts: not set; releases are uploaded there: --set deploy.artifacts=s3://bucket/prefix"
        )
    return f"{artifacts}/{release}"


def uploads(folder: Path, manifest: Manifest, uri: str) -> list[Call]:
    """The requests that upload a release to `uri`, the manifest's last."""
    names = [*sorted(manifest.artifacts), MANIFEST]
    return [put(folder / name, f"{uri}/{name}") for name in names]


def address(call: Call) -> str:
    """The address of the object that an upload writes."""
    return f"s3://{call.parameters['Bucket']}/{call.parameters['Key']}"


def put(file: Path, uri: str) -> Call:
    """The request that uploads one file unless it exists. Raises ConfigurationError if the file is too large."""
    if file.stat().st_size > LARGEST:
        raise ConfigurationError(f"{file}: larger than {LARGEST:,} bytes, the limit of one S3 request")
    parts = urlsplit(uri)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    parameters = {
        "Bucket": parts.netloc,
        "Key": parts.path.lstrip("/"),
        "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
        "Metadata": {"sha256": digest.hexdigest()},
        "IfNoneMatch": "*",
        "ExpectedBucketOwner": CALLER,
    }
    return Call("s3", "PutObject", parameters, body=file, when="it does not exist yet")


def send(calls: Iterable[Call], on_file: Callable[[str, bool], None] = lambda _key, _sent: None) -> list[str]:
    """Uploads the files that do not exist yet, and returns their keys.

    `on_file` is called with each key and whether it was uploaded. Raises TerminalError if another file has the name,
    AwsAccessError or TransientError.
    """
    sent, owner = [], None
    for planned in calls:
        owner = owner or caller_account()
        call = replace(planned, parameters={**planned.parameters, "ExpectedBucketOwner": owner})
        key = call.parameters["Key"]
        is_new = not _exists(call)
        if is_new:
            call.send()
            sent.append(key)
        on_file(key, is_new)
    return sent


def caller_account() -> str:
    """The number of the account whose credentials are used. Raises AwsAccessError or TransientError."""
    with translate_aws_errors("look which account the credentials are of"):
        return str(client("sts").get_caller_identity()["Account"])


def _exists(call: Call) -> bool:
    """Whether the same file exists already. Raises TerminalError if it is another file."""
    bucket, key = call.parameters["Bucket"], call.parameters["Key"]
    with translate_aws_errors(f"look for s3://{bucket}/{key}"):
        try:
            owner = call.parameters["ExpectedBucketOwner"]
            found = client("s3").head_object(Bucket=bucket, Key=key, ExpectedBucketOwner=owner)
        except ClientError as error:
            if error_code(error) in ("404", "NoSuchKey", "NotFound"):
                return False
            if error_code(error) in ("403", "AccessDenied"):  # the answer to HEAD has no body with a reason
                raise AwsAccessError(
                    f"look for s3://{bucket}/{key}: AWS refused; needs s3:GetObject, and s3:ListBucket on the bucket, "
                    f"which must be of account {owner}"
                ) from error
            raise
    if found.get("Metadata") != call.parameters["Metadata"]:
        raise TerminalError(
            f"s3://{bucket}/{key}: another file has this name, and a release never changes; delete it, or the release"
        )
    return True
