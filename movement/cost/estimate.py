"""What a stream costs a month: the stack as `movement deploy stack` creates it, and two other ways beside it.

In: a workload and a price list. Out: lines of quantity, price and amount. A month has 730 hours; a GB has 2^30 bytes;
a MB/s is 10^6 bytes of records a second. The quantities below are those of a steady stream: peaks and idle hours are
the user's to average.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from movement.cost.prices import Price, Prices

Platform = Literal["glue", "emr-serverless", "emr", "firehose", "flink"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)
Part = Literal["stream", "compute", "network", "S3", "monitoring", "batch path"]
PARTS: tuple[Part, ...] = get_args(Part)

HOURS = 730
SECONDS = HOURS * 3600
GB = 2**30
# Bytes of gzip raw files and of Parquet for a byte of records, measured with exports without geometry.
RAW_SHARE, PARQUET_SHARE = 0.08, 0.06
# `python -m benchmarks.stream --only drain`: processor seconds for a million records; half of a vCPU stays free.
CPU_SECONDS_PER_MILLION, BUSY_SHARE = 10, 0.5
# sink.target_file_bytes
FILE_BYTES = 134217728
# Of a batch, beside its data files: the checkpoint's files, the ledger entry, the lease (PUT, LIST); their reads (GET).
BATCH_PUTS, BATCH_GETS = 10, 6
# docs/metrics.md: the metrics of a stream, and the usual number of rejection reasons.
STREAM_METRICS, REASON_METRICS, MAX_SHARD_METRICS = 22, 2, 50
# infra/cloudformation: alarms.yaml and network.yaml. A test compares them.
ALARMS, BATCH_PATH_ALARMS, ENDPOINTS, ZONES = 6, 4, 6, 2
# infra/cloudformation/root.yaml, delivery.yaml and batch.yaml: Firehose closes a file at the earlier of these limits.
BUFFER_SECONDS, BUFFER_BYTES = 900, 128 * 2**20
# CrawlSeconds of root.yaml: between two crawls. Glue bills at least ten minutes of each. A run of the batch job.
CRAWL_SECONDS, CRAWL_BILLED_HOURS, CRAWL_DPUS = 3600, 10 / 60, 2
BATCH_RUN_HOURS, BATCH_WORKERS = 2 / 60, 2
# Workers of 4 vCPU and 16 GB: Glue's G.1X (1 DPU), EMR Serverless's default, m7i.xlarge.
WORKER_VCPU, WORKER_GB, NODE_DISK_GB = 4, 16, 64
GLUE_WORKERS, EMR_CORE_NODES = 2, 2


@dataclass(frozen=True)
class Workload:
    """A steady stream and how it is handled.

    mb_per_second      10^6 bytes of records a second
    record_bytes       bytes of a record; a KPL aggregate counts as one record
    on_demand          capacity mode of the stream; False: provisioned shards
    retention_hours    how long the stream keeps records
    trigger_seconds    `stream_job.trigger_seconds`
    partitions         partitions of the processed table that a batch writes to: one file each (ADR 18)
    batch_path         Firehose, crawler and batch job beside the stream
    """

    mb_per_second: float
    record_bytes: int
    on_demand: bool = True
    retention_hours: int = 72
    trigger_seconds: float = 10.0
    partitions: int = 10
    batch_path: bool = True

    @property
    def records_per_second(self) -> float:
        """Records a second."""
        return self.mb_per_second * 1e6 / self.record_bytes

    @property
    def gb(self) -> float:
        """GB of records a month."""
        return self.mb_per_second * 1e6 * SECONDS / GB

    @property
    def shards(self) -> int:
        """Shards with a third to spare: each takes 1 MB and 1,000 records a second."""
        return max(1, math.ceil(max(self.mb_per_second, self.records_per_second / 1000) * 1.33))

    @property
    def vcpus(self) -> float:
        """vCPUs that are needed to read, parse and write."""
        return self.records_per_second * CPU_SECONDS_PER_MILLION / 1e6 / BUSY_SHARE

    def rounded_gb(self, step: int) -> float:
        """GB a month if each record is rounded up to a multiple of `step` bytes.

        Example: records of 415 bytes at a step of 5,120 count as 5,120 bytes.
        """
        return self.records_per_second * math.ceil(self.record_bytes / step) * step * SECONDS / GB


@dataclass(frozen=True)
class Line:
    """A line of the bill: `quantity` units at a price."""

    part: Part
    what: str
    quantity: float
    price: Price

    @property
    def amount(self) -> float:
        """Dollars a month."""
        return self.quantity * self.price.amount


def bill(workload: Workload, platform: Platform, prices: Prices) -> list[Line]:
    """The lines of a month's bill. `firehose` and `flink` have no batch path."""
    lines = [*_stream(workload, prices), *_compute(workload, platform, prices), *_s3(workload, platform, prices)]
    lines += _monitoring(workload, platform, prices)
    if workload.batch_path and platform not in ("firehose", "flink"):
        lines += _batch_path(workload, prices)
    return lines


