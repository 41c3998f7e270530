"""Settings of compaction; part of `jobs.contract.settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class CompactSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    target_bytes: Annotated[
        int,
        Field(
            ge=1024 * 1024,
            le=4 * 1024**3,
            description="Compacted files have about so many bytes; one of less than half of them is small",
        ),
    ] = 134217728
    min_files: Annotated[
        int, Field(ge=2, le=100000, description="A partition with so many small files is compacted")
    ] = 4
    grace_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=30 * 86400,
            description="Files that were replaced stay for so long, for readers that found them before; longer than "
            "any query, and than any batch, takes",
        ),
    ] = 3600.0
    wait_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=86400,
            description="How long a partition's move waits for a batch under way that writes to it; then the partition "
            "is left for the next run",
        ),
    ] = 300.0
