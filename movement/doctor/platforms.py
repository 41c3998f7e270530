"""Where the job runs: the application of EMR Serverless, the cluster of EMR on EC2, or the job of AWS Glue.

The settings say which: `deploy.emr_serverless.application_id`, `deploy.emr.cluster_id`, otherwise `deploy.glue`.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from jobs.common.aws import error_code
from jobs.common.findings import Answer, failed, passed, unknown
from movement.deploy.emr import USABLE
from movement.deploy.emr_serverless import PROCESSORS
from movement.doctor.checks import Account

# The Python versions of each platform (movement/packaging/target.py has the sources).
EMR_PYTHONS, GLUE_PYTHONS = ("3.11", "3.13"), ("3.13",)


def application(account: Account) -> dict[str, Any] | None:
    """GetApplication's answer; None if no application is set."""
    name = account.settings.deploy.emr_serverless.application_id
    if name is None:
        return None
    emr = account.client("emr-serverless")
    return account.once("application", lambda: dict(emr.get_application(applicationId=name)["application"]))


def cluster(account: Account) -> dict[str, Any] | None:
    """DescribeCluster's answer; None if no cluster is set."""
    name = account.settings.deploy.emr.cluster_id
    if name is None:
        return None
    return account.once("cluster", lambda: dict(account.client("emr").describe_cluster(ClusterId=name)["Cluster"]))


def glue_job(account: Account) -> dict[str, Any] | None:
    """GetJob's answer for `deploy.glue.job_name`; None if there is no such job, or the job runs on EMR."""
    deploy = account.settings.deploy
    if deploy.emr_serverless.application_id or deploy.emr.cluster_id:
        return None
    glue = account.client("glue")
    try:
        return account.once("job", lambda: dict(glue.get_job(JobName=deploy.glue.job_name)["Job"]))
    except ClientError as error:
        if error_code(error) != "EntityNotFoundException":
            raise
        return None


def pythons(account: Account) -> tuple[str, ...]:
    """The Python versions that the platform of the settings has."""
    deploy = account.settings.deploy
    return EMR_PYTHONS if deploy.emr_serverless.application_id or deploy.emr.cluster_id else GLUE_PYTHONS


def check_platform(account: Account) -> Answer:
    """Whether the application, cluster or job exists, with the release that the job is tested on, and can run it."""
    deploy = account.settings.deploy
    answers = []
    if deploy.emr_serverless.application_id:
        answers.append(_application(account))
    if deploy.emr.cluster_id:
        answers.append(_cluster(account))
    if not answers:
        answers.append(_glue(account))
    # The worst answer counts; a user with both an application and a cluster sees the broken one.
    return min(answers, key=lambda answer: ("fail", "unknown", "pass").index(answer.status))


def _application(account: Account) -> Answer:
    found, wanted = application(account) or {}, account.settings.deploy.emr_release
    text = f"application {found['applicationId']}: {found['releaseLabel']}, {found['state']}"
    if found["releaseLabel"] != wanted:
        return failed(text, f"an application with {wanted}: the job is tested on that release only")
    startable = found.get("autoStartConfiguration", {}).get("enabled", True)
    # https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/applications.html
    if found["state"] == "TERMINATED":
        return failed(text, "it does not come back: create another one and set deploy.emr_serverless.application_id")
    if found["state"] == "STOPPED" and not startable:
        return failed(text, f"aws emr-serverless start-application --application-id {found['applicationId']}")
    return passed(f"{text}, {PROCESSORS.get(found.get('architecture') or 'X86_64')}")


def _cluster(account: Account) -> Answer:
    found, wanted = cluster(account) or {}, account.settings.deploy.emr_release
    state = found["Status"]["State"]
    text = f"cluster {found['Id']}: {found['ReleaseLabel']}, {state}"
    if found["ReleaseLabel"] != wanted:
        return failed(text, f"a cluster with {wanted}: the job is tested on that release only")
    if state.startswith("TERMINAT"):
        return failed(
            text,
            "it does not come back: create another one, set deploy.emr.cluster_id, and start the job with movement "
            "deploy emr; it goes on where it ended",
        )
    if state not in USABLE:
        return failed(text, f"needed is {' or '.join(sorted(USABLE))}: wait for it")
    return passed(text)


def _glue(account: Account) -> Answer:
    deploy = account.settings.deploy
    found = glue_job(account)
    if found is None:
        return unknown(
            f"no Glue job {deploy.glue.job_name}, and neither application nor cluster is set",
            "movement deploy glue creates the job; for EMR set deploy.emr_serverless.application_id or "
            "deploy.emr.cluster_id",
        )
    text = f"Glue job {found['Name']}: Glue {found.get('GlueVersion')}, {found['Command']['Name']}"
    if found.get("GlueVersion") != deploy.glue_version or found["Command"]["Name"] != "gluestreaming":
        return failed(text, f"movement deploy glue makes it a gluestreaming job of Glue {deploy.glue_version}")
    return passed(text)


def check_security_configuration(account: Account) -> Answer:
    """Whether the security configuration exists, and whether YARN's shuffle service would take the executors.

    Spark's shuffle service refuses executors that authenticate if yarn-site does not say so too:
    https://spark.apache.org/docs/4.1.1/security.html#yarn
    """
    if account.settings.deploy.emr_serverless.application_id:
        return passed("EMR Serverless has none; spark.ssl.internode.enabled encrypts between its workers")
    found = cluster(account)
    if found is not None:
        return _cluster_security(account, found)
    job = glue_job(account)
    if job is None:
        return unknown("no Glue job yet")
    name = job.get("SecurityConfiguration")
    if name is None:
        return passed("none: Glue encrypts logs and spilled data with its own keys, or not at all")
    account.client("glue").get_security_configuration(Name=name)
    return passed(f"{name} exists")


def _cluster_security(account: Account, found: dict[str, Any]) -> Answer:
    properties = {each["Classification"]: each.get("Properties", {}) for each in found.get("Configurations", ())}
    spark, yarn = properties.get("spark-defaults", {}), properties.get("yarn-site", {})
    if spark.get("spark.authenticate") == "true" and yarn.get("spark.authenticate") != "true":
        return failed(
            "spark.authenticate is set in spark-defaults and not in yarn-site",
            "set spark.authenticate: true in the classification yarn-site too, or the shuffle service refuses every "
            "executor (Unknown message type: -22)",
        )
    name = found.get("SecurityConfiguration")
    if not name:
        return passed("no security configuration; spark-defaults and yarn-site agree on spark.authenticate")
    account.client("emr").describe_security_configuration(Name=name)
    return passed(f"{name} exists; spark-defaults and yarn-site agree on spark.authenticate")
