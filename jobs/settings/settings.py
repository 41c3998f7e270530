"""Settings: defaults ← a YAML file (`--config`) ← `--set key=value`, checked as a whole before anything starts.

Every key stands with its default and its meaning in `conf/reference.yaml`, which a test holds equal to the
classes below. AWS itself (region, credentials, endpoints) is never named here: boto3 and S3A find it in the
standard environment variables and profiles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from jobs.common.errors import ConfigurationError
from jobs.common.times import iso_time
from jobs.common.uris import normal
from jobs.settings.config_files import find_configuration, read_yaml
from jobs.settings.sections import (
    S3_FOLDER,
    CompactSettings,
    DeploySettings,
    GoldSettings,
    ObserveSettings,
    ReportSettings,
    SinkSettings,
)
from jobs.settings.validation import explain


class _Model(BaseModel):
    # Strict: true is no 1, and "5" no 5.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StreamSettings(_Model):
    name: Annotated[
        str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$", description="Name of the Kinesis stream, or its ARN's last part")
    ] = "uber-movement-stream"
    shards: Annotated[
        int, Field(ge=1, le=1000, description="Shards that `movement local up` creates the stream with; unused on AWS")
    ] = 4


class ProducerSettings(_Model):
    in_flight: Annotated[
        int, Field(ge=1, le=64, description="PutRecords requests under way at once, for each process")
    ] = 4
    request_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=10 * 1024 * 1024,
            description="A request holds at most 500 records and this many bytes; a larger record goes alone",
        ),
    ] = 5242880
    keep_order: Annotated[
        bool,
        Field(
            description="Keep the order of records of one partition key, through retries too. PutRecords promises "
            "no order within a request, so a key is then in one request at a time, and once in it"
        ),
    ] = True
    check: Annotated[
        bool, Field(description="Reject what the contract rejects before it is sent; false: the stream's job decides")
    ] = True
    request_timeout_seconds: Annotated[
        float, Field(gt=0, le=300, description="A request without an answer for so long is sent again")
    ] = 10.0
    give_up_seconds: Annotated[
        float, Field(gt=0, description="Stop with an error once nothing was accepted for so long, retries included")
    ] = 300.0


class ApiSettings(_Model):
    host: Annotated[str, Field(description="Address that `movement serve` listens on; 0.0.0.0: all")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="Port that `movement serve` listens on")] = 8000
    linger_ms: Annotated[
        float,
        Field(ge=0, le=1000, description="A record waits this long for others, so that requests share a PutRecords"),
    ] = 3.0
    max_body_bytes: Annotated[
        int, Field(ge=1024, le=100 * 1024 * 1024, description="A larger request body is answered with 413")
    ] = 5242880
    max_waiting_records: Annotated[
        int, Field(ge=1, description="Records that wait for Kinesis at most; beyond that, answers are 429")
    ] = 20000
    max_waiting_bytes: Annotated[
        int, Field(ge=1024, description="Bytes of records that wait for Kinesis at most; beyond that, 429")
    ] = 67108864
    timeout_seconds: Annotated[
        float, Field(gt=0, le=300, description="A request that Kinesis has not accepted by then is answered with 503")
    ] = 10.0
    workers: Annotated[int, Field(ge=1, le=64, description="Processes that serve, sharing the port")] = 1


class SourceSettings(_Model):
    connector: Annotated[
        Literal["native", "aws-kinesis"],
        Field(description="native: our source, in Python; aws-kinesis: EMR's JVM connector"),
    ] = "native"
    starting_position: Annotated[
        str,
        Field(
            description="Where a query without a checkpoint starts: TRIM_HORIZON (oldest record), LATEST, "
            "an ISO 8601 time with offset such as 2026-11-23T00:00:00Z, or {shard: last sequence number read} "
            "(native only)"
        ),
    ] = "TRIM_HORIZON"
    fail_on_data_loss: Annotated[
        bool, Field(description="Stop when records left the stream before they were read; false: go on and count them")
    ] = True
    max_records_per_batch: Annotated[
        int,
        Field(ge=0, le=10**12, description="About how many records a batch takes of a backlog, all shards; 0: no cap"),
    ] = 0
    max_bytes_per_batch: Annotated[
        int,
        Field(ge=0, le=10**15, description="About how many bytes a batch takes of a backlog, all shards; 0: no cap"),
    ] = 0
    max_seconds_per_batch: Annotated[
        int, Field(ge=0, le=366 * 86400, description="How many seconds of stream a batch takes of a backlog; 0: no cap")
    ] = 0
    deaggregate: Annotated[bool, Field(description="Take KPL aggregates apart; needs the extra 'kpl'. Native only")] = (
        False
    )
    role_arn: Annotated[
        str | None, Field(description="Role to read the stream with, of another account; null: the job's own")
    ] = None
    consumer_name: Annotated[
        str | None,
        Field(description="Enhanced fan-out consumer, only with aws-kinesis; null: shared throughput (GetRecords)"),
    ] = None
    options: Annotated[
        dict[str, str | int | float | bool],
        Field(description="Further options of the connector, by its own names (docs/kinesis-source.md)"),
    ] = {}

    @field_validator("starting_position", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        # YAML takes an unquoted time for a time, and positions of shards for a mapping.
        if isinstance(value, date):
            return value.isoformat()
        return json.dumps(value) if isinstance(value, dict) else value

    @field_validator("starting_position")
    @classmethod
    def _known_position(cls, value: str) -> str:
        if value in ("TRIM_HORIZON", "LATEST"):
            return value
        if value.lstrip().startswith("{"):
            return _positions(value)
        try:
            iso_time(value)
        except ValueError as error:
            raise ValueError(f"{error}. Or TRIM_HORIZON, LATEST, {{shard: last sequence number read}}") from error
        return value


def _positions(text: str) -> str:
    """`text`, if it gives positions by shard; what a position may be, the source knows."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"positions by shard are not readable as JSON: {error}") from error
    shards = content.get("shards", content)
    if not isinstance(shards, dict) or not shards or not all(isinstance(at, str) for at in shards.values()):
        raise ValueError('allowed: {"<shard>": "<last sequence number read, as text>", …}')
    return text