def _stream(workload: Workload, prices: Prices) -> Iterator[Line]:
    kept_days = max(0, workload.retention_hours - 24) / 24
    if workload.on_demand:
        taken = workload.rounded_gb(1024)
        yield Line("stream", "on-demand stream", HOURS, prices.kinesis_stream_hour)
        yield Line("stream", "records in", taken, prices.kinesis_in)
        yield Line("stream", "records out", workload.gb, prices.kinesis_out)
        yield Line("stream", "kept beyond 24 h", taken * 24 / HOURS * kept_days, prices.kinesis_kept)
    else:
        units = workload.records_per_second * math.ceil(workload.record_bytes / 25600) * SECONDS / 1e6
        yield Line("stream", f"{workload.shards} shards", workload.shards * HOURS, prices.kinesis_shard_hour)
        yield Line("stream", "PUT units", units, prices.kinesis_put)
        if kept_days:
            yield Line("stream", "kept beyond 24 h", workload.shards * HOURS, prices.kinesis_shard_kept)


def _compute(workload: Workload, platform: Platform, prices: Prices) -> Iterator[Line]:
    executors = max(1, math.ceil(workload.vcpus / WORKER_VCPU))
    if platform == "glue":
        workers = max(GLUE_WORKERS, 1 + executors)
        yield Line("compute", f"{workers} workers G.1X", workers * HOURS, prices.glue_dpu_hour)
    elif platform == "emr-serverless":
        workers = 1 + executors
        what = f"driver and {executors} executor" + ("s" if executors > 1 else "")
        yield Line("compute", f"{what}, vCPU", workers * WORKER_VCPU * HOURS, prices.emr_serverless_vcpu_hour)
        yield Line("compute", f"{what}, memory", workers * WORKER_GB * HOURS, prices.emr_serverless_gb_hour)
    elif platform == "emr":
        # The driver runs on a core node.
        nodes = 1 + max(EMR_CORE_NODES, 1 + executors)
        yield Line("compute", f"{nodes} m7i.xlarge", nodes * HOURS, prices.ec2_node_hour)
        yield Line("compute", "EMR on them", nodes * HOURS, prices.emr_node_hour)
        yield Line("compute", f"{NODE_DISK_GB} GB of disk each", nodes * NODE_DISK_GB, prices.ebs)
    elif platform == "firehose":
        billed = workload.rounded_gb(5 * 1024)
        yield Line("compute", "Firehose", billed, prices.firehose_in)
        yield Line("compute", "conversion to Parquet", billed, prices.firehose_convert)
        yield Line("compute", "dynamic partitioning", workload.gb, prices.firehose_partition)
        yield Line("compute", "partitioned objects", _firehose_files(workload) / 1000, prices.firehose_object)
    else:
        # AWS adds one KPU to each application, for orchestration and without storage.
        units = max(1, math.ceil(workload.vcpus))
        yield Line("compute", f"{units} + 1 KPU", (units + 1) * HOURS, prices.flink_kpu_hour)
        yield Line("compute", "50 GB a KPU", units * 50, prices.flink_storage)
    if platform in ("emr", "emr-serverless"):
        yield Line(
            "network", f"{ENDPOINTS} endpoints in {ZONES} zones", ENDPOINTS * ZONES * HOURS, prices.endpoint_hour
        )
        yield Line("network", "records through an endpoint", workload.gb, prices.endpoint_gb)


