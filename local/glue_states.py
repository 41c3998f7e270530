"""Tells the embedded AWS what became of a crawl or a job run: the stand-ins' way into moto's Glue.

`local.crawler` and `local.job_runner` call it; `local.moto_glue_sqs` takes it. AWS has no such interface.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from jobs.common.errors import TerminalError


def set_state(glue: Any, what: str, **content: Any) -> None:
    """Sets a state: `what` is `crawl` (crawler, state, error) or `job-run` (job, run, state, error).

    `glue` is the boto3 client, whose endpoint must be the embedded AWS. Raises TerminalError where it is not, or
    knows no such crawl or run.
    """
    endpoint = glue.meta.endpoint_url
    body = json.dumps({"region": glue.meta.region_name, **content}).encode()
    request = urllib.request.Request(f"{endpoint}/_movement/glue/{what}", data=body, method="POST")  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            answer.read()
    except urllib.error.URLError as error:
        raise TerminalError(f"{endpoint} took no report of {content}: {error}; is it the embedded AWS?") from error