class StreamJobSettings(_Model):
    trigger_seconds: Annotated[
        float, Field(ge=0, le=3600, description="A micro-batch starts at most this often; 0: as soon as one has ended")
    ] = 5.0
    checkpoint: Annotated[
        str | None,
        Field(description="Folder of Spark's checkpoint; null: <lake>/_checkpoints/stream. One job, one checkpoint"),
    ] = None


class SparkSettings(_Model):
    master: Annotated[
        str, Field(description="Spark master of runs on this machine; a cluster's spark-submit decides it there")
    ] = "local[*]"
    conf: Annotated[
        dict[str, str | int | float | bool], Field(description="Further Spark settings, key: value, for runs here")
    ] = {}


class LocalSettings(_Model):
    port: Annotated[int, Field(ge=1, le=65535, description="Port of the embedded AWS on 127.0.0.1")] = 4566
    state: Annotated[
        str, Field(description="Folder for what runs leave on this machine: logs, the embedded AWS's process file")
    ] = ".movement"


class Settings(_Model):
    """Everything that can be set. Frozen; made by `load_settings`."""

    contract: Annotated[
        str, Field(description="The table's contract: a path, s3://…, or the name of a file that ships in conf/")
    ] = "travel_times.yaml"
    lake: Annotated[str, Field(description="Where the lake lies: s3://bucket/prefix, or a folder of this machine")] = (
        "s3://movement-lake/lake"
    )
    database: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,255}$", description="Database in the Glue Data Catalog")] = (
        "uber_movement"
    )
    stream: StreamSettings = StreamSettings()
    producer: ProducerSettings = ProducerSettings()
    api: ApiSettings = ApiSettings()
    source: SourceSettings = SourceSettings()
    stream_job: StreamJobSettings = StreamJobSettings()
    sink: SinkSettings = SinkSettings()
    observe: ObserveSettings = ObserveSettings()
    compact: CompactSettings = CompactSettings()
    gold: GoldSettings = GoldSettings()
    spark: SparkSettings = SparkSettings()
    local: LocalSettings = LocalSettings()
    deploy: DeploySettings = DeploySettings()
    report: ReportSettings = ReportSettings()

    @field_validator("lake")
    @classmethod
    def _lake_is_a_place(cls, value: str) -> str:
        if "://" in value:
            if not re.fullmatch(S3_FOLDER, value):
                raise ValueError("allowed: s3://bucket/prefix, or a folder of this machine")
            return value.rstrip("/")
        if not value:
            raise ValueError("allowed: s3://bucket/prefix, or a folder of this machine")
        return str(Path(value).expanduser().absolute())

    @property
    def checkpoint(self) -> str:
        """The checkpoint's folder, with the default filled in."""
        return self.stream_job.checkpoint or f"{self.lake}/_checkpoints/stream"

    @property
    def checkpoint_name(self) -> str:
        """The same folder under its one name, however it was written: what jobs know each other by.

        Not for Spark: a folder without a scheme is one of the cluster's own file system, which only Hadoop knows.
        """
        return normal(self.checkpoint)


