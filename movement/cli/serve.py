"""`movement serve`: the HTTP API (`producer.api`) and the live page (`movement.report.live`) on one port."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from movement.cli.console import err
from movement.cli.options import Config, Overrides

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on. Default: api.host.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on. Default: api.port.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Number of processes. Default: api.workers.")] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log a line for each request (never its body).")
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Serve the HTTP API, POST /<name of the contract> or /records, and the live page of `movement report`, at /.

    For programs that send records one by one: the answer comes once Kinesis has accepted them. Set MOVEMENT_API_KEY
    to require a key (header X-API-Key; in a browser, the password). SIGTERM and Ctrl-C finish what is in flight.
    """
    import uvicorn

    from jobs.schema.table import load_contract
    from jobs.settings.settings import load_settings
    from producer import api, api_access
    from producer.put_records import kinesis_client
    from producer.stream_info import max_record_bytes

    chosen = list(overrides or ())
    given = {"api.host": host, "api.port": port, "api.workers": workers}
    chosen += [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    settings = load_settings(config, chosen)
    api_access.require_key_on_network(settings.api, api_access.api_keys())
    check_port(settings.api.host, settings.api.port)
    # Asked here, so that a missing stream is one clear line and not a traceback in a worker.
    max_record_bytes(kinesis_client(settings.producer.request_timeout_seconds), settings.stream.name)
    path = api.record_paths(load_contract(settings.contract))[0]
    os.environ[api.SETTINGS_VARIABLE] = settings.model_dump_json()
    err.print(
        f"POST http://{settings.api.host}:{settings.api.port}{path} → stream '{settings.stream.name}' "
        f"(documentation at /docs)\n"
        f"page http://{settings.api.host}:{settings.api.port}/ ← {settings.lake}",
        soft_wrap=True,
    )
    uvicorn.run(
        "movement.cli.serve:create_app",
        factory=True,
        http="producer.api_protocol:protocol",
        ws="none",
        limit_concurrency=settings.api.max_connections,
        host=settings.api.host,
        port=settings.api.port,
        workers=settings.api.workers,
        access_log=access_log,
        log_level="warning",
        # Requests in flight end by themselves within this time, accepted or not.
        timeout_graceful_shutdown=int(settings.api.timeout_seconds) + 1,
    )


def check_port(host: str, port: int) -> None:
    """Raises ConfigurationError if the server cannot listen there. uvicorn only logs that, in several lines."""
    import errno
    import socket

    from jobs.common.errors import ConfigurationError

    remedy = "choose another with --port (or api.port)"
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except PermissionError as error:
        raise ConfigurationError(f"port {port} needs root; choose one above 1023 with --port (or api.port)") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"port {port} of {host} is taken by another program; {remedy}") from error
        raise ConfigurationError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose --host (or api.host) and --port"
        ) from error


def create_app() -> FastAPI:
    """The application of one worker process: the API and the page."""
    from movement.report.live import router
    from producer import api, api_access

    settings = api.settings_from_environment()
    keys = api_access.api_keys()
    app = api.create_app(settings)
    app.include_router(router(settings, lambda request: api_access.may_read(request, keys)))
    return app
