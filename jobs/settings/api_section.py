"""The settings of `movement serve`: the HTTP API and its limits."""

from __future__ import annotations

from pydantic import Field

from jobs.settings.validation import StrictModel


class ApiSettings(StrictModel):
    host: str = Field(default="127.0.0.1", description="Address that `movement serve` listens on. 0.0.0.0: all")
    port: int = Field(default=8000, ge=1, le=65535, description="Port that `movement serve` listens on")
    linger_ms: float = Field(
        default=3.0,
        ge=0,
        le=1000,
        description="How long a record waits for others, so that several HTTP requests share one PutRecords request",
    )
    max_body_bytes: int = Field(
        default=5242880, ge=1024, le=100 * 1024 * 1024, description="A larger request body is answered with 413"
    )
    max_pending_records: int = Field(
        default=20000, ge=1, description="Maximum number of records that wait for Kinesis. Beyond it, answers are 429"
    )
    max_pending_bytes: int = Field(
        default=67108864,
        ge=1024,
        description="Maximum bytes of records that wait for Kinesis. Beyond it, answers are 429",
    )
    max_receiving_bytes: int = Field(
        default=33554432,
        ge=1024,
        description="Maximum bytes of bodies that are being received or checked, without the first 64 KiB of each. "
        "Beyond it, answers are 429",
    )
    max_header_bytes: int = Field(
        default=16384, ge=1024, le=1048576, description="Larger request headers are answered with 431"
    )
    max_connections: int = Field(
        default=500,
        ge=2,
        le=100_000,
        description="Maximum number of connections of one process. Beyond it, requests are answered with 503",
    )
    receive_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="A request whose headers and body have not arrived in this time is answered with 408",
    )
    allowed_hosts: list[str] = Field(
        default=[],
        description="Names that the Host header of a request may have, such as api.example.com or *.example.com. "
        "Empty: any name if MOVEMENT_API_KEY is set, otherwise only names of this machine",
    )
    timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        le=300,
        description="A request that Kinesis has not accepted in this time is answered with 503",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Number of server processes; they share the port")
