"""Calls to Glue: repeats what may pass, names what Glue refuses for good, and reads the answers of the Batch… calls.

Source: https://docs.aws.amazon.com/glue/latest/webapi/ (BatchCreatePartition, BatchUpdatePartition).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from jobs.common.aws import error_code, translate_aws_errors
from jobs.common.errors import TerminalError, TransientError
from jobs.common.retry import RetryPolicy

T = TypeVar("T")
PartitionValues = tuple[str, ...]

BATCH = 100  # AWS's limit of partitions in one BatchCreatePartition, BatchGetPartition or BatchUpdatePartition
EXISTS = "AlreadyExistsException"
MISSING = "EntityNotFoundException"
# Codes that the same request gets again each time.
_PERMANENT = frozenset({"InvalidInputException", "ValidationException"})


class RequestRefusedError(TerminalError):
    """Glue refuses a request for what it holds. `reason`: Glue's code and message."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: Glue refused it for good ({reason}): correct what Glue names, then start again")
        self.reason = reason


@dataclass
class BatchAnswer:
    """The entries of a Batch… call that were not done, by their partition values.

    `harmless`: those that failed with the code that the caller named, such as "exists". `refused`: those that Glue
    refuses for good, with Glue's code and message.
    """

    harmless: list[PartitionValues] = field(default_factory=list)
    refused: dict[PartitionValues, str] = field(default_factory=dict)

    def raise_refused(self, what: str) -> None:
        """Raises RequestRefusedError for the first entry that Glue refuses for good. `what` was to be done."""
        for values, reason in self.refused.items():
            raise RequestRefusedError(f"{what}: {list(values)}", reason)


class GlueCalls:
    """Makes calls to Glue, and repeats those that fail.

    Raises AwsAccessError at once if permission is missing, RequestRefusedError at once if Glue refuses what the request
    holds, TerminalError if all attempts fail.
    """

    def __init__(self, retry: RetryPolicy) -> None:
        self.retry = retry

    def call(self, what: str, operation: Callable[[], T]) -> T:
        """Returns the result of `operation`. `what` describes it in error messages."""

        def attempt() -> T:
            with translate_aws_errors(what):
                try:
                    return operation()
                except ClientError as error:
                    if error_code(error) in _PERMANENT:
                        message = error.response.get("Error", {}).get("Message", "")
                        raise RequestRefusedError(what, f"{error_code(error)}: {message}") from error
                    raise

        try:
            return self.retry.call(attempt)
        except TransientError as error:
            raise TerminalError(
                f"{error}; given up after {self.retry.attempts} attempts: see AWS's health, then start again"
            ) from error

    def batch(
        self,
        what: str,
        send: Callable[[list[Any]], Mapping[str, Any]],
        entries: Mapping[PartitionValues, Any],
        *,
        values_key: str,
        harmless: str,
    ) -> BatchAnswer:
        """Sends the entries of a Batch… call, and sends those that fail again. Keys are the partitions' values.

        The answer has status 200 and lists the failed entries, so botocore retries none of them; `values_key` is the
        key of their values, and `harmless` a code that is no failure.
        """
        unsent, answer = dict(entries), BatchAnswer()

        def send_unsent() -> None:
            failed = {}
            for error in send(list(unsent.values())).get("Errors", []):
                values, detail = tuple(error[values_key]), error.get("ErrorDetail", {})
                code, reason = detail.get("ErrorCode"), f"{detail.get('ErrorCode')}: {detail.get('ErrorMessage')}"
                if code == harmless:
                    answer.harmless.append(values)
                elif code in _PERMANENT:
                    answer.refused[values] = reason
                else:
                    failed[values] = f"{list(values)}: {reason}"
            for values in unsent.keys() - failed.keys():
                del unsent[values]
            if failed:
                raise TransientError(f"{what}: {len(failed)} failed, such as {next(iter(failed.values()))}")

        try:
            self.call(what, send_unsent)
        except RequestRefusedError as error:
            # One entry that breaks Glue's rules makes Glue refuse the whole request: halves find it.
            items = list(unsent.items())
            if len(items) == 1:
                answer.refused[items[0][0]] = error.reason
                return answer
            for half in (items[: len(items) // 2], items[len(items) // 2 :]):
                found = self.batch(what, send, dict(half), values_key=values_key, harmless=harmless)
                answer.harmless += found.harmless
                answer.refused |= found.refused
        return answer


def create(call: Callable[..., Any], **arguments: Any) -> bool:
    """Calls a Create… operation. Returns False if the object exists already."""
    try:
        call(**arguments)
    except ClientError as error:
        if error_code(error) != EXISTS:
            raise
        return False
    return True


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
