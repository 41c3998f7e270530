"""The settings of what reads the lake once it is written: the gold tables and the page. Part of `settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    # Strict: true is no 1, and "5" no 5.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GoldSettings(_Model):
    prefix: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="Begins the gold tables' names in the Glue Data Catalog"),
    ] = "gold_"
    increment_batches: Annotated[
        int, Field(ge=1, le=100_000, description="A backlog is done in increments of at most this many batches")
    ] = 500
    increment_rows: Annotated[
        int, Field(ge=1, le=10**9, description="… and about this many rows, but of one batch at least")
    ] = 10000000
    poll_seconds: Annotated[
        float, Field(ge=0.1, le=86400, description="`movement gold --follow` looks for new batches this often")
    ] = 30.0
    manifests: Annotated[
        bool,
        Field(description="Keep lists of each table's files, and tables made of them in Glue, for Redshift"),
    ] = True
    retention_hours: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="`movement gold --upkeep` deletes files that left a table so long ago; a query that takes "
            "longer fails",
        ),
    ] = 168


class ReportSettings(_Model):
    max_rows: Annotated[
        int,
        Field(ge=1, le=20_000_000, description="Corridors that the page holds at most; it says what it leaves out"),
    ] = 1000000
    max_batches: Annotated[
        int, Field(ge=1, le=10_000, description="Batches of the ledger that the page shows, the latest ones")
    ] = 500
    refresh_seconds: Annotated[
        float, Field(ge=1, le=3600, description="How often the page of `movement serve` asks for news")
    ] = 5.0
