"""The sections of the settings, in the order of `conf/reference.yaml`, which is generated from these classes."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Any, Literal

from pydantic import Field, field_validator

from jobs.common.times import parse_time
from jobs.settings.validation import Folder, StrictModel, checked_positions

S3_FOLDER = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=/-]+)?/?"
Scalar = str | int | float | bool


class StreamSettings(StrictModel):
    name: str = Field(
        default="uber-movement-stream",
        pattern=r"^[a-zA-Z0-9_.-]{1,128}$",
        description="Name of the Kinesis stream: the last part of its ARN",
    )
    shards: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="Number of shards of the stream that `movement local up` creates. Not used on AWS",
    )


class ProducerSettings(StrictModel):
    max_in_flight: int = Field(
        default=4, ge=1, le=64, description="Maximum number of concurrent PutRecords requests in each process"
    )
    max_request_bytes: int = Field(
        default=5242880,
        ge=1024,
        le=10 * 1024 * 1024,
        description="A request holds at most 500 records and this many bytes. A larger record is sent alone",
    )
    keep_order: bool = Field(
        default=True,
        description="Keep the order of records with the same partition key, across retries too. PutRecords does not "
        "promise order within a request, so at most one request in flight holds a given key, and only once",
    )
    # pydantic's BaseModel has an attribute `validate`, so the field has another name in Python.
    validate_records: bool = Field(
        default=True,
        alias="validate",
        description="Check records against the contract before they are sent. false: the streaming job rejects them",
    )
    request_timeout_seconds: float = Field(
        default=10.0, gt=0, le=300, description="A request without an answer is sent again after this time"
    )
    delivery_timeout_seconds: float = Field(
        default=300.0, gt=0, description="Stop with an error after this time without an accepted record"
    )


class SourceSettings(StrictModel):
    connector: Literal["native", "aws-kinesis"] = Field(
        default="native", description="native: this project's source, in Python. aws-kinesis: EMR's JVM connector"
    )
    starting_position: str = Field(
        default="TRIM_HORIZON",
        description="Where a query without a checkpoint starts: TRIM_HORIZON (oldest record), LATEST, "
        "an ISO 8601 time with offset such as 2026-11-23T00:00:00Z, or {shard: last sequence number read} "
        "(native only)",
    )
    fail_on_data_loss: bool = Field(
        default=True,
        description="Stop when records left the stream before they were read. false: continue and count them",
    )
    max_records_per_batch: int = Field(
        default=0,
        ge=0,
        le=10**12,
        description="Approximate maximum number of records in a micro-batch, all shards together. 0: no limit",
    )
    max_bytes_per_batch: int = Field(
        default=0,
        ge=0,
        le=10**15,
        description="Approximate maximum size of a micro-batch in bytes, all shards together. 0: no limit",
    )
    max_seconds_per_batch: int = Field(
        default=0,
        ge=0,
        le=366 * 86400,
        description="Maximum span of arrival times in a micro-batch, in seconds. 0: no limit",
    )
    deaggregate: bool = Field(
        default=False, description="Split KPL aggregates into their records. Needs the extra 'kpl'; native only"
    )
    role_arn: str | None = Field(
        default=None, description="Role to read a stream of another account with. null: the job's own role"
    )
    consumer_name: str | None = Field(
        default=None,
        description="Enhanced fan-out consumer, only with aws-kinesis. null: shared throughput (GetRecords)",
    )
    options: dict[str, Scalar] = Field(
        default={}, description="Further options of the connector, by its own names (docs/kinesis-source.md)"
    )

    @field_validator("starting_position", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        # YAML reads an unquoted time as a time, and positions by shard as a mapping.
        if isinstance(value, date):
            return value.isoformat()
        return json.dumps(value) if isinstance(value, dict) else value

    @field_validator("starting_position")
    @classmethod
    def _known_position(cls, value: str) -> str:
        if value in ("TRIM_HORIZON", "LATEST"):
            return value
        if value.lstrip().startswith("{"):
            return checked_positions(value)
        try:
            parse_time(value)
        except ValueError as error:
            raise ValueError(f"{error}. Or TRIM_HORIZON, LATEST, {{shard: last sequence number read}}") from error
        return value


class StreamJobSettings(StrictModel):
    trigger_seconds: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        description="Minimum time between the starts of two micro-batches. 0: the next one starts at once",
    )
    checkpoint: Folder | None = Field(
        default=None,
        description="Folder of Spark's checkpoint, for one job only. null: <lake>/_checkpoints/stream",
    )


class SinkSettings(StrictModel):
    format: Literal["parquet", "delta"] = Field(
        default="parquet",
        description="Format of the processed table. parquet: files in partitions of the Glue Data Catalog. delta: one "
        "Delta table. The format of a lake cannot be changed later",
    )
    parquet_compression: Literal["zstd", "snappy", "gzip", "none"] = Field(
        default="zstd", description="Compression of the Parquet files"
    )
    raw_compression_level: int = Field(
        default=1,
        ge=0,
        le=9,
        description="gzip level of the raw files. 0 to 3 use ISA-L and are fast; 4 to 9 use zlib, for files up to a "
        "fifth smaller",
    )
    target_file_bytes: int = Field(
        default=134217728,
        ge=1024 * 1024,
        le=4 * 1024**3,
        description="Approximate size at which a file is closed and the next one opened",
    )
    small_file_bytes: int = Field(
        default=33554432,
        ge=0,
        le=1024**3,
        description="Files of one partition that would be smaller than this, from several tasks of a micro-batch, are "
        "written as one file of up to target_file_bytes. 0: each task writes its own file",
    )
    max_new_partitions_per_batch: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Maximum number of new partitions of the processed table in a micro-batch. Records of further ones "
        "go to quarantine (too_many_partitions), and an alarm is raised. 0: no limit",
    )
    max_rejected_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="A greater share of rejected records raises an alarm: in the log, in the ledger entry and in the "
        "metrics. The share is taken over at least 100 records; smaller micro-batches are added up",
    )
    fail_on_max_rejected_share: bool = Field(
        default=False,
        description="Stop the job at that micro-batch instead of committing it. Its files are deleted; its records "
        "stay on the stream until you change the contract or the limit and start the job again",
    )


class ObserveSettings(StrictModel):
    metrics: Literal["none", "emf", "cloudwatch"] = Field(
        default="none",
        description="Where the streaming job sends its metrics (docs/metrics.md). emf: lines on standard output, which "
        "CloudWatch Logs turns into metrics. cloudwatch: PutMetricData",
    )
    namespace: str = Field(
        default="MovementLake", pattern=r"^[A-Za-z0-9._/#:-]{1,255}$", description="CloudWatch namespace of the metrics"
    )
    max_shard_metrics: int = Field(
        default=50,
        ge=0,
        le=1000,
        description="A stream with at most this many shards has one iterator-age metric a shard, which AWS bills; "
        "a larger stream only the maximum",
    )
    interval_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Minimum time between two PutMetricData calls, and between two publications of the ages by shard",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Format of log lines under spark-submit. json: one object a line, with a micro-batch's counts",
    )

    @field_validator("namespace")
    @classmethod
    def _not_of_aws(cls, value: str) -> str:
        if value.startswith("AWS/"):
            raise ValueError("AWS reserves the namespaces that begin with AWS/")
        return value


class CompactSettings(StrictModel):
    target_bytes: int = Field(
        default=134217728,
        ge=1024 * 1024,
        le=4 * 1024**3,
        description="Approximate size of compacted files. A file of less than half of it is small",
    )
    min_files: int = Field(
        default=4, ge=2, le=100000, description="A partition with at least this many small files is compacted"
    )
    grace_seconds: float = Field(
        default=3600.0,
        ge=0,
        le=30 * 86400,
        description="How long replaced files are kept for readers that have already listed them. Must be longer than "
        "any query and any micro-batch takes",
    )
    batch_wait_seconds: float = Field(
        default=300.0,
        ge=0,
        le=86400,
        description="How long the move of a partition waits for a running micro-batch that writes to it. After that, "
        "the partition is left to the next run",
    )


class GoldSettings(StrictModel):
    table_prefix: str = Field(
        default="gold_",
        pattern=r"^[a-z][a-z0-9_]{0,63}$",
        description="Prefix of the gold tables' names in the Glue Data Catalog",
    )
    increment_batches: int = Field(
        default=500, ge=1, le=100_000, description="Maximum number of micro-batches in one increment of a backlog"
    )
    increment_rows: int = Field(
        default=10000000,
        ge=1,
        le=10**9,
        description="Approximate maximum number of rows in one increment. An increment has at least one micro-batch",
    )
    poll_seconds: float = Field(
        default=30.0,
        ge=0.1,
        le=86400,
        description="How often `movement gold --follow` looks for new micro-batches",
    )
    manifests: bool = Field(
        default=True, description="Write manifests of each table's files, and Glue tables over them, for Redshift"
    )
    retention_hours: int = Field(
        default=168,
        ge=1,
        le=100_000,
        description="`movement gold --upkeep` deletes files this long after they left a table. A longer query fails",
    )


class SparkSettings(StrictModel):
    master: str = Field(
        default="local[*]", description="Spark master of runs on this machine. On a cluster, spark-submit decides"
    )
    conf: dict[str, Scalar] = Field(
        default={}, description="Further Spark settings of runs on this machine, as key: value"
    )


class LocalSettings(StrictModel):
    port: int = Field(default=4566, ge=1, le=65535, description="Port of the embedded AWS on 127.0.0.1")
    state_dir: str = Field(
        default=".movement",
        description="Folder for local state: logs, the embedded AWS's process file, the producer's progress",
    )


class EmrServerlessSettings(StrictModel):
    application_id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-z]{1,64}$",
        description="The EMR Serverless application, such as 00f1abc2def3",
    )
    log_group: str = Field(
        default="/movement-lake/emr-serverless",
        pattern=r"^[.\-_/#A-Za-z0-9]{1,512}$",
        description="CloudWatch log group of the job's logs",
    )
    executors: int = Field(default=1, ge=1, le=1000, description="Fixed number of executors, with 4 vCPUs each")
    max_failed_attempts_per_hour: int = Field(
        default=5, ge=1, le=10, description="A failed job is restarted until it has failed this many times in an hour"
    )


class EmrSettings(StrictModel):
    cluster_id: str | None = Field(
        default=None, pattern=r"^j-[0-9A-Z]{1,32}$", description="The EMR cluster on EC2, such as j-1ABCDEFGHIJKL"
    )
    bootstrapped: bool = Field(
        default=False,
        description="true: the bootstrap action has installed the release's environment in /opt/movement on the nodes. "
        "false: YARN unpacks the archive for each run",
    )
    driver_attempts: int = Field(
        default=5, ge=1, le=10, description="YARN starts a failed driver up to this many times in an hour"
    )


class GlueSettings(StrictModel):
    job_name: str = Field(
        default="uber-movement-streaming",
        pattern=r"^[A-Za-z0-9_.-]{1,255}$",
        description="The streaming job's name in Glue",
    )
    worker_type: Literal["G.025X", "G.1X", "G.2X", "G.4X", "G.8X", "G.12X", "G.16X", "R.1X", "R.2X", "R.4X", "R.8X"] = (
        Field(default="G.1X", description="Size of a Glue worker")
    )
    workers: int = Field(default=2, ge=2, le=299, description="Number of Glue workers, including the driver's")
    timeout_minutes: int = Field(
        default=10080,
        ge=1,
        le=10080,
        description="Glue ends a run after this time. The maximum is 10080: seven days",
    )
    maintenance_window: str = Field(
        default="Sun:10",
        pattern=r"^(Sun|Mon|Tue|Wed|Thu|Fri|Sat):([01]?[0-9]|2[0-3])$",
        description="Day and hour (UTC) at which Glue may restart the job, once in seven days",
    )
    max_retries: int = Field(default=10, ge=0, le=10, description="How many times Glue restarts a failed run")
    security_configuration: str | None = Field(
        default=None, description="Glue security configuration: encrypts logs and the workers' spilled data. null: none"
    )


class DeploySettings(StrictModel):
    """Only `movement deploy` reads this section; no job does."""

    artifacts: Folder | None = Field(
        default=None, description="Where releases are uploaded: s3://bucket/prefix. Each release has its own folder"
    )
    job_name: str = Field(
        default="movement-stream",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Name of the streaming job on EMR. Only one job of this name runs at a time",
    )
    role_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-zA-Z0-9-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$",
        description="Role of the job on EMR Serverless and Glue. EMR on EC2 uses its instance profile",
    )
    emr_release: Literal["emr-spark-8.1.0", "emr-spark-8.0.0"] = Field(
        default="emr-spark-8.1.0",
        description="Release that the EMR application or cluster must have. Another one is refused",
    )
    glue_version: Literal["6.0"] = Field(default="6.0", description="Glue version: the one with this project's Spark")
    spark_conf: dict[str, Scalar] = Field(
        default={},
        description="Further --conf of the submit, such as spark.executor.memory. They override the command's own",
    )
    wait_seconds: float = Field(
        default=900.0, gt=0, le=86400, description="How long a deploy command waits for the job to run"
    )
    emr_serverless: EmrServerlessSettings = EmrServerlessSettings()
    emr: EmrSettings = EmrSettings()
    glue: GlueSettings = GlueSettings()

    @field_validator("artifacts")
    @classmethod
    def _artifacts_are_in_s3(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(S3_FOLDER, value):
            raise ValueError("allowed: s3://bucket/prefix")
        return value


class ReportSettings(StrictModel):
    max_rows: int = Field(
        default=1000000,
        ge=1,
        le=20_000_000,
        description="Maximum number of corridors on the page. The page says how many it leaves out",
    )
    max_batches: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Maximum number of micro-batches on the page: the latest ones of the ledger",
    )
    refresh_seconds: float = Field(
        default=5.0, ge=1, le=3600, description="How often the page of `movement serve` asks for new data"
    )
