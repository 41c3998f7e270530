"""The Spark options of the submit: those that must be set before the job's own code runs.

The job's other options (UTC, Arrow's batch sizes, S3A) are in jobs/common/spark_session.py. Options of a whole cluster
(encryption between nodes, disks) belong to the cluster: docs/deploy.md.
"""

from __future__ import annotations

from movement.deploy.job import Job


def python_conf(job: Job, python: str, driver: str) -> dict[str, str]:
    """The environment's Python and the region, for driver and executors.

    `driver`: the prefix of the driver's environment variables on the platform.
    """
    return {
        f"{driver}.PYSPARK_DRIVER_PYTHON": python,
        f"{driver}.PYSPARK_PYTHON": python,
        "spark.executorEnv.PYSPARK_PYTHON": python,
        f"{driver}.AWS_REGION": job.region,
        "spark.executorEnv.AWS_REGION": job.region,
    }


def with_own(job: Job, conf: dict[str, str]) -> dict[str, str]:
    """`conf`, overridden by the user's `deploy.spark_conf`."""
    own = {key: _text(value) for key, value in job.settings.deploy.spark_conf.items()}
    return {**conf, **own}


def options(conf: dict[str, str]) -> list[str]:
    """The options of spark-submit."""
    return [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