def load_settings(config: str | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Settings from the YAML file `config` (None: defaults alone) and `key=value` overrides, which win.

    A value is read as YAML: `sink.raw_compression_level=9` is a number, `source.fail_on_data_loss=false` a
    boolean. An override may also be a JSON object of many, `{"lake": "s3://b/p", "stream.name": "s"}`: Glue, whose
    arguments are a map, takes `--set` but once. Raises ConfigurationError naming the file or `--set`, the key, the
    value and what is allowed.
    """
    layered: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if config is not None:
        _lay_over(layered, _read(find_configuration(config)), str(config), origins)
    for override in each_override(overrides):
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigurationError(f"--set {override}: not of the form key=value, such as stream.name=my-stream")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"--set {override}: the value is not readable as YAML") from error
        for part in reversed(_parts(key.strip())):
            value = {part: value}
        _lay_over(layered, value, "--set", origins)

    def origin(key: str) -> str:
        return next((origins[known] for known in _prefixes(key) if known in origins), config or "settings")

    try:
        return Settings.model_validate(layered)
    except ValidationError as error:
        raise ConfigurationError(explain(error, Settings, origin)) from error


def each_override(overrides: Iterable[str]) -> Iterator[str]:
    """The overrides as `key=value` each, those of JSON objects included. Raises ConfigurationError."""
    for override in overrides:
        if not override.lstrip().startswith("{"):
            yield override
            continue
        try:
            content = json.loads(override)
        except ValueError as error:
            raise ConfigurationError(f"--set {override}: not readable as a JSON object: {error}") from error
        for key, value in content.items():
            yield f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _read(path: Path) -> Mapping[str, Any]:
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: holds {type(content).__name__}; expected keys, as in conf/reference.yaml")
    return content


def _lay_over(
    base: dict[str, Any], layer: Mapping[str, Any], origin: str, origins: dict[str, str], at: str = ""
) -> None:
    """Lays `layer` over `base` key by key; a key that is set wins whatever its value, 0 and false included."""
    for key, value in layer.items():
        path = f"{at}{key}"
        origins[path] = origin
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _lay_over(base[key], value, origin, origins, f"{path}.")
        elif isinstance(value, Mapping):
            base[key] = {}
            _lay_over(base[key], value, origin, origins, f"{path}.")
        else:
            base[key] = value


def _parts(key: str) -> list[str]:
    """A dotted key's parts; below a setting that is a mapping (spark.conf) the rest is one key, dots and all."""
    parts: list[str] = []
    model: Any = Settings
    rest = key
    while isinstance(model, type) and issubclass(model, BaseModel):
        part, separator, rest = rest.partition(".")
        parts.append(part)
        if not separator:
            return parts
        if part not in model.model_fields:
            break
        model = model.model_fields[part].annotation
    return [*parts, rest]


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
