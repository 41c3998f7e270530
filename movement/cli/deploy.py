"""`movement deploy`: a release onto EMR Serverless, EMR or Glue; the CloudFormation stack, and its settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from movement.cli.console import command_name, err, out, resources, spinner, write_result, write_whole
from movement.cli.doctor import print_findings
from movement.cli.options import JsonFile, Overrides

if TYPE_CHECKING:
    from movement.deploy.job import Job
    from movement.deploy.rollout import Outcome, Platform

app = typer.Typer(
    no_args_is_help=True,
    help="Deploy a release of `movement package`: upload it to S3, start the job on AWS, wait until it runs.",
)

StackName = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the stack.")]


@app.command()
def stack(
    artifacts: Annotated[
        str,
        typer.Option(
            "--artifacts", metavar="S3", help="Where releases are, s3://bucket/prefix; the templates go there too."
        ),
    ],
    release: Annotated[
        str,
        typer.Option(
            "--release",
            metavar="DIR|RELEASE",
            help="The folder that `movement package` built, which is uploaded; or the name of an uploaded "
            "release, such as 0.1.0-5f0c2a91.",
        ),
    ] = "dist/release",
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            metavar="NAME=VALUE",
            help="A parameter of root.yaml, such as BucketName=my-lake; may be repeated. Other parameters keep their "
            "value, or have their default. ManifestSha256=release is the hash of the folder's manifest.",
        ),
    ] = None,
    name: StackName = "movement-lake",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the AWS requests as JSON, and send none of them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Make the changes without asking.")] = False,
    replace_cluster: Annotated[
        bool,
        typer.Option("--replace-cluster", help="Also make changes that end the EMR cluster, and with it the job."),
    ] = False,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked",
            help="With --replace-cluster: do not check that the nodes' role may read the release. Needed if AWS does "
            "not allow you iam:SimulatePrincipalPolicy.",
        ),
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Create or update the CloudFormation stack of all templates: show the changes, ask, make them.

    Run it before the first deployment of a job, and after a change of templates or parameters. The first time needs
    --parameter BucketName=my-lake; docs/cloudformation.md lists the others. Resources that hold data are kept when
    their stack is deleted. Next: movement deploy conf.
    """
    from jobs.common.errors import MovementError, TerminalError
    from movement.deploy.stack import Deployment

    deployment = Deployment(name, artifacts, release, parameters or [])
    if dry_run:
        requests = deployment.requests()
        typer.echo(json.dumps({"stack": name, "requests": requests}, indent=2, ensure_ascii=False))
        write_result(json_file, {"requests": requests})
        return
    with spinner("uploading") as line:
        deployment.upload(line.log)
        line.update("making the change set")
        changes = deployment.plan()
    for change in changes:
        out.print(f"  {escape(change)}", soft_wrap=True)
    if deployment.ends_cluster and not replace_cluster:
        deployment.discard()
        raise TerminalError(
            f"stack {name}: the changes end the EMR cluster, and with it the job that runs on it. Nothing was changed. "
            "Run the command again with --replace-cluster, then `movement deploy conf` and `movement deploy emr`: the "
            "job goes on where it ended"
        )
    if deployment.replaces_cluster and not unchecked:
        with spinner("asking IAM whether the nodes' role may read the release"):
            try:
                deployment.check_role()
            except MovementError:
                deployment.discard()
                raise
    if not changes:
        out.print(f"The stack {name} is up to date.")
    elif not yes and not typer.confirm("Make these changes?", err=True):
        deployment.discard()
        err.print("Nothing was changed.")
        raise typer.Exit(1)
    else:
        with spinner("changing the stack") as line:
            deployment.execute(line.update)
    outputs = deployment.outputs()
    for key, value in outputs.items():
        out.print(f"  {key:<30}{escape(value)}", soft_wrap=True)
    out.print(f"\nNext: {command_name()} deploy conf --name {name} --out movement.yaml", soft_wrap=True)
    if deployment.ends_cluster:
        out.print(
            f"Then: {command_name()} deploy emr --config movement.yaml, which starts the job again", soft_wrap=True
        )
    write_result(json_file, {"stack": name, "changes": changes, "outputs": outputs})


@app.command()
def conf(
    target: Annotated[Path, typer.Option("--out", metavar="FILE", help="The settings file to write.")],
    name: StackName = "movement-lake",
    json_file: JsonFile = None,
) -> None:
    """Write a settings file from the stack's outputs: lake, database, stream, and where the job runs.

    For --config of every other command. An existing file is replaced.
    """
    import yaml

    from movement.deploy.stack import settings_of, stack_outputs

    content = settings_of(stack_outputs(name))
    text = f"# From the stack {name}, by `movement deploy conf`.\n{yaml.safe_dump(content, sort_keys=False)}"
    write_whole(target, text.encode("utf-8"))
    out.print(f"{escape(str(target))} is written; try: {command_name()} produce PATH --config {target}", soft_wrap=True)
    write_result(json_file, {"stack": name, "file": target, "settings": content})


