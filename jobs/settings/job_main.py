"""The command line that all jobs share, for spark-submit, Glue and schedulers: settings, log, result, exit code.

A job's `main` builds its parser with `job_parser` and passes it to `run_job` with the function that does the work.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from jobs.common.aws import use_region
from jobs.common.errors import ConfigurationError, MovementError
from jobs.common.logging import log_to_stderr
from jobs.settings.settings import Settings, load_settings

log = logging.getLogger(__name__)

Work = Callable[[Settings, argparse.Namespace], Any]


def job_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every job. `description` is the module's docstring; its first line is shown."""
    # Without abbreviations: Glue passes a --conf of its own, which is not --config.
    parser = argparse.ArgumentParser(
        description=description.splitlines()[0] if description else None, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="settings as YAML: a name in conf/, a path, or s3://…")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")
    parser.add_argument("--region", metavar="REGION", help="the AWS region, if AWS_REGION is not set")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result to this file as JSON")
    return parser


def run_job(parser: argparse.ArgumentParser, work: Work, arguments: Sequence[str] | None = None) -> int:
    """Runs `work` with the settings and options; logs its result and writes it to `--json`.

    The result is a dataclass or anything JSON can hold. Returns the exit code: 0 for success, 1 if the job failed or
    its result has `equal: False`, 2 for a wrong configuration. Unknown arguments are ignored: Glue passes `--JOB_NAME`,
    `--conf`, `--python-virtual-env`, ….
    """
    options, others = parser.parse_known_args(arguments)
    log_to_stderr()
    if others:
        log.info("arguments for the platform: %s", others)
    use_region(options.region)
    try:
        settings = load_settings(options.config, options.set)
        log_to_stderr(settings.observe.log_format)
        result = work(settings, options)
    except ConfigurationError as error:
        log.error("%s", error)
        return 2
    except (MovementError, OSError) as error:
        log.error("%s", error)
        return 1
    if options.json:
        content = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        options.json.write_text(json.dumps(content, default=str), encoding="utf-8")
    log.info("ended: %s", result)
    return 1 if getattr(result, "equal", True) is False else 0


def stop_on_signals(stop: threading.Event) -> None:
    """Ctrl-C and SIGTERM set `stop`, which ends the job after the current batch; a second signal ends it at once.

    Call it before Spark is started: a stop during the start is held, and the job ends without starting a query.
    """

    def handle(number: int, _frame: object) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def exit_job(code: int) -> None:
    """Ends the process with `code`. 0 just returns, because Glue treats any SystemExit as a failure."""
    if code:
        sys.exit(code)
