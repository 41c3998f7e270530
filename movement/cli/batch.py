"""`movement batch`: the batch path, once, each step as it happens. `movement parity`: both paths compared."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from movement.cli.console import Config, JsonFile, Overrides, err, out, write_result
from movement.cli.stream import log_path, log_to_file

if TYPE_CHECKING:
    from jobs.parity.job import ParityResult
    from jobs.settings.settings import Settings
    from local.batch_path import Names

ROOT = Path(__file__).parents[2]
# What is shown of a comparison: partitions, and of a row's text values the first characters.
SHOWN_PARTITIONS = 20
SHOWN_CHARACTERS = 60


def batch(config: Config = None, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """Run the batch path once, on the embedded AWS: stream → delivery → Lambda → crawler → Lambda → Glue job.

    Delivers what is new on the stream, and shows each step until every delivered file is in processed_batch.
    On AWS the same functions and the same job run by themselves: see docs/batch-path.md.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    begun = time.monotonic()

    def show(step: str) -> None:
        err.print(f"[dim]{time.monotonic() - begun:6.1f} s[/]  {escape(step)}", soft_wrap=True)

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
    """Drives the batch path until nothing is left to do; what it did, as `--json` holds it."""
    from jobs.delivery.job import BatchResult
    from jobs.delivery.ledger import BatchLedger
    from jobs.lake.store import lake_at
    from lambdas import crawler_trigger, gluejob_trigger
    from local.batch_path import BatchPath
    from local.job_runner import spark_submit
    from movement.cli.java import require_java

    require_java()
    command, environment = spark_submit()
    conf = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", **settings.spark.conf}
    options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    ledger = BatchLedger(lake_at(settings.lake))
    before = ledger.final_runs()
    path = BatchPath(
        settings,
        crawler_trigger.handler,
        gluejob_trigger.handler,
        script=str(ROOT / "jobs" / "batch_job.py"),
        submit=[*command, "--master", settings.spark.master, *options],
        job_environment={**environment, "SPARK_LOCAL_IP": "127.0.0.1"},
        job_arguments={"--config": str(_settings_file(settings))},
        names=batch_names(settings),
        on_step=lambda step: on_step(readable(step)),
    )
    path.ensure()
    ran = path.run()
    done = BatchResult(seconds=round(ran.seconds, 3))
    for number in sorted(ledger.final_runs().keys() - before.keys()):
        entry = ledger.entry(number)
        if entry is not None:
            done.add(entry)
    return asdict(done) | {
        "delivered": {"files": len(ran.delivered), "records": sum(file.records for file in ran.delivered)},
        "crawls": len(ran.crawls),
        "job_runs": [{"run": job.run, "state": job.state, "log": str(job.log)} for job in ran.job_runs],
        "error": ran.error,
        "stream": settings.stream.name,
        "lake": settings.lake,
        "database": settings.database,
    }


def readable(step: str) -> str:
    """A step as a person reads it: of a function's log line (JSON), the decision and what it is about."""
    if not step.startswith("function: {"):
        return step
    line = json.loads(step.removeprefix("function: "))
    about = [f"{key} {line[key]}" for key in ("crawler", "job", "error") if line.get(key)]
    return (
        f"Lambda {'gluejob_trigger' if 'job' in line else 'crawler_trigger'}: {', '.join([line['decision'], *about])}"
    )


def batch_names(settings: Settings) -> Names:
    """Names of the batch path's resources: of this database alone, so that two lakes do not share a crawler."""
    from local.batch_path import Names

    prefix = f"movement-{settings.database[:40]}"
    parts = ("crawler", "batch", "delivery-objects", "crawls", "crawl-succeeded")
    return Names(*(f"{prefix}-{part}" for part in parts))


def _settings_file(settings: Settings) -> Path:
    """The settings as the job reads them: a Glue job's arguments have each name once, so `--set` is no way."""
    import yaml

    file = Path(settings.local.state_dir).expanduser().absolute() / f"batch-{settings.database}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = settings.model_dump(mode="json")
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return file


def parity(
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only what arrived then or later (ISO 8601).")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only what arrived before.")] = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Compare what the stream wrote with what the batch path wrote, row for row. Exit code 1 where they differ.

    With --since and --until: what arrived in between, for a check every hour; both must have got past --until.
    """
    from jobs.settings.settings import load_settings

    settings = load_settings(config, overrides or ())
    log = log_path(settings, "parity")
    err.print(
        f"processed = processed_batch in {settings.lake}? [dim](log: {escape(str(log))})[/]",
        soft_wrap=True,
    )
    result = run_parity(settings, log, since, until)
    show_parity(result)
    write_result(
        json_file,
        asdict(result) | {"stream_name": settings.stream.name, "lake": settings.lake, "database": settings.database},
    )
    if not result.equal:
        raise typer.Exit(1)


def run_parity(settings: Settings, log: Path, since: str | None = None, until: str | None = None) -> ParityResult:
    """Runs the check with a progress line, and keeps its result in the lake."""
    from movement.cli.java import require_java

    require_java()
    with (
        log_to_file(log),
        Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
        ) as progress,
    ):
        line = progress.add_task("starting Spark")
        from jobs.common.spark_session import spark_session
        from jobs.common.times import time_option
        from jobs.parity.job import keep, run

        bounds = [
            time_option(text, option) if text else None for option, text in (("--since", since), ("--until", until))
        ]
        spark = spark_session(settings, "movement-parity", str(log))
        progress.update(line, description="comparing")
        result = run(spark, settings, *bounds)
        keep(settings, result)
        return result


def show_parity(result: ParityResult) -> None:
    """The result as a table, the partitions that differ first, and rows that one side lacks."""
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("partition")
    for name in ("stream", "batch", "only stream", "only batch"):
        table.add_column(name, justify="right")
    worst_first = sorted(
        result.partitions, key=lambda part: (-part["only_stream"] - part["only_batch"], part["partition"])
    )
    for part in worst_first[:SHOWN_PARTITIONS]:
        colour = "red" if part["only_stream"] or part["only_batch"] else "default"
        figures = [f"{part[key]:,}" for key in ("stream", "batch", "only_stream", "only_batch")]
        table.add_row(escape(part["partition"]), *figures, style=colour)
    out.print(table)
    if len(worst_first) > SHOWN_PARTITIONS:
        out.print(f"… and {len(worst_first) - SHOWN_PARTITIONS:,} more partitions")
    for sample in result.samples:
        values = {name: _short(value) for name, value in sample["row"].items() if value is not None}
        fields = ", ".join(f"{name}={value}" for name, value in values.items())
        out.print(f"\n[red]only {sample['side']}[/], {sample['count']}×: {escape(fields)}", soft_wrap=True)
    verdict = (
        f"[green]Equal:[/] {result.stream:,} rows, in {len(result.partitions)} partitions"
        if result.equal
        else f"[red]Not equal:[/] {result.only_stream:,} rows on the stream's side alone, "
        f"{result.only_batch:,} on the batch side alone"
    )
    out.print(f"\n{verdict} ({result.seconds:.1f} s)", soft_wrap=True)


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
