"""Spark settings of the submit: what has to be known before the job's own code runs.

What the code relies on once it runs (UTC, Arrow's batch sizes, S3A) is set by jobs/common/spark_session.py. What
concerns a whole cluster (encryption between its nodes, its disks) is the cluster's: see docs/deploy.md.
"""

from __future__ import annotations

from movement.deploy.job import Job


def python_conf(job: Job, python: str, driver: str) -> dict[str, str]:
    """The environment's Python and the region, for driver and executors alike.

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
    """`conf` with the user's own `deploy.spark_conf` over it."""
    own = {key: _text(value) for key, value in job.settings.deploy.spark_conf.items()}
    return {**conf, **own}


def options(conf: dict[str, str]) -> list[str]:
    """As options of spark-submit."""
    return [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