def _s3(workload: Workload, platform: Platform, prices: Prices) -> Iterator[Line]:
    batches = SECONDS / workload.trigger_seconds
    if platform == "firehose":
        yield Line("S3", "PUT requests", _firehose_files(workload) / 1000, prices.s3_put)
        yield Line("S3", "storage, first month", workload.gb * PARQUET_SHARE, prices.s3_storage)
        return
    taken = workload.mb_per_second * 1e6 * workload.trigger_seconds
    raw_files = math.ceil(taken * RAW_SHARE / FILE_BYTES)
    files = raw_files + max(workload.partitions, math.ceil(taken * PARQUET_SHARE / FILE_BYTES))
    yield Line("S3", "PUT and LIST requests", batches * (files + BATCH_PUTS) / 1000, prices.s3_put)
    yield Line("S3", "GET requests", batches * BATCH_GETS / 1000, prices.s3_get)
    yield Line("S3", "storage, first month", workload.gb * (RAW_SHARE + PARQUET_SHARE), prices.s3_storage)


def _firehose_files(workload: Workload) -> float:
    """Objects a month: dynamic partitioning buffers each partition by itself, for at most BUFFER_SECONDS."""
    return max(SECONDS / BUFFER_SECONDS * workload.partitions, workload.gb * GB / BUFFER_BYTES)


def _monitoring(workload: Workload, platform: Platform, prices: Prices) -> Iterator[Line]:
    if platform not in ("firehose", "flink"):
        by_shard = workload.shards if workload.shards <= MAX_SHARD_METRICS else 0
        metrics = STREAM_METRICS + REASON_METRICS + by_shard
        yield Line("monitoring", f"{metrics} metrics", metrics, prices.cloudwatch_metric)
        yield Line("monitoring", "PutMetricData, one a minute", HOURS * 60 / 1000, prices.cloudwatch_call)
    yield Line("monitoring", f"{ALARMS} alarms", ALARMS, prices.cloudwatch_alarm)
    yield Line("monitoring", "dashboard", 1, prices.cloudwatch_dashboard)
    yield Line("monitoring", "encryption key", 1, prices.kms_key)


def _batch_path(workload: Workload, prices: Prices) -> Iterator[Line]:
    file_seconds = min(BUFFER_SECONDS, BUFFER_BYTES / (workload.mb_per_second * 1e6))
    runs = SECONDS / max(file_seconds, CRAWL_SECONDS)
    if workload.on_demand:
        yield Line("batch path", "records out, once more", workload.gb, prices.kinesis_out)
    yield Line("batch path", "Firehose", workload.rounded_gb(5 * 1024), prices.firehose_in)
    yield Line("batch path", f"{round(runs):,} crawls", runs * CRAWL_BILLED_HOURS * CRAWL_DPUS, prices.glue_dpu_hour)
    yield Line("batch path", "job runs", runs * BATCH_RUN_HOURS * BATCH_WORKERS, prices.glue_dpu_hour)
    yield Line("batch path", "storage, first month", workload.gb * (RAW_SHARE + PARQUET_SHARE), prices.s3_storage)
    yield Line("batch path", f"{BATCH_PATH_ALARMS} alarms", BATCH_PATH_ALARMS, prices.cloudwatch_alarm)
