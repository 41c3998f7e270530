"""The source's options: text from Spark, in any case, parsed once into a frozen object.

`data_source` parses them, all other modules read the object. An unknown option is an error.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spark_kinesis.errors import SourceConfigurationError
from spark_kinesis.offset import Kind, Offset, Position, parse_offset, parse_position, parse_time

_ARN = re.compile(r"arn:[a-z-]+:kinesis:(?P<region>[a-z0-9-]+):\d{12}:stream/(?P<name>[a-zA-Z0-9_.-]{1,128})")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_STARTS = "TRIM_HORIZON, LATEST, an ISO 8601 time with offset, or JSON: {shard: position}"

# Every option's documented name. Spark passes the names in lower case.
NAMES = (
    "streamName",
    "startingPosition",
    "endingPosition",
    "failOnDataLoss",
    "region",
    "endpointUrl",
    "roleArn",
    "roleSessionName",
    "roleExternalId",
    "maxRecordsPerBatch",
    "maxBytesPerBatch",
    "maxSecondsPerBatch",
    "exactCaps",
    "discoverySeconds",
    "planningCallsPerSecond",
    "planningThreads",
    "bytesPerTask",
    "recordsPerCall",
    "retrySeconds",
    "deaggregate",
)

# By lowercase name. Reading ahead across batches is gone (docs/adr/0014).
_REMOVED = {"readahead": "readAhead"}


@dataclass(frozen=True)
class KinesisOptions:
    """The options of one query. docs/kinesis-source.md has each option's meaning and trade-off.

    initial      TRIM_HORIZON, LATEST, `AT_TIMESTAMP:<time>`, or SHARDS: the positions in `starting_shards`
    ending       no batch passes this offset; with `ends_at_tip`, none passes the tip at the query's start
    max_…        caps of a batch; 0: no cap
    """

    stream: str
    stream_arn: str | None = None
    initial: str = "LATEST"
    starting_shards: Mapping[str, Position] = field(default_factory=dict)
    ending: Offset | None = None
    ends_at_tip: bool = False
    fail_on_data_loss: bool = True
    region: str | None = None
    endpoint_url: str | None = None
    role_arn: str | None = None
    role_session_name: str = "movement-lake"
    role_external_id: str | None = None
    sts_endpoint_url: str | None = None
    max_records: int = 0
    max_bytes: int = 0
    max_seconds: int = 0
    exact_caps: bool = False
    discovery_seconds: float = 30.0
    planning_calls_per_second: float = 2.0
    planning_threads: int = 32
    bytes_per_task: int = 8 * 1024 * 1024
    records_per_call: int = 10_000
    retry_seconds: float = 120.0
    deaggregate: bool = False

    @property
    def initial_offset(self) -> Offset:
        """The offset that a new query starts from. It names no record, so every call returns the same."""
        return Offset(self.stream, self.starting_shards, initial=self.initial)


def parse_options(given: Mapping[str, str]) -> KinesisOptions:
    """Raises SourceConfigurationError that names the option, its value and the allowed values."""
    options = {key.lower(): value for key, value in given.items()}
    known = {name.lower(): name for name in NAMES}
    for key in options:
        if key not in known:
            if key in _REMOVED:
                raise SourceConfigurationError(f"option '{_REMOVED[key]}' was removed: leave it out")
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{known[close[0]]}'? " if close else ""
            raise SourceConfigurationError(f"option '{key}' is unknown; {hint}known: {', '.join(NAMES)}")

    stream, arn, region = _stream(options)
    initial, starting_shards = _starting(options.get("startingposition", "LATEST"))
    deaggregate = _flag(options, "deaggregate", False)
    if not deaggregate and any(position.sub is not None for position in starting_shards.values()):
        raise SourceConfigurationError(
            "option 'startingPosition' names user records of KPL aggregates (<sequence>:<sub>); this needs "
            "deaggregate=true"
        )
    ending = options.get("endingposition")
    ends_at_tip = ending is not None and ending.upper() == "LATEST"
    return KinesisOptions(
        stream=stream,
        stream_arn=arn,
        initial=initial,
        starting_shards=starting_shards,
        ending=None
        if ending is None or ends_at_tip
        else parse_offset(ending, stream, "option 'endingPosition' (LATEST, or an offset)"),
        ends_at_tip=ends_at_tip,
        fail_on_data_loss=_flag(options, "failOnDataLoss", True),
        region=options.get("region") or region or _configured_region(),
        endpoint_url=options.get("endpointurl") or configured_endpoint(),
        role_arn=options.get("rolearn"),
        role_session_name=options.get("rolesessionname", "movement-lake"),
        role_external_id=options.get("roleexternalid"),
        sts_endpoint_url=configured_endpoint("STS"),
        max_records=int(_number(options, "maxRecordsPerBatch", 0, 0, 10**12)),
        max_bytes=int(_number(options, "maxBytesPerBatch", 0, 0, 10**15)),
        max_seconds=int(_number(options, "maxSecondsPerBatch", 0, 0, 366 * 86400)),
        exact_caps=_flag(options, "exactCaps", False),
        discovery_seconds=_number(options, "discoverySeconds", 30.0, 0, 3600),
        planning_calls_per_second=_number(options, "planningCallsPerSecond", 2.0, 0.1, 100_000),
        planning_threads=int(_number(options, "planningThreads", 32, 1, 256)),
        bytes_per_task=int(_number(options, "bytesPerTask", 8 * 1024 * 1024, 0, 2**40)),
        records_per_call=int(_number(options, "recordsPerCall", 10_000, 1, 10_000)),
        retry_seconds=_number(options, "retrySeconds", 120.0, 0, 3600),
        deaggregate=deaggregate,
    )


def _stream(options: Mapping[str, str]) -> tuple[str, str | None, str | None]:
    name = options.get("streamname", "")
    if not name:
        raise SourceConfigurationError("option 'streamName' is missing: the stream's name, or its ARN")
    found = _ARN.fullmatch(name)
    if found:
        return found["name"], name, found["region"]
    if not _NAME.fullmatch(name):
        raise SourceConfigurationError(
            f"option 'streamName' is '{name}'; allowed: 1 to 128 of a-z A-Z 0-9 _ . -, or a stream's ARN"
        )
    return name, None, None


def _starting(text: str) -> tuple[str, Mapping[str, Position]]:
    if text.upper() in ("TRIM_HORIZON", "LATEST"):
        return text.upper(), {}
    if text.lstrip().startswith("{"):
        return "SHARDS", _starting_shards(text)
    try:
        moment = parse_time(text.removeprefix("AT_TIMESTAMP:"))
    except SourceConfigurationError as error:
        raise SourceConfigurationError(f"option 'startingPosition': {error}; allowed: {_STARTS}") from error
    return str(Position(Kind.AT_TIMESTAMP, moment=moment)), {}


def _starting_shards(text: str) -> Mapping[str, Position]:
    try:
        content: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceConfigurationError(f"option 'startingPosition' is not readable as JSON: {error}") from error
    shards = content.get("shards", content)
    if not isinstance(shards, dict) or not shards or not all(isinstance(at, str) for at in shards.values()):
        raise SourceConfigurationError(
            "option 'startingPosition': expected {shard: position}, each position a text: a sequence number (the "
            "last one read), TRIM_HORIZON, AT_TIMESTAMP:<time> or SHARD_END"
        )
    return {shard: parse_position(at) for shard, at in shards.items()}


def configured_endpoint(service: str = "KINESIS") -> str | None:
    """The endpoint that boto3 would take from the environment. The driver passes it on to the workers."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return os.environ.get(f"AWS_ENDPOINT_URL_{service}") or os.environ.get("AWS_ENDPOINT_URL")


def _configured_region() -> str | None:
    """The region that boto3 would use; None if none is configured."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if named:
        return named
    import botocore.session  # not needed in a process that only pickles the source

    found: str | None = botocore.session.Session().get_config_variable("region")
    return found


def _number(options: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = options.get(name.lower())
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high or (isinstance(default, int) and value != int(value)):
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise SourceConfigurationError(f"option '{name}' is '{text}'; allowed: {kind} from {low:g} to {high:g}")
    return value


def _flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    text = options.get(name.lower())
    if text is None:
        return default
    if text.lower() not in ("true", "false"):
        raise SourceConfigurationError(f"option '{name}' is '{text}'; allowed: true, false")
    return text.lower() == "true"
