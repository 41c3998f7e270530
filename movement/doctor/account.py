"""Caller, region, clock, and the account's quotas.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html (five minutes)
https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/endpoints-quotas.html
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError, NoCredentialsError

from jobs.common.aws import BAD_CREDENTIALS, core_session, error_code, region
from jobs.common.findings import Answer, failed, passed, unknown
from movement.doctor.checks import Account
from movement.doctor.platforms import application

MOST_SKEW_SECONDS = 60.0


def check_region(account: Account) -> Answer:
    """Whether a region is configured, and one that botocore knows."""
    name = region()
    if name is None:
        return failed("no AWS region", "set AWS_REGION, or a region in the AWS profile")
    session = core_session()
    known = [
        each
        for partition in session.get_available_partitions()
        for each in session.get_available_regions("kinesis", partition_name=partition)
    ]
    if name not in known:
        return unknown(f"{name}: botocore knows no such region with Kinesis", "check AWS_REGION, or update boto3")
    return passed(name)


def check_caller(account: Account) -> Answer:
    """The ARN of the credentials that AWS sees."""
    try:
        identity = account.identity
    except NoCredentialsError:
        return failed("no AWS credentials", "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    except ClientError as error:
        if error_code(error) not in BAD_CREDENTIALS:
            raise
        return failed(
            f"AWS refused the credentials ({error_code(error)}: {error.response['Error'].get('Message', '')})",
            "sign in again; if the message names a time, set this machine's clock",
        )
    return passed(str(identity["Arn"]))


def check_clock(account: Account) -> Answer:
    """This machine's clock against AWS's, to the second. Beyond five minutes AWS refuses requests."""
    headers: dict[str, Any] = account.client("sts").get_caller_identity()["ResponseMetadata"]["HTTPHeaders"]
    now = time.time()
    if "date" not in headers:
        return unknown("the answer has no Date header")
    skew = now - parsedate_to_datetime(headers["date"]).timestamp()
    # The header has whole seconds, so an exact clock is up to a second ahead of it.
    if -1 <= skew < 2:
        return passed("as AWS's, within 2 s")
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} AWS's"
    if abs(skew) > MOST_SKEW_SECONDS:
        return failed(text, "set the clock by NTP: AWS refuses requests that are five minutes off")
    return passed(text)


def check_shard_quota(account: Account) -> Answer:
    """Shards in use against the account's limit (DescribeLimits)."""
    limits = account.client("kinesis").describe_limits()
    text = f"{limits['OpenShardCount']:,} of {limits['ShardLimit']:,} shards in use"
    if limits["OpenShardCount"] >= limits["ShardLimit"]:
        return failed(text, "ask for a higher quota of Kinesis shards: no stream can be split any more")
    return passed(text)


def check_vcpu_quota(account: Account) -> Answer:
    """The account's vCPUs of EMR Serverless against the application's maximum."""
    found = application(account)
    if found is None:
        return unknown("deploy.emr_serverless.application_id is not set")
    quotas = [
        quota
        for page in account.client("service-quotas")
        .get_paginator("list_service_quotas")
        .paginate(ServiceCode="emr-serverless")
        for quota in page["Quotas"]
        if "vcpu" in quota["QuotaName"].lower()
    ]
    if not quotas:
        return unknown("Service Quotas names no quota of vCPUs for emr-serverless")
    limit = float(quotas[0]["Value"])
    wanted = float(str(found.get("maximumCapacity", {}).get("cpu", "0")).split()[0].removesuffix("vCPU") or 0)
    text = f"{limit:,.0f} vCPUs, of which the application may take {f'{wanted:,.0f}' if wanted else 'all'}"
    if wanted > limit:
        return failed(text, "ask for a higher quota of concurrent vCPUs, or lower the application's maximum capacity")
    return passed(text)
