"""Every check in the order of the report: what a later one needs comes first."""

from __future__ import annotations

from functools import partial

from movement.doctor import account as caller
from movement.doctor import buckets, catalog, network, platforms, releases, roles, stream
from movement.doctor.checks import Account, Check


def all_checks(account: Account) -> list[Check]:
    """The checks of an account. Each role of --role has one of its own."""
    components = [roles.JOB, *(name for name in account.roles if name != roles.JOB)]
    return [
        Check("region", caller.check_region),
        Check("caller", caller.check_caller),
        Check("clock", caller.check_clock),
        Check("lake: owner", buckets.check_lake_owner),
        Check("lake: region", buckets.check_lake_region),
        Check("lake: key", buckets.check_lake_key),
        Check("lake: versioning", buckets.check_versioning),
        Check("lake: conditional writes", buckets.check_conditional_writes),
        Check("stream", stream.check_stream),
        Check("stream: retention", stream.check_retention),
        Check("stream: key", stream.check_stream_key),
        Check("stream: read", stream.check_read),
        Check("stream: consumers", stream.check_consumers),
        Check("catalog: database", catalog.check_database),
        Check("catalog: tables and partitions", catalog.check_tables),
        Check(
            "catalog: Lake Formation",
            catalog.check_lake_formation,
            service="lakeformation",
            invented="has no Lake Formation: IAM and Lake Formation refuse nothing there",
        ),
        Check("role: trust", roles.check_trust, service="iam", invented="asks no role for its trust policy"),
        *(Check(f"role: {name}", partial(roles.check_role, component=name)) for name in components),
        Check("artifacts: owner", buckets.check_artifacts_owner),
        Check("artifacts: region", buckets.check_artifacts_region),
        Check("release: files", releases.check_release),
        Check("release: Python and processor", releases.check_python),
        Check("release: readable by the role", releases.check_release_readable),
        Check("platform", platforms.check_platform),
        Check("platform: security configuration", platforms.check_security_configuration),
        Check("network: ways to AWS", network.check_endpoints),
        Check("network: private DNS", network.check_private_dns),
        Check(
            "quota: shards", caller.check_shard_quota, service="kinesis", invented="counts no shards against a limit"
        ),
        Check(
            "quota: vCPUs of EMR Serverless",
            caller.check_vcpu_quota,
            service="service-quotas",
            invented="has no quotas of EMR Serverless",
        ),
    ]
