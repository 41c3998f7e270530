"""What a check is, and how all of them run: one after the other, each with an answer whatever happens.

A check asks AWS by read calls only (Describe, Get, List, Head, Simulate) and never says `pass` without having seen the
thing. An answer that AWS refuses, or that the embedded AWS makes up, is `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.parsers import ResponseParserError

from jobs.common.aws import DENIED, MISSING, client, error_code
from jobs.common.errors import MovementError
from jobs.common.findings import Answer, Finding, failed, unknown
from jobs.settings.settings import Settings
from local.resources import EMBEDDED_HOSTS, lake_location

T = TypeVar("T")

_REFUSED = {*DENIED, "403", "AuthorizationError", "AuthorizationErrorException", "UnauthorizedOperation"}
_ABSENT = {*MISSING, "404", "NoSuchEntity", "NotFound", "NotFoundException", "NoSuchKey"}
EMBEDDED = "the embedded AWS"


class Account:
    """The account under check: settings, and AWS clients that give up sooner than those of the jobs.

    `roles`: role ARNs by component, such as `{"producer": "arn:…"}`, that are checked besides the job's. `release`: the
    release to check; None: the one of the Glue job, or the newest in `deploy.artifacts`.
    """

    def __init__(self, settings: Settings, roles: dict[str, str] | None = None, release: str | None = None) -> None:
        self.settings = settings
        self.roles = dict(roles or {})
        self.release = release
        self._clients: dict[str, Any] = {}
        self._answers: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """The client of a service, made once. Raises ConfigurationError without a region."""
        if service not in self._clients:
            retries = {"mode": "standard", "max_attempts": 3}
            self._clients[service] = client(service, retries=retries, read_timeout=20)
        return self._clients[service]

    def once(self, name: str, ask: Callable[[], T]) -> T:
        """The answer of `ask`, which several checks need and AWS is asked for once."""
        if name not in self._answers:
            self._answers[name] = ask()
        found: T = self._answers[name]
        return found

    def is_embedded(self, service: str) -> bool:
        """Whether a service's endpoint is an emulator on this machine."""
        return urlsplit(self.client(service).meta.endpoint_url).hostname in EMBEDDED_HOSTS

    @cached_property
    def identity(self) -> dict[str, Any]:
        """GetCallerIdentity's answer: Account, Arn, and the response's headers."""
        answer: dict[str, Any] = self.client("sts").get_caller_identity()
        return answer

    @property
    def number(self) -> str:
        """The account's number, 12 digits."""
        return str(self.identity["Account"])

    @property
    def region(self) -> str:
        """The region of the requests."""
        return str(self.client("sts").meta.region_name)

    @property
    def partition(self) -> str:
        """`aws`, `aws-cn` or `aws-us-gov`."""
        return str(self.client("sts").meta.partition)

    @property
    def bucket(self) -> str | None:
        """The lake's bucket; None for a lake in a local folder."""
        return lake_location(self.settings.lake)[0]

    @cached_property
    def stream(self) -> dict[str, Any]:
        """DescribeStreamSummary's answer."""
        name = self.settings.stream.name
        answer = self.client("kinesis").describe_stream_summary(StreamName=name)
        return dict(answer["StreamDescriptionSummary"])

    @cached_property
    def lake_key(self) -> str | None:
        """Id, alias or ARN of the KMS key of the lake's bucket; None if S3's own keys are used."""
        try:
            answer = self.client("s3").get_bucket_encryption(Bucket=self.bucket)
        except ClientError as error:
            if error_code(error) != "ServerSideEncryptionConfigurationNotFoundError":
                raise
            return None
        default = answer["ServerSideEncryptionConfiguration"]["Rules"][0].get("ApplyServerSideEncryptionByDefault", {})
        if not str(default.get("SSEAlgorithm", "")).startswith("aws:kms"):
            return None
        return str(default.get("KMSMasterKeyID") or "alias/aws/s3")


@dataclass(frozen=True)
class Check:
    """A named question. `invented`: why the embedded AWS's answer would prove nothing; it is not asked then."""

    name: str
    ask: Callable[[Account], Answer]
    service: str = "sts"
    invented: str = ""


def run(
    checks: Iterable[Check], account: Account, started: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Runs checks in order and yields what each found. `started` is called with the name of each.

    Without credentials AWS is asked nothing more: every later answer is unknown.
    """
    stopped = ""
    for check in checks:
        started(check.name)
        answer = unknown(stopped) if stopped else _ask(check, account)
        if check.name in ("region", "caller") and answer.status == "fail":
            stopped = f"not asked: {answer.found}"
        yield Finding(check.name, answer.status, answer.found, answer.remedy)


def _ask(check: Check, account: Account) -> Answer:
    try:
        if check.invented and account.is_embedded(check.service):
            return unknown(f"{EMBEDDED} {check.invented}")
        return check.ask(account)
    except (MovementError, BotoCoreError, ClientError, ResponseParserError) as error:
        return explained(error)
    except (IndexError, KeyError, OSError, TypeError, ValueError) as error:
        # One odd answer must not lose what the other checks find.
        return unknown(f"an answer that doctor does not understand: {error!r}", "report it, with the check's name")


def explained(error: Exception) -> Answer:
    """The answer for an error: fail if the thing does not exist, unknown if AWS refused or did not answer."""
    if isinstance(error, MovementError) and isinstance(error.__cause__, (BotoCoreError, ClientError)):
        error = error.__cause__
    if isinstance(error, NoCredentialsError):
        return unknown("no AWS credentials")
    if not isinstance(error, ClientError):
        return unknown(str(error))
    code, operation = error_code(error), error.operation_name
    message = str(error.response.get("Error", {}).get("Message", ""))
    if code == "NotImplemented":
        return unknown(f"{EMBEDDED} lacks {operation}")
    if code in _REFUSED:
        return unknown(f"AWS refused {operation} ({code}: {message})", f"allow {operation} to the caller of doctor")
    # EMR says InvalidRequestException for a cluster that does not exist.
    if (
        code in _ABSENT
        or code.endswith(".NotFound")
        or (code == "InvalidRequestException" and operation.startswith("Describe"))
    ):
        return failed(f"{operation}: {code}: {message}", "check the name, the region and the account")
    return unknown(f"{operation}: {code}: {message}")
