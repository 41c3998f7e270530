"""Settings: the defaults, then a YAML file (`--config`), then `--set key=value`; each layer overrides the one before.

`conf/reference.yaml` lists every key with its default and meaning. Region, credentials and endpoints of AWS are not
settings: boto3 and S3A take them from the standard environment variables and profiles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from jobs.common.errors import ConfigurationError
from jobs.common.uris import checked_folder, normalize_uri
from jobs.settings.api_section import ApiSettings
from jobs.settings.config_files import find_configuration, read_yaml
from jobs.settings.sections import (
    S3_FOLDER,
    CompactSettings,
    DeploySettings,
    GoldSettings,
    LocalSettings,
    ObserveSettings,
    ProducerSettings,
    ReportSettings,
    SinkSettings,
    SourceSettings,
    SparkSettings,
    StreamJobSettings,
    StreamSettings,
)
from jobs.settings.validation import StrictModel, explain

# Keys of earlier releases: an error names the new key.
RENAMED = {
    "producer.check": "producer.validate",
    "producer.give_up_seconds": "producer.delivery_timeout_seconds",
    "producer.in_flight": "producer.max_in_flight",
    "producer.request_bytes": "producer.max_request_bytes",
    "api.max_waiting_records": "api.max_pending_records",
    "api.max_waiting_bytes": "api.max_pending_bytes",
    "sink.join_below_bytes": "sink.small_file_bytes",
    "sink.stop_when_exceeded": "sink.fail_on_max_rejected_share",
    "observe.shard_metrics": "observe.max_shard_metrics",
    "observe.log": "observe.log_format",
    "compact.wait_seconds": "compact.batch_wait_seconds",
    "gold.prefix": "gold.table_prefix",
    "local.state": "local.state_dir",
}


class Settings(StrictModel):
    """Every setting. Made by `load_settings`; `conf/reference.yaml` lists the keys."""

    contract: str = Field(
        default="travel_times.yaml",
        description="The table's contract: a path, s3://…, or the name of a file that ships in conf/",
    )
    lake: str = Field(
        default="s3://movement-lake/lake", description="Root of the lake: s3://bucket/prefix, or a local folder"
    )
    database: str = Field(
        default="uber_movement", pattern=r"^[a-z0-9_]{1,255}$", description="Database in the Glue Data Catalog"
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
    def _lake_is_absolute(cls, value: str) -> str:
        if "://" in value:
            if not re.fullmatch(S3_FOLDER, value):
                raise ValueError("allowed: s3://bucket/prefix, or a local folder")
            return checked_folder(value)
        if not value:
            raise ValueError("allowed: s3://bucket/prefix, or a local folder")
        return checked_folder(str(Path(value).expanduser().absolute()))

    @property
    def checkpoint(self) -> str:
        """The checkpoint's folder, with the default filled in."""
        return self.stream_job.checkpoint or f"{self.lake}/_checkpoints/stream"

    @property
    def checkpoint_name(self) -> str:
        """The checkpoint's folder in one spelling, to compare with other jobs' checkpoints.

        Give Spark `checkpoint` instead: only Hadoop knows which file system a path without a scheme means.
        """
        return normalize_uri(self.checkpoint)


def load_settings(config: str | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Loads the settings: the defaults, then the YAML file `config`, then `overrides`; a later layer wins.

    `config` is a path, an s3:// address or the name of a file that ships in `conf/`; None: no file. An override is
    `key=value` with the value in YAML, or a JSON object of several, because a Glue job's arguments are a map that can
    hold `--set` only once.

        load_settings("glue.yaml", ["stream.name=trips", "source.fail_on_data_loss=false"])
        load_settings(None, ['{"lake": "s3://bucket/prefix", "stream.shards": 2}'])

    Raises ConfigurationError with one line for each mistake: the file or `--set`, the key, the value, what is allowed.
    AwsAccessError and TransientError come from reading a file on S3.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if config is not None:
        _merge(values, _read(find_configuration(config)), config, origins)
    for override in each_override(overrides):
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigurationError(f"--set {override}: expected key=value, such as stream.name=my-stream")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"--set {override}: the value is not readable as YAML") from error
        for part in reversed(_parts(key.strip())):
            value = {part: value}
        _merge(values, value, "--set", origins)

    def origin(key: str) -> str:
        return next((origins[parent] for parent in _parents(key) if parent in origins), config or "settings")

    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(explain(error, Settings, origin, RENAMED)) from error


def each_override(overrides: Iterable[str]) -> Iterator[str]:
    """The overrides as `key=value`, with JSON objects split up. Raises ConfigurationError."""
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


def _merge(base: dict[str, Any], layer: Mapping[str, Any], origin: str, origins: dict[str, str], at: str = "") -> None:
    """Copies `layer` into `base` key by key. A key that is set wins, whatever its value: 0 and false included."""
    for key, value in layer.items():
        path = f"{at}{key}"
        origins[path] = origin
        if isinstance(value, Mapping):
            if not isinstance(base.get(key), dict):
                base[key] = {}
            _merge(base[key], value, origin, origins, f"{path}.")
        else:
            base[key] = value


def _parts(key: str) -> list[str]:
    """The parts of a dotted key. Below a setting that is a mapping, such as spark.conf, the rest is one part."""
    parts: list[str] = []
    model: Any = Settings
    rest = key
    while isinstance(model, type) and issubclass(model, StrictModel):
        part, separator, rest = rest.partition(".")
        parts.append(part)
        if not separator:
            return parts
        field = model.fields_by_key().get(part)
        if field is None:
            break
        model = field.annotation
    return [*parts, rest]


def _parents(key: str) -> list[str]:
    """`a.b.c` → `a.b.c`, `a.b`, `a`."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
