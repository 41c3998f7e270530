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
from jobs.catalog.tables import lake_tables
from jobs.common.aws import error_code
from jobs.common.findings import Answer, failed, passed, unknown
from jobs.lake.ledger import queries
from jobs.lake.store import lake_at
from jobs.schema.table import load_contract
from movement.doctor.checks import Account
from movement.doctor.roles import job_role

BY_IAM = "IAM_ALLOWED_PRINCIPALS"
# Of the streaming job, as infra/cloudformation/lake-formation.yaml grants them.
NEEDED = {"CREATE_TABLE", "DESCRIBE"}
NEEDED_ON_TABLES = {"ALTER", "DELETE", "DESCRIBE", "INSERT", "SELECT"}
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
    """Whether IAM alone decides about the database and its tables, or the job's role has grants on both.

    A grant on the database says nothing about the tables: each has its own, or one on all tables.
    """
    name, role = account.settings.database, job_role(account)
    whole = _granted(account, {"Database": {"Name": name}})
    if not whole:
        return unknown(
            f"no permission on {name} is visible to the caller",
            "run doctor as a data lake administrator, or look at the database's permissions in Lake Formation",
        )
    if not _suffices(whole, role, NEEDED):
        return failed(
            f"Lake Formation decides about {name}, and the job's role has no {', '.join(sorted(NEEDED))}",
            _grants(name, role),
        )
    by_iam = "ALL" in whole.get(BY_IAM, ())
    everywhere = _granted(account, {"Table": {"DatabaseName": name, "TableWildcard": {}}})
    if not _suffices(everywhere, role, NEEDED_ON_TABLES):
        tables = sorted(_tables(account))
        own = {each: _granted(account, {"Table": {"DatabaseName": name, "Name": each}}) for each in tables}
        refused = [each for each, granted in own.items() if not _suffices(granted, role, NEEDED_ON_TABLES)]
        unseen = [each for each in refused if not own[each]]
        if refused != unseen:
            return failed(
                f"Lake Formation decides about the tables {', '.join(refused)} of {name}, and the job's role has no "
                f"{', '.join(sorted(NEEDED_ON_TABLES))}",
                _grants(name, role),
            )
        if unseen or not tables:
            who = "IAM alone decides" if by_iam else f"{role} has its permissions"
            seen = (
                f"no permission on {', '.join(unseen)} is visible to the caller" if unseen else "there is no table yet"
            )
            return unknown(
                f"{who} on the database {name}; {seen}",
                "tables that others have created need a grant each: infra/cloudformation/lake-formation.yaml has them",
            )
    if by_iam and "ALL" in everywhere.get(BY_IAM, ()):
        return passed(f"IAM alone decides about {name} and its tables")
    return passed(f"{name} and its tables: IAM alone decides, or {role} has the permissions")


def _suffices(granted: dict[str, set[str]], role: str | None, needed: set[str]) -> bool:
    """Whether IAM alone decides, or the role has what is needed."""
    mine = granted.get(role, set()) if role else set()
    return "ALL" in granted.get(BY_IAM, ()) or "ALL" in mine or mine >= needed


def _grants(name: str, role: str | None) -> str:
    """The commands that give the job's role its permissions on the database and on all tables."""
    grant = f"aws lakeformation grant-permissions --principal DataLakePrincipalIdentifier={role or 'ROLE-ARN'}"
    return (
        f'{grant} --permissions {" ".join(sorted(NEEDED))} --resource \'{{"Database": {{"Name": "{name}"}}}}\'; '
        f"{grant} --permissions {' '.join(sorted(NEEDED_ON_TABLES))} --resource "
        f'\'{{"Table": {{"DatabaseName": "{name}", "TableWildcard": {{}}}}}}\''
    )


def _tables(account: Account) -> set[str]:
    """The tables of the streaming job that exist."""
    contract = load_contract(account.settings.contract)
    pages = account.client("glue").get_paginator("get_tables").paginate(DatabaseName=account.settings.database)
    there = {each["Name"] for page in pages for each in page["TableList"]}
    return there & {table.name for table in lake_tables(contract)}


def _granted(account: Account, resource: Any) -> dict[str, set[str]]:
    """The permissions on a resource by principal, as far as the caller may see them."""
    granted: dict[str, set[str]] = {}
    for each in _permissions(account, resource):
        granted.setdefault(each["Principal"]["DataLakePrincipalIdentifier"], set()).update(each["Permissions"])
    return granted


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
