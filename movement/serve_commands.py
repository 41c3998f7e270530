"""`movement serve`: the HTTP API at a terminal or in a container. What it serves is in `producer/api.py`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from movement.console import Config, Overrides, err


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; default: api.host.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; default: api.port.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; default: api.workers.")] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log each request's line (never its body).")] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Serve POST /uber_movement, which answers once Kinesis has accepted.

    Set MOVEMENT_API_KEY to ask for a key (header X-API-Key). SIGTERM and Ctrl-C finish what is in flight.
    """
    import uvicorn

    from jobs.contract.settings import load_settings
    from producer import api
    from producer.put_request import kinesis_client
    from producer.stream import max_record_bytes

    chosen = list(overrides or ())
    given = {"api.host": host, "api.port": port, "api.workers": workers}
    chosen += [f"{key}={value}" for key, value in given.items() if value is not None]
    settings = load_settings(config, chosen)
    # Asked here, so that a stream that is not there is one clear line and not a traceback in a worker.
    max_record_bytes(kinesis_client(settings.producer.request_timeout_seconds), settings.stream.name)
    os.environ[api.SETTINGS_VARIABLE] = settings.model_dump_json()
    err.print(
        f"POST http://{settings.api.host}:{settings.api.port}/uber_movement → stream '{settings.stream.name}' "
        f"(documentation at /docs)",
        soft_wrap=True,
    )
    uvicorn.run(
        "producer.api:create_app_from_environment",
        factory=True,
        host=settings.api.host,
        port=settings.api.port,
        workers=settings.api.workers,
        access_log=access_log,
        log_level="warning",
        # What is in flight ends by itself within this time, accepted or not.
        timeout_graceful_shutdown=int(settings.api.timeout_seconds) + 1,
    )
