"""`movement deploy stack`: the CloudFormation templates, brought out. `movement deploy conf`: the stack's settings.

Both are registered with `movement deploy` by one line each. A change is always a change set that is shown first.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets.html
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from movement.cli.console import JsonFile, command, err, out, write_result

if TYPE_CHECKING:
    from movement.deploy.stack import Deployment

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the stack.")]


def stack(
    artifacts: Annotated[
        str,
        typer.Option(
            "--artifacts", metavar="S3", help="Where releases lie, s3://bucket/prefix; the templates go there too."
        ),
    ],
    release: Annotated[
        str, typer.Option("--release", metavar="RELEASE", help="The release, such as 0.1.0-5f0c2a91; uploaded before.")
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            metavar="NAME=VALUE",
            help="A parameter of root.yaml, such as BucketName=my-lake; may be repeated. One that is not given keeps "
            "its value, or has its default.",
        ),
    ] = None,
    name: Name = "movement-lake",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the AWS requests as JSON, and send none of them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the changes are made.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Create or update the stack of all templates: upload, change set, ask, execute, wait, show the outputs.

    BucketName has to be given the first time: --parameter BucketName=my-lake. docs/cloudformation.md lists the others.
    Nothing is deleted: what holds data outlives its stack.
    """
    from movement.deploy.stack import Deployment

    deployment = Deployment(name, artifacts, release, parameters or [])
    if dry_run:
        requests = deployment.requests()
        typer.echo(json.dumps({"stack": name, "requests": requests}, indent=2, ensure_ascii=False))
        write_result(json_file, {"requests": requests})
        return
    with _progress() as progress:
        line = progress.add_task("uploading the templates")
        deployment.upload()
        progress.update(line, description="making the change set")
        changes = deployment.plan()
    for change in changes:
        out.print(f"  {escape(change)}", soft_wrap=True)
    if not changes:
        out.print(f"The stack {name} is as the templates say.")
    elif not yes and not typer.confirm("Make these changes?", err=True):
        deployment.discard()
        err.print("Nothing was changed.")
        raise typer.Exit(1)
    else:
        _execute(deployment)
    outputs = deployment.outputs()
    for key, value in outputs.items():
        out.print(f"  {key:<30}{escape(value)}", soft_wrap=True)
    out.print(f"\nNext: {command()} deploy conf --name {name} --out movement.yaml", soft_wrap=True)
    write_result(json_file, {"stack": name, "changes": changes, "outputs": outputs})


def conf(
    target: Annotated[Path, typer.Option("--out", metavar="FILE", help="The settings' file to write.")],
    name: Name = "movement-lake",
    json_file: JsonFile = None,
) -> None:
    """Write the settings that the stack's outputs say: lake, database, stream, and where the job runs.

    The file is for `--config` of every command. One that is there is replaced.
    """
    from movement.deploy.stack import settings_of, stack_outputs

    content = settings_of(stack_outputs(name))
    text = f"# From the stack {name}, by `movement deploy conf`.\n{yaml.safe_dump(content, sort_keys=False)}"
    draft = target.with_name(target.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(target)
    out.print(f"{escape(str(target))} is written; try: {command()} produce PATH --config {target}", soft_wrap=True)
    write_result(json_file, {"stack": name, "file": target, "settings": content})


def _progress() -> Progress:
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True)


def _execute(deployment: Deployment) -> None:
    with _progress() as progress:
        line = progress.add_task("changing the stack")
        deployment.execute(lambda text: progress.update(line, description=escape(text)))
