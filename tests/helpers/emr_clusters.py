"""Clusters of EMR on EC2, of the embedded AWS."""

from __future__ import annotations

from jobs.common.aws import client


def start_cluster(kind: str = "m6i.xlarge") -> str:
    """Starts a cluster of the supported release; returns its id."""
    answer = client("emr").run_job_flow(
        Name="movement",
        ReleaseLabel="emr-spark-8.1.0",
        Instances={"KeepJobFlowAliveWhenNoSteps": True, "MasterInstanceType": kind, "InstanceCount": 1},
        JobFlowRole="EMR_EC2_DefaultRole",
        ServiceRole="EMR_DefaultRole",
    )
    return str(answer["JobFlowId"])
