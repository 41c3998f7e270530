"""`movement deploy smoke`: a minute on the real platform, as the real role, and what it proved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from movement.cli.console import out, resources, spinner, write_result
from movement.cli.doctor import print_findings
from movement.cli.options import JsonFile, Overrides


def smoke(
    release: Annotated[
        Path, typer.Option("--release", metavar="DIR", help="The folder that `movement package` built.")
    ] = Path("dist/release"),
    master: Annotated[
        str | None,
        typer.Option(
            "--master",
            metavar="URL",
            help="Run by spark-submit from this machine against this Spark master, such as spark://host:7077, not "
            "on AWS. Driver and executors use the release's Python.",
        ),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Send one record to the stream first, if it is empty. It cannot be taken off the stream again: the "
            "streaming job will put it into quarantine.",
        ),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="The job's settings. Default: the platform's file in conf/."),
    ] = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the AWS requests and print them as JSON; send none of them.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Run a minute of the job on the real platform, as the real role, and say what it proved.

    After `movement doctor`, and before the first deployment or an upgrade. It proves what reading cannot: Python and
    glibc of driver and executors, Spark and its classes, conditional writes, a checkpoint, a record that becomes a row,
    a metric. It runs on the application, the cluster or Glue, whichever the settings name, beside a running job. It
    works in a folder of its own, registers nothing in the catalog, and deletes what it wrote. Exit code 1 if a proof
    fails.
    """
    from jobs.settings.settings import load_settings
    from movement.deploy import smoke as smoke_run
    from movement.deploy.job import plan
    from movement.deploy.local_submit import LocalSubmit, submit_arguments

    settings = load_settings(config, overrides or ())
    run = smoke_run.new_run()
    running: smoke_run.SmokeJob
    if master is not None:
        if dry_run:
            raise typer.BadParameter("sends nothing to AWS: --dry-run shows nothing", param_hint="--master")
        arguments = submit_arguments(config, overrides or [], run)
        running = LocalSubmit(master, release, smoke_run.SCRIPT, arguments, settings)
    else:
        platform = smoke_run.platform_of(settings)
        default = "glue.yaml" if platform.title == "AWS Glue" else "emr.yaml"
        job = smoke_run.smoke_job(plan(release, config or default, overrides or []), run)
        settings, running = job.settings, smoke_run.RemoteRun(platform, job)
        if dry_run:
            calls = [call.describe() for call in (*job.uploads, *smoke_run.requests(platform, job))]
            typer.echo(json.dumps({"platform": platform.title, "requests": calls}, indent=2, ensure_ascii=False))
            return
    with spinner("starting") as line:
        if record:
            smoke_run.put_record(settings, run)
        proofs = smoke_run.run_smoke(running, settings, run, step=line.update)
    print_findings(proofs)
    failed = any(each.status == "fail" for each in proofs)
    write_result(
        json_file,
        {
            "ok": not failed,
            "platform": running.title,
            "run": run,
            "checks": [
                {"name": each.name, "status": each.status, "found": each.found, "remedy": each.remedy}
                for each in proofs
            ],
        }
        | resources(settings),
    )
    if failed:
        out.print(f"log: {running.where()}", soft_wrap=True)
        raise typer.Exit(1)
