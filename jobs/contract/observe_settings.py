"""Settings of what a job tells about itself; part of `jobs.contract.settings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


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
