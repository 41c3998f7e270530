"""`movement local up`, `local down` and `local env`: the embedded AWS."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from movement.cli.console import command_name, note, out, write_result
from movement.cli.options import Config, JsonFile, Overrides, Port

if TYPE_CHECKING:
    from jobs.settings.settings import Settings

app = typer.Typer(
    no_args_is_help=True, help="An AWS on this machine: Kinesis, S3, Glue and more on 127.0.0.1, in memory."
)


@app.command()
def up(port: Port = None, config: Config = None, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """Start the embedded AWS in the background, with the stream, bucket, database and tables of the settings.

    To try the pipeline without an AWS account. Then: eval "$(movement local env)".
    """
    from jobs.catalog.glue import GlueCatalog
    from jobs.catalog.tables import stream_tables
    from jobs.common.aws import client
    from jobs.schema.table import load_contract
    from local import resources, server

    settings = _settings(config, overrides, port)
    tables = stream_tables(load_contract(settings.contract), settings.sink.format)
    running = server.up(settings, notice=note)
    if port not in (None, running.port):
        raise server.EmbeddedAwsError(
            f"the embedded AWS of {settings.local.state_dir} already runs, on port {running.port}; "
            "`movement local down` stops it"
        )
    with server.aimed_at(running):
        found = resources.ensure(settings)
        GlueCatalog(client("glue"), settings.database, settings.lake).ensure_tables(tables)
    out.print(
        f"The embedded AWS {'runs' if running.started else 'was running already'}: {running.endpoint}", soft_wrap=True
    )
    for what, name in (
        ("stream", f"{found.stream} ({found.shards} shards)"),
        ("bucket", found.bucket or f"none: the lake is the folder {settings.lake}"),
        ("database", found.database),
        ("tables", ", ".join(table.name for table in tables)),
        ("log", str(running.log)),
    ):
        new = " [dim](new)[/]" if what in found.created else ""
        out.print(f"  {what:<9}{escape(name)}{new}", soft_wrap=True)
    out.print(f'\nNext:\n  eval "$({command_name()} local env)"\n  {command_name()} produce PATH', soft_wrap=True)
    write_result(
        json_file,
        {
            "endpoint": running.endpoint,
            "pid": running.pid,
            "log": running.log,
            "started": running.started,
            "created": found.created,
            "stream": found.stream,
            "shards": found.shards,
            "bucket": found.bucket,
            "lake": settings.lake,
            "database": found.database,
            "tables": [table.name for table in tables],
        },
    )


@app.command()
def down(config: Config = None, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """Stop the embedded AWS. Its state is in memory, so all streams and buckets are lost."""
    from local import server

    stopped = server.down(_settings(config, overrides))
    if stopped is None:
        out.print("The embedded AWS was not running.")
    else:
        out.print(f"The embedded AWS on port {stopped.port} has stopped; its log is removed.")
    write_result(json_file, {"stopped": stopped is not None, "endpoint": stopped.endpoint if stopped else None})


@app.command()
def env(config: Config = None, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """Print the environment variables that point AWS clients to the embedded AWS.

    In a shell: eval "$(movement local env)".
    """
    from local import server

    running = server.find(_settings(config, overrides))
    if running is None:
        raise server.EmbeddedAwsError("the embedded AWS is not running: `movement local up` starts it")
    variables = server.environment(running)
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    elsewhere = sorted(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL_"))
    if elsewhere:
        note(f"{', '.join(elsewhere)} stays set, and overrides AWS_ENDPOINT_URL for its service")
    if os.environ.get("AWS_PROFILE"):
        note("AWS_PROFILE stays set; unset it if the profile does not exist or assumes another role")
    write_result(json_file, variables)


def _settings(config: str | None, overrides: list[str] | None, port: int | None = None) -> Settings:
    from jobs.settings.settings import load_settings

    return load_settings(config, [*(overrides or ()), *([f"local.port={port}"] if port is not None else ())])
