"""The whole of an S3 object, although connections break while its bytes are on their way.

botocore retries a request only until its answer begins: what breaks within the body reaches the caller.
"""

from __future__ import annotations

from typing import Any

from jobs.contract.errors import TransientError

ATTEMPTS = 6
_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 5.0


def read_object(s3: Any, *, most: int | None = None, **place: str) -> tuple[bytes, str]:
    """The bytes of the object at `Bucket` and `Key`, or the first `most` of them, and its ETag, from one answer.

    A get that breaks within the body is begun anew, a few times. Raises TransientError after that; what botocore
    raises of the request itself goes through, for `explained`.
    """
    # Here, for Spark's tasks write alone and start sooner without.
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    def attempt() -> tuple[bytes, str]:
        answer = s3.get_object(**place)
        try:
            content = answer["Body"].read(most)
            if most is not None and len(content) < most:
                answer["Body"].read()  # only a read to the end counts whether the body was whole
            return content, answer["ETag"]
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError) as error:
            raise TransientError(
                f"read s3://{place['Bucket']}/{place['Key']}: the answer broke off {ATTEMPTS} times: {error}"
            ) from error

    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=_FIRST_SECONDS, max=_LONGEST_SECONDS),
        reraise=True,
    )
    return retrying(attempt)
