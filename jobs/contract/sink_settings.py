"""Settings of what the streaming job writes; part of `jobs.contract.settings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class SinkSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Annotated[
        Literal["parquet", "delta"],
        Field(
            description="How the processed table is kept: parquet, files in partitions of the Glue catalog; delta, the "
            "same files as one Delta table. A lake stays what it was begun as"
        ),
    ] = "parquet"
    parquet_compression: Annotated[
        Literal["zstd", "snappy", "gzip", "none"], Field(description="Compression of the Parquet files")
    ] = "zstd"
    raw_compression_level: Annotated[
        int,
        Field(
            ge=0,
            le=9,
            description="gzip level of the raw files: 0 to 3 by ISA-L, fast; 4 to 9 by zlib, to a fifth smaller",
        ),
    ] = 1
    target_file_bytes: Annotated[
        int,
        Field(ge=1024 * 1024, le=4 * 1024**3, description="A file is closed once it has about this many bytes"),
    ] = 134217728
    join_below_bytes: Annotated[
        int,
        Field(
            ge=0,
            le=1024**3,
            description="What several tasks of a batch have for the same partition becomes one file, up to the target, "
            "where each would write a smaller one than this; 0: each writes its own",
        ),
    ] = 33554432
    max_rejected_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="A greater share of rejected records raises an alarm: in the log, in the batch's ledger entry "
            "and in the metrics. Judged is a batch of 100 records or more, or smaller ones together once they have as "
            "many",
        ),
    ] = 0.1
    stop_when_exceeded: Annotated[
        bool,
        Field(
            description="Stop the job at such a batch instead of making it final: its files are deleted, its records "
            "stay on the stream until the contract or the limit is changed and the job is started again"
        ),
    ] = False
