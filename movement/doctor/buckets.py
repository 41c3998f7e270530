"""The lake's bucket and the bucket of releases: owner, region, key, versioning, conditional writes.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

from botocore.exceptions import ClientError

from jobs.common.aws import error_code
from jobs.common.findings import Answer, failed, passed, unknown
from movement.doctor.checks import EMBEDDED, Account

_NO_BUCKET = "the lake is a local folder: no bucket"


def artifacts_bucket(account: Account) -> str | None:
    """The bucket of `deploy.artifacts`; None if it is not set."""
    artifacts = account.settings.deploy.artifacts
    return artifacts.removeprefix("s3://").partition("/")[0] if artifacts else None


def check_lake_owner(account: Account) -> Answer:
    """Whether the bucket belongs to the caller's account: a name that somebody else took first would take the data."""
    return _owner(account, account.bucket, _NO_BUCKET)


def check_artifacts_owner(account: Account) -> Answer:
    """The same for the bucket of releases, whose code the job runs."""
    return _owner(account, artifacts_bucket(account), "deploy.artifacts is not set")


def _owner(account: Account, bucket: str | None, why_none: str) -> Answer:
    if bucket is None:
        return unknown(why_none)
    s3 = account.client("s3")
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error_code(error) not in ("403", "404"):
            raise
        if error_code(error) == "404":
            return failed(
                f"the bucket {bucket} does not exist", "create it: movement deploy stack, or movement local up"
            )
        return unknown(
            f"{bucket}: AWS answers 403: the caller lacks s3:ListBucket, or the bucket is another account's",
            "allow s3:ListBucket on it to the caller; if it is not yours, choose another name",
        )
    if account.is_embedded("s3"):
        return unknown(f"{bucket} exists; {EMBEDDED} does not check owners")
    try:
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account.number)
    except ClientError as error:
        if error_code(error) != "403":
            raise
        return failed(f"{bucket} is not of the account {account.number}", "use a bucket of the account itself")
    return passed(f"{bucket} is of the account {account.number}")


def check_lake_region(account: Account) -> Answer:
    """Whether the bucket is in the job's region."""
    return _region(account, account.bucket, _NO_BUCKET)


def check_artifacts_region(account: Account) -> Answer:
    """The same for the bucket of releases. CloudFormation takes Lambda code from its own region only."""
    return _region(account, artifacts_bucket(account), "deploy.artifacts is not set")


def _region(account: Account, bucket: str | None, why_none: str) -> Answer:
    if bucket is None:
        return unknown(why_none)
    found = account.client("s3").head_bucket(Bucket=bucket).get("BucketRegion")
    if found is None:
        return unknown(f"{bucket}: the answer names no region")
    if found != account.region:
        return failed(
            f"{bucket} is in {found}, the job in {account.region}",
            f"AWS_REGION={found}, or another bucket: traffic between regions costs, and an S3 endpoint of a private "
            "network reaches its own region only",
        )
    return passed(str(found))


def check_lake_key(account: Account) -> Answer:
    """The key that encrypts the lake, and whether it is enabled."""
    if account.bucket is None:
        return unknown(_NO_BUCKET)
    key = account.lake_key
    if key is not None:
        return describe_key(account, key)
    return unknown(f"{EMBEDDED} encrypts nothing") if account.is_embedded("s3") else passed("keys of S3 (SSE-S3)")


def describe_key(account: Account, key: str) -> Answer:
    """Whether a KMS key is enabled."""
    found = account.client("kms").describe_key(KeyId=key)["KeyMetadata"]
    if found["KeyState"] != "Enabled":
        return failed(f"{found['Arn']} is {found['KeyState']}", "enable the key, or cancel its deletion")
    return passed(f"{found['Arn']} is enabled")


def check_versioning(account: Account) -> Answer:
    """Versions are what a deleted or overwritten ledger is restored from."""
    if account.bucket is None:
        return unknown(_NO_BUCKET)
    status = account.client("s3").get_bucket_versioning(Bucket=account.bucket).get("Status", "off")
    if status == "Enabled":
        return passed("enabled")
    if account.is_embedded("s3"):
        return unknown(f"{status}; {EMBEDDED} forgets everything at its end anyway")
    return failed(
        f"{status}: an overwritten or deleted ledger entry cannot be restored",
        f"aws s3api put-bucket-versioning --bucket {account.bucket} --versioning-configuration Status=Enabled",
    )


def check_conditional_writes(account: Account) -> Answer:
    """The ledger and the lease need If-None-Match and If-Match; only a write shows that they work."""
    return unknown("no read call can prove them", "movement deploy smoke proves them")
