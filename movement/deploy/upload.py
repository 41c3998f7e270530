"""The release's files → `<artifacts>/<release>/`. What is there with the same checksum is not sent again.

S3 checks each upload against its SHA-256, and takes none over a file that is there: a release never changes. The
manifest goes last, so a release whose manifest is there is whole.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from jobs.common.aws import client, error_code, translate_aws_errors
from jobs.common.errors import AwsAccessError, ConfigurationError, TerminalError
from movement.deploy.calls import Call
from movement.packaging.release import MANIFEST, Manifest

# S3 takes a file of so much in one request.
LARGEST = 5 * 1024**3


def release_uri(artifacts: str | None, release: str) -> str:
    """Where a release lies. Raises ConfigurationError where `deploy.artifacts` is not set."""
    if artifacts is None:
        raise ConfigurationError("deploy.artifacts: say where releases go: --set deploy.artifacts=s3://bucket/prefix")
    return f"{artifacts}/{release}"


def uploads(folder: Path, manifest: Manifest, uri: str) -> list[Call]:
    """The requests that put a release there, the manifest's last."""
    names = [*sorted(manifest.artifacts), MANIFEST]
    return [put(folder / name, f"{uri}/{name}") for name in names]


def put(file: Path, uri: str) -> Call:
    """The request that puts one file there, unless one is there. Raises ConfigurationError where it is too large."""
    if file.stat().st_size > LARGEST:
        raise ConfigurationError(f"{file}: larger than {LARGEST:,} bytes")
    parts = urlsplit(uri)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    parameters = {
        "Bucket": parts.netloc,
        "Key": parts.path.lstrip("/"),
        "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
        "Metadata": {"sha256": digest.hexdigest()},
        "IfNoneMatch": "*",
    }
    return Call("s3", "PutObject", parameters, body=file, when="it is not there yet")


def send(calls: Iterable[Call], on_file: Callable[[str, bool], None] = lambda _key, _sent: None) -> list[str]:
    """Sends what is not there yet; the keys that were sent. `on_file` is told each key, and whether it was sent.

    Raises TerminalError where another file has the name, AwsAccessError or TransientError.
    """
    sent = []
    for call in calls:
        key = call.parameters["Key"]
        is_new = not _stands(call)
        if is_new:
            call.send()
            sent.append(key)
        on_file(key, is_new)
    return sent


def _stands(call: Call) -> bool:
    """Whether the same file is there already. Raises TerminalError where another is."""
    bucket, key = call.parameters["Bucket"], call.parameters["Key"]
    with translate_aws_errors(f"look for s3://{bucket}/{key}"):
        try:
            found = client("s3").head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error_code(error) in ("404", "NoSuchKey", "NotFound"):
                return False
            if error_code(error) in ("403", "AccessDenied"):  # HEAD has no body that would say more
                raise AwsAccessError(
                    f"look for s3://{bucket}/{key}: AWS refused; it takes s3:GetObject, and s3:ListBucket on the bucket"
                ) from error
            raise
    if found.get("Metadata") != call.parameters["Metadata"]:
        raise TerminalError(
            f"s3://{bucket}/{key}: another file has this name, and a release never changes; delete it, or the release"
        )
    return True
