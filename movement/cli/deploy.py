"""`movement deploy emr-serverless | emr | glue`: a packaged release, up and running on AWS."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from movement.cli import deploy_stack as stack_commands
from movement.cli.console import JsonFile, Overrides, err, out, write_result

if TYPE_CHECKING:
    from movement.deploy.rollout import Platform

app = typer.Typer(
    no_args_is_help=True,
    help="Bring a release that `movement package` built out on AWS: upload, start, wait, say where to look.",
)

app.command()(stack_commands.stack)
app.command()(stack_commands.conf)

Release = Annotated[
    Path, typer.Option("--release", metavar="DIR", help="The folder that `movement package` built the release in.")
]
OwnConfig = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="The job's settings. Default: the platform's file of conf/."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the exact AWS requests as JSON, checked, and send none of them.")
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Stop a run of the job that is going, and start anew. Default: leave it.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until the job runs.")]


@app.command("emr-serverless")
def emr_serverless(
    release: Release = Path("dist/release"),
    config: OwnConfig = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    replace: Replace = False,
    no_wait: NoWait = False,
    json_file: JsonFile = None,
) -> None:
    """Run the streaming job on EMR Serverless, started again by the service when it fails.

    Needs lake, deploy.artifacts, deploy.role_arn and deploy.emr_serverless.application_id, by --config or --set.
    """
    from movement.deploy.emr_serverless import EmrServerless

    _deploy(EmrServerless(), "emr.yaml", release, config, overrides, dry_run, replace, no_wait, json_file)


@app.command()
def emr(
    release: Release = Path("dist/release"),
    config: OwnConfig = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    replace: Replace = False,
    no_wait: NoWait = False,
    json_file: JsonFile = None,
) -> None:
    """Run the streaming job as a step of an EMR cluster on EC2, the driver on YARN.

    Needs lake, deploy.artifacts and deploy.emr.cluster_id, by --config or --set.
    """
    from movement.deploy.emr import Emr

    _deploy(Emr(), "emr.yaml", release, config, overrides, dry_run, replace, no_wait, json_file)


@app.command()
def glue(
    release: Release = Path("dist/release"),
    config: OwnConfig = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    replace: Replace = False,
    no_wait: NoWait = False,
    json_file: JsonFile = None,
) -> None:
    """Create or update the streaming job on AWS Glue 6.0, and run it.

    Needs lake, deploy.artifacts and deploy.role_arn, by --config or --set.
    """
    from movement.deploy.glue import Glue

    _deploy(Glue(), "glue.yaml", release, config, overrides, dry_run, replace, no_wait, json_file)


def _deploy(
    platform: Platform,
    default: str,
    release: Path,
    config: str | None,
    overrides: list[str] | None,
    dry_run: bool,
    replace: bool,
    no_wait: bool,
    json_file: Path | None,
) -> None:
    from movement.deploy.job import plan
    from movement.deploy.rollout import roll_out

    job = plan(release, config or default, overrides or [])
    result: dict[str, object] = {
        "platform": platform.title,
        "release": job.manifest.release,
        "uri": job.uri,
        "stream": job.settings.stream.name,
        "lake": job.settings.lake,
        "database": job.settings.database,
    }
    if dry_run:
        requests = [call.described() for call in (*job.uploads, *platform.requests(job, replace))]
        result["requests"] = requests
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        write_result(json_file, result)
        return
    for call in platform.requests(job, replace):
        call.check()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as progress:
        line = progress.add_task("")

        def step(text: str) -> None:
            progress.update(line, description=escape(text))
            if not err.is_terminal:
                err.print(escape(text), soft_wrap=True)

        outcome = roll_out(platform, job, replace=replace, wait=not no_wait, step=step)
    run = outcome.run
    if outcome.left:
        out.print(f"{run.id} is going already ({run.state}) and was left as it is; --replace starts anew")
    else:
        out.print(f"{platform.title}: {run.id} is {run.state}, release {job.manifest.release}", soft_wrap=True)
    for what, address in platform.where(job, run):
        out.print(f"  {what:<9}{escape(address)}", soft_wrap=True)
    write_result(
        json_file,
        result
        | {
            "run": asdict(run),
            "left": outcome.left,
            "replaced": outcome.replaced,
            "uploaded": outcome.uploaded,
            "where": dict(platform.where(job, run)),
        },
    )