def _register(name: str, default_config: str, platform: Callable[[], Platform], help_text: str) -> None:
    """Adds the command of one platform. All platforms have the same options."""

    @app.command(name, help=help_text)
    def deploy(
        release: Annotated[
            Path, typer.Option("--release", metavar="DIR", help="The folder that `movement package` built.")
        ] = Path("dist/release"),
        config: Annotated[
            str | None,
            typer.Option("--config", metavar="FILE", help="The job's settings. Default: the platform's file in conf/."),
        ] = None,
        overrides: Overrides = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Check the AWS requests and print them as JSON; send none of them.")
        ] = False,
        replace: Annotated[
            bool, typer.Option("--replace", help="If the job runs, stop it and start it again. Default: leave it.")
        ] = False,
        start_from: Annotated[
            Literal["ledger", "checkpoint", "stream"] | None,
            typer.Option(
                "--start-from",
                help="Only if the job asks for it, for the run that this command starts: what to trust if checkpoint "
                "and lake disagree (movement stream --help).",
            ),
        ] = None,
        unchecked: Annotated[
            bool,
            typer.Option(
                "--unchecked",
                help="Do not check that the job's role may read the release. Needed if AWS does not allow you "
                "iam:SimulatePrincipalPolicy and a running job is to be replaced.",
            ),
        ] = False,
        stop: Annotated[
            bool, typer.Option("--stop", help="Stop the job, wait until it has ended, and start nothing.")
        ] = False,
        no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the job runs.")] = False,
        json_file: JsonFile = None,
    ) -> None:
        from movement.deploy.job import plan, running_job

        if stop:
            if replace or dry_run:
                raise typer.BadParameter("not together with --replace or --dry-run", param_hint="--stop")
            _stop(platform(), running_job(config or default_config, overrides or []), json_file)
            return
        job = plan(release, config or default_config, overrides or [], start_from)
        if dry_run:
            _dry_run(platform(), job, replace, json_file)
        else:
            _roll_out(platform(), job, replace, not no_wait, unchecked, json_file)


def _emr_serverless() -> Platform:
    from movement.deploy.emr_serverless import EmrServerless

    return EmrServerless()


def _emr() -> Platform:
    from movement.deploy.emr import Emr

    return Emr()


def _glue() -> Platform:
    from movement.deploy.glue import Glue

    return Glue()


_register(
    "emr-serverless",
    "emr.yaml",
    _emr_serverless,
    """Run the streaming job on EMR Serverless, which restarts it when it fails.

    Choose it if you have no cluster to look after. Needs lake, deploy.artifacts, deploy.role_arn and
    deploy.emr_serverless.application_id, by --config or --set.
    """,
)
_register(
    "emr",
    "emr.yaml",
    _emr,
    """Run the streaming job as a step of an EMR cluster on EC2, with the driver on YARN.

    Choose it if you have a cluster. Needs lake, deploy.artifacts and deploy.emr.cluster_id, by --config or --set.
    """,
)
_register(
    "glue",
    "glue.yaml",
    _glue,
    """Create or update the streaming job on AWS Glue 6.0, and run it.

    Choose it if your other jobs run on Glue. Needs lake, deploy.artifacts and deploy.role_arn, by --config or --set.
    """,
)


@app.command()
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
            "checks": [asdict(each) for each in proofs],
        }
        | resources(settings),
    )
    if failed:
        out.print(f"log: {running.where()}", soft_wrap=True)
        raise typer.Exit(1)


def _result(platform: Platform, job: Job) -> dict[str, object]:
    names = {"platform": platform.title, "release": job.manifest.release, "uri": job.uri}
    return names | resources(job.settings)


def _dry_run(platform: Platform, job: Job, replace: bool, json_file: Path | None) -> None:
    result = _result(platform, job)
    result["requests"] = [call.describe() for call in (*job.uploads, *platform.requests(job, replace))]
    typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    write_result(json_file, result)


def _roll_out(platform: Platform, job: Job, replace: bool, wait: bool, unchecked: bool, json_file: Path | None) -> None:
    from movement.deploy.rollout import roll_out

    for call in platform.requests(job, replace):
        call.check()
    with spinner("") as line:
        outcome = roll_out(platform, job, replace=replace, wait=wait, unchecked=unchecked, step=line.log)
    links = platform.links(job, outcome.run)
    _print_outcome(platform, job, outcome)
    for what, address in links:
        out.print(f"  {what:<9}{escape(address)}", soft_wrap=True)
    details = {
        "run": asdict(outcome.run),
        "left": outcome.left,
        "replaced": outcome.replaced,
        "uploaded": outcome.uploaded,
        "where": dict(links),
    }
    write_result(json_file, _result(platform, job) | details)


def _stop(platform: Platform, job: Job, json_file: Path | None) -> None:
    from movement.deploy.rollout import halt

    with spinner("") as line:
        run = halt(platform, job, step=line.log)
    out.print(f"{run.id} is {run.state}" if run else f"{platform.title}: no run of the job is going", soft_wrap=True)
    stopped = asdict(run) if run else None
    write_result(json_file, {"platform": platform.title, "stopped": stopped} | resources(job.settings))


def _print_outcome(platform: Platform, job: Job, outcome: Outcome) -> None:
    run = outcome.run
    if outcome.left:
        out.print(f"{run.id} is running already ({run.state}) and was not changed; --replace starts it again")
    else:
        out.print(f"{platform.title}: {run.id} is {run.state}, release {job.manifest.release}", soft_wrap=True)
