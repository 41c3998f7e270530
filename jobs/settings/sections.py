"""Settings of what the streaming job writes; part of `jobs.settings.settings`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


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


# The settings of what reads the lake once it is written: the gold tables and the page. Part of `settings`.


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


# Settings of what a job tells about itself; part of `jobs.settings.settings`.


class ObserveSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    metrics: Annotated[
        Literal["none", "emf", "cloudwatch"],
        Field(
            description="Where the streaming job's metrics go (docs/metrics.md). emf: lines on standard output, which "
            "CloudWatch Logs turns into metrics; cloudwatch: PutMetricData"
        ),
    ] = "none"
    namespace: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._/#:-]{1,255}$", description="CloudWatch namespace of the metrics")
    ] = "MovementLake"
    shard_metrics: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="A stream with up to so many shards has an iterator age for each, which AWS bills; with "
            "more, the greatest alone",
        ),
    ] = 50
    interval_seconds: Annotated[
        float,
        Field(
            ge=1,
            le=3600,
            description="PutMetricData is called, and ages by shard are published, at most this often",
        ),
    ] = 60.0
    log: Annotated[
        Literal["text", "json"],
        Field(description="Log lines of jobs under spark-submit. json: an object a line, a batch's with its figures"),
    ] = "text"

    @field_validator("namespace")
    @classmethod
    def _not_of_aws(cls, value: str) -> str:
        if value.startswith("AWS/"):
            raise ValueError("namespaces that begin with AWS/ are AWS's own")
        return value


# Settings of compaction; part of `jobs.settings.settings`.


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


# The section `deploy`: what `movement deploy …` needs to know of an AWS account. No job reads it.

S3_FOLDER = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=/-]+)?/?"


class EmrServerlessSettings(_Model):
    application_id: Annotated[
        str | None,
        Field(pattern=r"^[0-9a-z]{1,64}$", description="The EMR Serverless application, such as 00f1abc2def3"),
    ] = None
    log_group: Annotated[
        str, Field(pattern=r"^[.\-_/#A-Za-z0-9]{1,512}$", description="CloudWatch log group of the job's logs")
    ] = "/movement-lake/emr-serverless"
    max_failed_attempts_per_hour: Annotated[
        int, Field(ge=1, le=10, description="A failed job is started again, until it has failed so often in an hour")
    ] = 5


class EmrSettings(_Model):
    cluster_id: Annotated[
        str | None, Field(pattern=r"^j-[0-9A-Z]{1,32}$", description="The EMR cluster on EC2, such as j-1ABCDEFGHIJKL")
    ] = None
    bootstrapped: Annotated[
        bool,
        Field(
            description="The nodes have the release's environment in /opt/movement, put there by the bootstrap "
            "action; false: YARN unpacks the archive for each run"
        ),
    ] = False
    driver_attempts: Annotated[
        int, Field(ge=1, le=10, description="YARN starts a failed driver again, so often in an hour")
    ] = 5


class GlueSettings(_Model):
    job_name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_.-]{1,255}$", description="The streaming job's name in Glue")
    ] = "uber-movement-streaming"
    worker_type: Annotated[
        Literal["G.025X", "G.1X", "G.2X", "G.4X", "G.8X", "G.12X", "G.16X", "R.1X", "R.2X", "R.4X", "R.8X"],
        Field(description="Size of a Glue worker"),
    ] = "G.1X"
    workers: Annotated[int, Field(ge=2, le=299, description="Glue workers, the driver's included")] = 2
    timeout_minutes: Annotated[
        int, Field(ge=1, le=10080, description="Glue ends a run after so long; 10080, seven days, is the most it takes")
    ] = 10080
    maintenance_window: Annotated[
        str,
        Field(
            pattern=r"^(Sun|Mon|Tue|Wed|Thu|Fri|Sat):([01]?[0-9]|2[0-3])$",
            description="Day and hour (UTC) at which Glue may restart the job, once in seven days",
        ),
    ] = "Sun:10"
    max_retries: Annotated[int, Field(ge=0, le=10, description="So often Glue starts a failed run again")] = 10
    security_configuration: Annotated[
        str | None, Field(description="Glue security configuration: encrypts logs and what workers spill; null: none")
    ] = None


class DeploySettings(_Model):
    artifacts: Annotated[
        str | None, Field(description="Where releases are uploaded: s3://bucket/prefix; each gets a folder of its own")
    ] = None
    job_name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Name of the streaming job on EMR; one runs at a time"),
    ] = "movement-stream"
    role_arn: Annotated[
        str | None,
        Field(
            pattern=r"^arn:aws[a-zA-Z0-9-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$",
            description="Role that the job runs as, on EMR Serverless and Glue; EMR on EC2 has its instance profile",
        ),
    ] = None
    emr_release: Annotated[
        Literal["emr-spark-8.1.0", "emr-spark-8.0.0"],
        Field(description="Release that the EMR application or cluster must have: another Spark is refused"),
    ] = "emr-spark-8.1.0"
    glue_version: Annotated[Literal["6.0"], Field(description="Glue's version: the one with this project's Spark")] = (
        "6.0"
    )
    spark_conf: Annotated[
        dict[str, str | int | float | bool],
        Field(
            description="Further --conf of the submit, such as spark.executor.memory; they win over the commands' own"
        ),
    ] = {}
    wait_seconds: Annotated[
        float, Field(gt=0, le=86400, description="How long a deploy command waits for the job to run")
    ] = 900.0
    emr_serverless: EmrServerlessSettings = EmrServerlessSettings()
    emr: EmrSettings = EmrSettings()
    glue: GlueSettings = GlueSettings()

    @field_validator("artifacts")
    @classmethod
    def _artifacts_are_in_s3(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(S3_FOLDER, value):
            raise ValueError("allowed: s3://bucket/prefix")
        return value.rstrip("/") if value else value
