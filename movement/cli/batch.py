"""`movement batch`: the batch path, once, on the embedded AWS, with a line for each step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from movement.cli.console import err, out, resources, write_result
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from jobs.settings.settings import Settings
    from local.batch_path import ResourceNames

ROOT = Path(__file__).parents[2]


def batch(config: Config = None, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """Run the batch path once, on the embedded AWS: delivery, Lambda, crawler, Lambda and Glue job in turn.

    To try the batch path on this machine. Delivers the records that are new on the stream, and ends once every
    delivered file is in processed_batch. On AWS events start the same functions and the same job: docs/batch-path.md.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    started = time.monotonic()

    def show(step: str) -> None:
        err.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {escape(step)}", soft_wrap=True)

    result = run_batch_path(settings, show)
    out.print(
        f"{result['read']:,} records from {result['files']:,} files → {result['processed']:,} rows, "
        f"{result['quarantined']:,} in quarantine, {len(result['partitions'])} partitions, {result['seconds']:.1f} s",
        soft_wrap=True,
    )
    write_result(json_file, result)
    if result["error"]:
        err.print(f"[red]not done:[/] {escape(result['error'])}", soft_wrap=True)
        raise typer.Exit(1)


def run_batch_path(settings: Settings, on_step: Callable[[str], None]) -> dict[str, Any]:
    """Runs the batch path until every delivered file is processed; returns the result that `--json` holds."""
    from jobs.delivery.job import DeliveryResult
    from jobs.delivery.ledger import DeliveryLedger
    from jobs.lake.store import lake_at
    from lambdas import crawler_trigger, gluejob_trigger
    from local.batch_path import BatchPath
    from local.job_runner import spark_submit
    from movement.cli.java import require_java

    require_java()
    command, environment = spark_submit()
    conf = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", **settings.spark.conf}
    options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    ledger = DeliveryLedger(lake_at(settings.lake))
    before = ledger.files_by_run()
    path = BatchPath(
        settings,
        crawler_trigger.handler,
        gluejob_trigger.handler,
        script=str(ROOT / "jobs" / "batch_job.py"),
        submit=[*command, "--master", settings.spark.master, *options],
        job_environment={**environment, "SPARK_LOCAL_IP": "127.0.0.1"},
        job_arguments={"--config": str(_settings_file(settings))},
        names=batch_path_names(settings),
        on_step=lambda step: on_step(_readable(step)),
    )
    path.ensure()
    ran = path.run()
    done = DeliveryResult(seconds=round(ran.seconds, 3))
    for number in sorted(ledger.files_by_run().keys() - before.keys()):
        entry = ledger.run(number)
        if entry is not None:
            done.add(entry)
    return (
        asdict(done)
        | {
            "delivered": {"files": len(ran.delivered), "records": sum(file.records for file in ran.delivered)},
            "crawls": len(ran.crawls),
            "job_runs": [{"run": job.run, "state": job.state, "log": str(job.log)} for job in ran.job_runs],
            "error": ran.error,
        }
        | resources(settings)
    )


def batch_path_names(settings: Settings) -> ResourceNames:
    """Names of the batch path's AWS resources. They contain the database, so that two lakes have two crawlers."""
    from local.batch_path import ResourceNames

    prefix = f"movement-{settings.database[:40]}"
    parts = ("crawler", "batch", "delivery-objects", "crawls", "crawl-succeeded")
    return ResourceNames(*(f"{prefix}-{part}" for part in parts))


def _readable(step: str) -> str:
    """A step in words: of a function's log line (JSON), the decision and the names in it."""
    if not step.startswith("function: {"):
        return step
    line = json.loads(step.removeprefix("function: "))
    names = [f"{key} {line[key]}" for key in ("crawler", "job", "error") if line.get(key)]
    function = "gluejob_trigger" if "job" in line else "crawler_trigger"
    return f"Lambda {function}: {', '.join([line['decision'], *names])}"


def _settings_file(settings: Settings) -> Path:
    """Writes the settings to a file for the job: a Glue job can have `--set` only once."""
    import yaml

    file = Path(settings.local.state_dir).expanduser().absolute() / f"batch-{settings.database}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = settings.model_dump(mode="json")
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return file
