"""The section `deploy`: what `movement deploy …` needs to know of an AWS account. No job reads it.

Releases and Glue versions come from an allow list: those with the Spark that this project is tested on.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

S3_FOLDER = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=/-]+)?/?"


class _Model(BaseModel):
    # As in jobs/contract/settings.py.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
