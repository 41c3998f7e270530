"""Sets the state of a crawl or a job run in the embedded AWS; AWS has no such call.

`local.crawler` and `local.job_runner` call it, and `local.moto_glue_sqs` handles the request.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from jobs.common.errors import TerminalError


def set_state(glue: Any, what: str, **content: Any) -> None:
    """Sets a state. `what` is `crawl` (keywords: crawler, state, error) or `job-run` (job, run, state, error).

    `glue` is the boto3 client. Raises TerminalError if its endpoint is not the embedded AWS, or if the crawl or run
    does not exist.
    """
    endpoint = glue.meta.endpoint_url
    body = json.dumps({"region": glue.meta.region_name, **content}).encode()
    request = urllib.request.Request(f"{endpoint}/_movement/glue/{what}", data=body, method="POST")  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            answer.read()
    except urllib.error.URLError as error:
        raise TerminalError(f"set the state {content} at {endpoint}: {error}; is that the embedded AWS?") from error
