"""The Glue Data Catalog and Lake Formation.

Lake Formation decides besides IAM unless IAM_ALLOWED_PRINCIPALS has the permission:
https://docs.aws.amazon.com/lake-formation/latest/dg/change-settings.html
https://docs.aws.amazon.com/lake-formation/latest/dg/viewing-permissions.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from jobs.catalog.check import catalog_check
from jobs.common.aws import error_code
from jobs.common.findings import Answer, failed, passed, unknown
from jobs.lake.ledger import queries
from jobs.lake.store import lake_at
from movement.doctor.checks import Account
from movement.doctor.roles import job_role

BY_IAM = "IAM_ALLOWED_PRINCIPALS"
NEEDED = {"CREATE_TABLE", "DESCRIBE"}
_LATER = "the streaming job creates it at its start"


def check_database(account: Account) -> Answer:
    """The Glue database."""
    name = account.settings.database
    try:
        account.client("glue").get_database(Name=name)
    except ClientError as error:
        if error_code(error) != "EntityNotFoundException":
            raise
        if _has_batches(account):
            return failed(f"the database {name} does not exist, but the lake has batches", "movement catalog repair")
        return unknown(f"the database {name} does not exist yet; {_LATER}")
    return passed(name)


def check_tables(account: Account) -> Answer:
    """Tables and partitions against the lake's files, as `movement catalog check` compares them."""
    differences = catalog_check(account.settings).differences()
    missing = [each.table for each in differences if each.missing]
    if missing and not _has_batches(account):
        return unknown(f"no table {', '.join(missing)} yet; {_LATER}")
    wrong = [
        f"{each.table}: {'missing' if each.missing else f'{each.count:,} partitions differ from the files'}"
        for each in differences
        if each.count
    ]
    if wrong:
        return failed("; ".join(wrong), "movement catalog check names them, movement catalog repair corrects them")
    return passed(", ".join(f"{each.table} ({each.partitions:,} partitions)" for each in differences))


def check_lake_formation(account: Account) -> Answer:
    """Whether IAM alone decides about the database, or the job's role has grants."""
    name = account.settings.database
    granted: dict[str, set[str]] = {}
    for each in _permissions(account, {"Database": {"Name": name}}):
        granted.setdefault(each["Principal"]["DataLakePrincipalIdentifier"], set()).update(each["Permissions"])
    if "ALL" in granted.get(BY_IAM, ()):
        return passed(f"IAM alone decides about {name}")
    role = job_role(account)
    if role is not None and ("ALL" in granted.get(role, ()) or granted.get(role, set()) >= NEEDED):
        return unknown(
            f"{role} has {', '.join(sorted(granted[role]))} on {name}; its permissions on tables were not looked at",
            "tables that others have created need a grant each: infra/cloudformation/lake-formation.yaml has them",
        )
    if not granted:
        return unknown(
            f"no permission on {name} is visible to the caller",
            "run doctor as a data lake administrator, or look at the database's permissions in Lake Formation",
        )
    grant = f"aws lakeformation grant-permissions --principal DataLakePrincipalIdentifier={role or 'ROLE-ARN'}"
    return failed(
        f"Lake Formation decides about {name}, and the job's role has no {', '.join(sorted(NEEDED))}",
        f'{grant} --permissions ALL --resource \'{{"Database": {{"Name": "{name}"}}}}\'',
    )


def _permissions(account: Account, resource: Any) -> Iterator[dict[str, Any]]:
    client, token = account.client("lakeformation"), dict[str, Any]()
    while True:
        answer = client.list_permissions(Resource=resource, **token)
        yield from answer["PrincipalResourcePermissions"]
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


def _has_batches(account: Account) -> bool:
    return bool(list(queries(lake_at(account.settings.lake))))
