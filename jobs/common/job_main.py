"""The command line that the jobs share, for spark-submit, Glue and schedulers: settings, log, result, exit code."""

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
    """A parser with what every job takes. `description`: the module's docstring, of which the first line counts."""
    # No abbreviations: Glue's own --conf would be taken for --config.
    parser = argparse.ArgumentParser(
        description=description.splitlines()[0] if description else None, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="settings as YAML: a name in conf/, a path, or s3://…")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")
    parser.add_argument("--region", metavar="REGION", help="the AWS region, where AWS_REGION is not set")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result there as JSON")
    return parser


def run_job(parser: argparse.ArgumentParser, work: Work, arguments: Sequence[str] | None = None) -> int:
    """Does `work` with settings and options; its result, a dataclass or what JSON takes, is logged and written.

    0 after a clean end, 1 where the job failed or its result says `equal: False`, 2 for a wrong configuration. What
    else Glue passes (`--JOB_NAME`, `--conf`, `--python-virtual-env`, …) is not needed and let through.
    """
    options, others = parser.parse_known_args(arguments)
    log_to_stderr()
    if others:
        log.info("arguments for the platform: %s", others)
    use_region(options.region)
    try:
        settings = load_settings(options.config, options.set)
        log_to_stderr(settings.observe)
        result = work(settings, options)
    except ConfigurationError as error:
        log.error("%s", error)
        return 2
    except MovementError as error:
        log.error("%s", error)
        return 1
    if options.json:
        found = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        options.json.write_text(json.dumps(found, default=str), encoding="utf-8")
    log.info("ended: %s", result)
    return 1 if getattr(result, "equal", True) is False else 0


def stop_on_signals(stop: threading.Event) -> None:
    """Ctrl-C and SIGTERM end the job after the batch in hand; a second one ends it at once."""

    def handle(number: int, _frame: object) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def exit_job(code: int) -> None:
    """Ends the process with `code`; 0 by running out, for Glue takes any SystemExit for a failure."""
    if code:
        sys.exit(code)
