"""A proxy that records the AWS calls of each component, and the IAM permissions that they need.

Each component runs with its own access key (`component_environment`), which is in the Authorization header.
Permissions by operation: https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from tests.helpers.proxy import Proxy

ACCOUNT, REGION = "123456789012", "us-east-1"
_KEY = re.compile(r"Credential=component-([a-z-]+)/")
_PREFIXES = {
    "Kinesis": "kinesis",
    "AWSGlue": "glue",
    "AmazonSQS": "sqs",
    "AWSEvents": "events",
    "GraniteServiceVersion20100801": "cloudwatch",
}
# Glue operations by the kind of resource that they need, besides the catalog. Others need a table.
_GLUE_JOBS = ("StartJobRun", "GetJobRun", "GetJobRuns", "BatchStopJobRun", "GetJob")
_GLUE_CRAWLERS = ("GetCrawler", "StartCrawler")
_GLUE_DATABASES = ("CreateDatabase", "GetDatabase", "GetTables")


@dataclass(frozen=True)
class Call:
    """A permission that a component needed: an IAM action on one resource. `request`: the request that needed it."""

    component: str
    action: str
    resource: str
    request: str


class UnknownRequestError(Exception):
    """A request without a rule here: add its permissions to this module."""


class Recorder(Proxy):
    """Forwards to the embedded AWS. `calls`: the permissions needed so far; `unknown`: requests without a rule."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.calls: set[Call] = set()
        self.unknown: set[str] = set()
        self._lock = threading.Lock()

    def handle(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Forwards a request, answers it, and records the permissions that it needs."""
        answer, content = self.forward(request, body)
        component = _KEY.search(request.headers.get("Authorization", ""))
        if component is not None:
            try:
                needed = set(permissions(request.command, request.path, dict(request.headers), body, answer.status))
            except (KeyError, ValueError, UnknownRequestError) as error:
                with self._lock:
                    target = request.headers.get("X-Amz-Target") or f"{request.command} {request.path[:200]}"
                    self.unknown.add(f"{component[1]}: {target}: {error!r}")
            else:
                with self._lock:
                    self.calls |= {Call(component[1], *found) for found in needed}
        self.answer(request, answer, content)


def component_environment(component: str) -> dict[str, str]:
    """The credentials by which the recorder identifies a component."""
    return {"AWS_ACCESS_KEY_ID": f"component-{component}", "AWS_SECRET_ACCESS_KEY": "no-real-secret"}


def permissions(
    method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> Iterator[tuple[str, str, str]]:
    """Yields (action, resource ARN, request) for each permission of a request. Raises UnknownRequestError."""
    named = {name.lower(): value for name, value in headers.items()}
    if target := named.get("x-amz-target"):
        service, _, operation = target.partition(".")
        prefix = _PREFIXES.get(service.partition("_")[0])
        if prefix is None:
            raise UnknownRequestError(f"service of {target}")
        for resource in _json_resources(prefix, operation, json.loads(body or b"{}")):
            yield f"{prefix}:{operation}", resource, operation
    elif "/s3/" in named.get("authorization", ""):
        yield from _of_s3(method, path, named, body, status)
    else:
        raise UnknownRequestError("neither a JSON service nor S3")


def _json_resources(prefix: str, operation: str, asked: dict[str, Any]) -> list[str]:
    if prefix == "kinesis":
        return [f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{_stream(asked)}"]
    if prefix == "glue":
        return [f"arn:aws:glue:{REGION}:{ACCOUNT}:{name}" for name in _glue_resources(operation, asked)]
    if prefix == "cloudwatch" and operation == "PutMetricData":
        return ["*"]
    raise UnknownRequestError(f"resources of {prefix}:{operation}")


def _stream(asked: dict[str, Any]) -> str:
    if "StreamName" in asked:
        return str(asked["StreamName"])
    if "StreamARN" in asked:
        return str(asked["StreamARN"]).rpartition("/")[2]
    # moto's iterators contain the name of their stream; AWS's do not.
    return base64.b64decode(asked["ShardIterator"]).decode().partition(":")[0]


def _glue_resources(operation: str, asked: dict[str, Any]) -> list[str]:
    if operation in _GLUE_JOBS:
        return [f"job/{asked['JobName']}"]
    if operation in _GLUE_CRAWLERS:
        return [f"crawler/{asked['Name']}"]
    database = asked.get("DatabaseName") or asked.get("DatabaseInput", asked)["Name"]
    found = ["catalog", f"database/{database}"]
    if operation == "GetTables":
        # It answers with the tables that the caller may list, so the permission is for any table of the database.
        found.append(f"table/{database}/anything")
    if operation not in _GLUE_DATABASES:
        table = asked.get("TableName") or asked.get("TableInput", asked)["Name"]
        found.append(f"table/{database}/{table}")
    return found


def _of_s3(method: str, path: str, headers: dict[str, str], body: bytes, status: int) -> Iterator[tuple[str, str, str]]:
    parts = urlsplit(path)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    whole, thing = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{key}"
    if key and method in ("GET", "HEAD") and not query.keys() & {"uploads", "uploadId", "acl", "tagging"}:
        yield "s3:GetObject", thing, f"{method} object"
        if status == 404:
            # Without this permission S3 answers 403 for a missing object.
            yield "s3:ListBucket", whole, f"{method} of an absent object"
    elif key and method == "PUT":
        yield "s3:PutObject", thing, "PUT object"
        if source := headers.get("x-amz-copy-source"):
            yield "s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/').partition('?')[0]}", "copy of an object"
    elif key and method == "DELETE":
        yield "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", thing, "DELETE object"
    elif key and method == "POST" and query.keys() & {"uploads", "uploadId"}:
        yield "s3:PutObject", thing, "multipart upload"
    elif not key and method == "POST" and "delete" in query:
        for named in ElementTree.fromstring(_unchunked(body)).iter():  # noqa: S314 (our own client's request)
            if named.tag.rpartition("}")[2] == "Key":
                yield "s3:DeleteObject", f"{whole}/{named.text}", "DeleteObjects"
    elif not key and method == "HEAD":
        yield "s3:ListBucket", whole, "HeadBucket"
    elif not key and method == "GET" and "list-type" in query:
        yield "s3:ListBucket", whole, f"list {query.get('prefix', [''])[0]}"
    elif not key and method == "GET" and "uploads" in query:
        yield "s3:ListBucketMultipartUploads", whole, "list uploads"
    else:
        raise UnknownRequestError(f"{method} with {sorted(query)}")


def _unchunked(body: bytes) -> bytes:
    """The XML of a request whose body may be in aws-chunked encoding."""
    begin, end = body.find(b"<"), body.rfind(b">")
    return body[begin : end + 1]
