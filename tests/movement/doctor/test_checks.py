"""How checks run: an answer whatever AWS says, and nothing passes that was not seen."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from jobs.common.errors import AwsAccessError, ConfigurationError
from jobs.common.findings import Answer, passed
from jobs.settings.settings import Settings
from movement.deploy.iam_simulator import decisions
from movement.doctor import releases
from movement.doctor.account import check_caller, check_clock, check_region
from movement.doctor.catalog import check_lake_formation
from movement.doctor.checks import Account, Check, run
from movement.doctor.network import leads_out, serves
from movement.doctor.platforms import check_platform, check_security_configuration
from movement.doctor.roles import Permission, check_permissions, check_trust, parse_roles, permissions
from movement.doctor.stream import check_consumers
from tests.helpers.fake_iam import FakeIamSimulator

ROLE = "arn:aws:iam::123456789012:role/job"
NAMES = {
    "partition": "aws",
    "region": "eu-west-1",
    "account": "123456789012",
    "bucket": "a-lake",
    "prefix": "lake",
    "database": "db",
    "stream": "trips",
    "namespace": "MovementLake",
    "key:kinesis": "arn:aws:kms:eu-west-1:123456789012:key/1",
    "key:s3": None,
}


class FakeService:
    """A service whose operations give scripted answers: `FakeService(list_things=lambda **arguments: …)`."""

    def __init__(self, **operations: Any) -> None:
        self.__dict__.update(operations)


class FakeAccount(Account):
    """An account whose services are scripted objects."""

    def __init__(self, **services: Any) -> None:
        super().__init__(Settings())
        self._services = services
        self.identity = {"Account": "123456789012", "Arn": ROLE}

    def client(self, service: str) -> Any:
        return self._services[service]

    def is_embedded(self, service: str) -> bool:
        return False


def refusal(code: str, operation: str = "DescribeThing") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "why"}}, operation)


def asked(error: Exception) -> tuple[str, str]:
    def ask(_: Account) -> Answer:
        raise error

    (found,) = run([Check("it", ask)], FakeAccount())
    return found.status, found.found


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (refusal("AccessDeniedException"), "unknown", "AWS refused DescribeThing"),
        (refusal("UnauthorizedOperation"), "unknown", "AWS refused DescribeThing"),
        (refusal("ThrottlingException"), "unknown", "ThrottlingException: why"),
        (refusal("NotImplemented"), "unknown", "lacks DescribeThing"),
        (refusal("ResourceNotFoundException"), "fail", "why"),
        (refusal("InvalidSubnetID.NotFound"), "fail", "why"),
        (refusal("NoSuchBucket"), "fail", "NoSuchBucket"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "unknown", "127.0.0.1:1"),
        (NoCredentialsError(), "unknown", "no AWS credentials"),
        (KeyError("Shards"), "unknown", "does not understand: KeyError('Shards')"),
        (ConfigurationError("contract: no such file"), "unknown", "no such file"),
    ],
)
def test_an_error_is_an_answer_and_never_a_pass(error: Exception, status: str, told: str) -> None:
    found = asked(error)

    assert found[0] == status
    assert told in found[1]


def test_an_error_of_ours_is_judged_by_aws_answer_behind_it() -> None:
    error = AwsAccessError("list the lake: does not exist")
    error.__cause__ = refusal("NoSuchBucket", "ListObjectsV2")

    assert asked(error) == ("fail", "ListObjectsV2: NoSuchBucket: why")


def test_without_credentials_nothing_more_is_asked() -> None:
    class Nobody:
        def get_caller_identity(self) -> Any:
            raise NoCredentialsError

    account = FakeAccount(sts=Nobody())
    del account.identity
    later: list[str] = []

    def ask(_: Account) -> Answer:
        later.append("asked")
        return passed("")

    caller, other = run([Check("caller", check_caller), Check("other", ask)], account)

    assert (caller.status, caller.found) == ("fail", "no AWS credentials")
    assert (other.status, other.found) == ("unknown", "not asked: no AWS credentials")
    assert later == []


def test_a_region_that_does_not_exist_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, status in (("eu-west-1", "pass"), ("eu-west1", "unknown")):
        monkeypatch.setenv("AWS_REGION", name)
        assert check_region(FakeAccount()).status == status


@pytest.mark.parametrize(
    ("date", "status"), [("Mon, 23 Nov 2026 10:00:00 GMT", "pass"), ("Mon, 23 Nov 2026 09:50:00 GMT", "fail")]
)
def test_a_clock_that_is_ten_minutes_off_fails(date: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sts:
        def get_caller_identity(self) -> Any:
            return {"ResponseMetadata": {"HTTPHeaders": {"date": date}}}

    monkeypatch.setattr("movement.doctor.account.time.time", lambda: 1_795_428_000.5)

    assert check_clock(FakeAccount(sts=Sts())).status == status


def statements(*, without: str = "") -> list[dict[str, Any]]:
    """The streaming job's permissions as a policy, without one action."""
    return [
        {
            "Action": [action for action in each.actions if action != without],
            "Resource": each.resources,
            "Condition": {"StringEquals": dict(each.context)},
        }
        for each in permissions("stream-job", NAMES)
    ]


def test_a_role_with_every_permission_passes_and_one_that_lacks_a_call_is_told_which() -> None:
    wanted = list(permissions("stream-job", NAMES))
    complete = check_permissions(FakeAccount(iam=FakeIamSimulator({ROLE: statements()})), ROLE, wanted, "attach it")
    lacking = FakeIamSimulator({ROLE: statements(without="glue:BatchCreatePartition")})
    denied = check_permissions(FakeAccount(iam=lacking), ROLE, wanted, "attach it")

    assert complete.status == "pass"
    assert (denied.status, denied.remedy) == ("fail", "attach it")
    assert f"{ROLE} may not: glue:BatchCreatePartition on arn:aws:glue:eu-west-1:123456789012:catalog" in denied.found
    assert "and 2 more" in denied.found


def test_a_condition_that_doctor_has_no_value_for_leaves_the_role_unknown() -> None:
    policy = [{"Action": ["s3:GetObject"], "Resource": ["*"], "Condition": {"StringEquals": {"aws:SourceVpce": "x"}}}]
    wanted = [Permission(("s3:GetObject",), ("arn:aws:s3:::b/k",))]

    found = check_permissions(FakeAccount(iam=FakeIamSimulator({ROLE: policy})), ROLE, wanted, "")

    assert (found.status, "aws:SourceVpce" in found.found) == ("unknown", True)


def test_a_simulator_that_answers_nothing_is_no_pass() -> None:
    assert check_permissions(FakeAccount(iam=FakeIamSimulator({ROLE: []})), ROLE, [], "").status == "unknown"


def test_both_shapes_of_the_simulators_answers_are_read() -> None:
    earlier = [{"EvalActionName": "a", "EvalResourceName": "r", "EvalDecision": "explicitDeny"}]
    by_organization = {"OrganizationsDecisionDetail": {"AllowedByOrganizations": False}}
    now = {
        "EvalActionName": "a",
        "EvalDecision": "explicitDeny",
        "ResourceSpecificResults": [
            {"EvalResourceName": "r", "EvalResourceDecision": "allowed"},
            {"EvalResourceName": "s", "EvalResourceDecision": "explicitDeny", "MissingContextValues": ["k"]},
        ],
    }

    assert list(decisions(earlier)) == [("a", "r", "explicitDeny", [], False)]
    assert list(decisions([now])) == [("a", "r", "allowed", [], False), ("a", "s", "explicitDeny", ["k"], False)]
    assert next(decisions([earlier[0] | by_organization]))[-1] is True


def test_permissions_have_real_names_and_leave_out_keys_that_are_not_in_use() -> None:
    found = list(permissions("stream-job", NAMES))
    keys = [each for each in found if any(action.startswith("kms:") for action in each.actions)]

    assert not any("*" in resource for each in found for resource in each.resources if resource != "*")
    assert not any("{" in resource for each in found for resource in each.resources)
    assert [(each.actions, each.resources) for each in keys] == [
        (("kms:Decrypt",), ("arn:aws:kms:eu-west-1:123456789012:key/1",))
    ], "the stream has a key of the customer's, the lake none"
    assert keys[0].context == (("kms:ViaService", "kinesis.eu-west-1.amazonaws.com"),)


def trust(service: str | list[str], **condition: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {"Statement": [statement | ({"Condition": condition} if condition else {})]}


SOURCE = {"StringEquals": {"aws:SourceAccount": "123456789012"}}


@pytest.mark.parametrize(
    ("document", "application", "status"),
    [
        (trust("glue.amazonaws.com"), None, "pass"),
        (trust(["ec2.amazonaws.com", "glue.amazonaws.com"]), None, "pass"),
        (trust("emr-serverless.amazonaws.com"), None, "fail"),
        (trust("glue.amazonaws.com", **SOURCE), None, "unknown"),
        (trust("emr-serverless.amazonaws.com", **SOURCE), "00abc", "pass"),
        ({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}}, None, "fail"),
    ],
)
def test_a_role_that_the_platform_may_not_assume_fails(document: Any, application: str | None, status: str) -> None:
    class Iam:
        def get_role(self, RoleName: str) -> Any:
            return {"Role": {"AssumeRolePolicyDocument": document}}

    account = FakeAccount(iam=Iam())
    deploy = {"role_arn": ROLE, "emr_serverless": {"application_id": application}}
    account.settings = Settings.model_validate({"deploy": deploy})

    assert check_trust(account).status == status


@pytest.mark.parametrize("given", ["producer", "nobody=arn:aws:iam::1:role/x", "producer=arn:aws:iam::1:user/x"])
def test_a_role_that_cannot_be_checked_is_wrong_usage(given: str) -> None:
    assert parse_roles([f"producer={ROLE}"]) == {"producer": ROLE}
    with pytest.raises(ConfigurationError, match=f"--role {given}"):
        parse_roles([given])


@pytest.mark.parametrize(("yarn", "status"), [({}, "fail"), ({"spark.authenticate": "true"}, "pass")])
def test_a_cluster_whose_shuffle_service_would_refuse_every_executor_fails(yarn: dict[str, str], status: str) -> None:
    class Emr:
        def describe_cluster(self, ClusterId: str) -> Any:
            configurations = [
                {"Classification": "spark-defaults", "Properties": {"spark.authenticate": "true"}},
                {"Classification": "yarn-site", "Properties": yarn},
            ]
            return {"Cluster": {"Id": ClusterId, "Configurations": configurations}}

    account = FakeAccount(emr=Emr())
    account.settings = Settings.model_validate({"deploy": {"emr": {"cluster_id": "j-ABCDEFGHIJKLM"}}})

    assert check_security_configuration(account).status == status


def test_a_subnet_reaches_a_service_by_nat_or_by_an_endpoint_of_its_own_routes() -> None:
    nat = {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": "active"}
    gateway = {
        "ServiceName": "com.amazonaws.eu-west-1.s3",
        "VpcEndpointType": "Gateway",
        "State": "available",
        "RouteTableIds": ["rtb-1"],
    }

    assert leads_out(nat, public_addresses=False)
    assert not leads_out(nat | {"State": "blackhole"}, public_addresses=True)
    internet = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1", "State": "active"}
    assert not leads_out(internet, public_addresses=False)
    assert leads_out(internet, public_addresses=True)
    assert leads_out(internet | {"GatewayId": "vgw-1"}, public_addresses=False)
    assert serves(gateway, "s3", {"rtb-1"})
    assert not serves(gateway, "s3", {"rtb-2"})
    assert not serves(gateway | {"State": "pending"}, "s3", {"rtb-1"})
    assert not serves(gateway, "glue", {"rtb-1"})


@pytest.mark.parametrize(("throttled", "status"), [(0, "pass"), (5, "pass"), (5_000, "fail")])
def test_a_few_throttled_reads_are_no_failure_and_every_page_of_delivery_streams_is_read(
    throttled: int, status: str
) -> None:
    def list_delivery_streams(**arguments: Any) -> dict[str, Any]:
        last = arguments.get("ExclusiveStartDeliveryStreamName")
        return {"DeliveryStreamNames": ["of-ours" if last else "another"], "HasMoreDeliveryStreams": not last}

    def describe_delivery_stream(DeliveryStreamName: str) -> dict[str, Any]:
        source = {"KinesisStreamARN": "arn:ours" if DeliveryStreamName == "of-ours" else "arn:another"}
        return {"DeliveryStreamDescription": {"Source": {"KinesisStreamSourceDescription": source}}}

    points = [{"Sum": throttled, "SampleCount": 100_000}]
    account = FakeAccount(
        kinesis=FakeService(
            describe_stream_summary=lambda **_: {"StreamDescriptionSummary": {"StreamARN": "arn:ours"}},
            list_stream_consumers=lambda **_: {"Consumers": []},
        ),
        firehose=FakeService(
            list_delivery_streams=list_delivery_streams, describe_delivery_stream=describe_delivery_stream
        ),
        cloudwatch=FakeService(get_metric_statistics=lambda **_: {"Datapoints": points}),
        **{"lambda": FakeService(list_event_source_mappings=lambda **_: {"EventSourceMappings": []})},
    )
    found = check_consumers(account)
    assert found.status == status, found
    assert "Firehose of-ours" in found.found


IAM = "IAM_ALLOWED_PRINCIPALS"
DATABASE = {"CREATE_TABLE", "DESCRIBE"}
TABLES = {"ALTER", "DELETE", "DESCRIBE", "INSERT", "SELECT"}


def lake_formation(granted: dict[str, dict[str, set[str]]], tables: list[str]) -> Answer:
    """The check's answer. `granted`: permissions by principal, of the database, of `*` (all tables) or of a table."""

    def list_permissions(Resource: dict[str, Any], NextToken: str = "") -> dict[str, Any]:
        table = Resource.get("Table", {})
        place = "database" if "Database" in Resource else "*" if "TableWildcard" in table else table["Name"]
        if not NextToken:
            return {"PrincipalResourcePermissions": [], "NextToken": "2"}
        return {
            "PrincipalResourcePermissions": [
                {"Principal": {"DataLakePrincipalIdentifier": principal}, "Permissions": sorted(permissions)}
                for principal, permissions in granted.get(place, {}).items()
            ]
        }

    pages = FakeService(paginate=lambda **_: [{"TableList": [{"Name": name} for name in tables]}])
    account = FakeAccount(
        lakeformation=FakeService(list_permissions=list_permissions),
        glue=FakeService(get_paginator=lambda _: pages),
    )
    account.settings = Settings.model_validate({"deploy": {"role_arn": ROLE}})
    return check_lake_formation(account)


@pytest.mark.parametrize(
    ("granted", "tables", "status", "told"),
    [
        ({"database": {IAM: {"ALL"}}, "*": {IAM: {"ALL"}}}, ["raw"], "pass", "IAM alone decides"),
        ({"database": {IAM: {"ALL"}}, "raw": {IAM: {"ALL"}}}, ["raw", "another's"], "pass", "IAM alone decides"),
        ({"database": {IAM: {"ALL"}}, "raw": {"another": {"ALL"}}}, ["raw"], "fail", "about the tables raw"),
        ({"database": {IAM: {"ALL"}}}, ["raw"], "unknown", "no permission on raw is visible"),
        ({"database": {IAM: {"ALL"}}}, [], "unknown", "no table yet"),
        ({"database": {ROLE: DATABASE}}, [], "unknown", "no table yet"),
        ({"database": {ROLE: DATABASE}, "*": {ROLE: TABLES}}, ["raw"], "pass", "has the permissions"),
        (
            {"database": {ROLE: DATABASE}, "*": {ROLE: {"SELECT"}}, "raw": {ROLE: {"SELECT"}}},
            ["raw"],
            "fail",
            "tables raw",
        ),
        ({"database": {"another": {"ALL"}}}, ["raw"], "fail", "the job's role has no CREATE_TABLE, DESCRIBE"),
        ({}, ["raw"], "unknown", "is visible to the caller"),
    ],
)
def test_a_grant_on_the_database_alone_is_no_pass(
    granted: dict[str, dict[str, set[str]]], tables: list[str], status: str, told: str
) -> None:
    found = lake_formation(granted, tables)
    assert found.status == status, found
    assert told in found.found
    if status == "fail":
        assert found.remedy.count(f"DataLakePrincipalIdentifier={ROLE}") == 2
        assert '"TableWildcard": {}' in found.remedy


def a_cluster(state: str) -> FakeAccount:
    cluster = {"Id": "j-ABCDEFGHIJKLM", "ReleaseLabel": "emr-spark-8.1.0", "Status": {"State": state}}
    account = FakeAccount(emr=FakeService(describe_cluster=lambda ClusterId: {"Cluster": cluster}))
    account.settings = Settings.model_validate({"deploy": {"emr": {"cluster_id": "j-ABCDEFGHIJKLM"}}})
    return account


@pytest.mark.parametrize("state", ["TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"])
def test_a_cluster_that_does_not_come_back_has_another_remedy_than_one_that_starts(state: str) -> None:
    ended, starting = check_platform(a_cluster(state)), check_platform(a_cluster("BOOTSTRAPPING"))
    assert (ended.status, starting.status) == ("fail", "fail")
    assert "does not come back: create another one, set deploy.emr.cluster_id" in ended.remedy
    assert "wait for it" in starting.remedy
    assert check_platform(a_cluster("WAITING")).status == "pass"


@pytest.mark.parametrize(
    ("processors", "status", "told"),
    [
        ({"m6i.xlarge": {"x86_64"}}, "pass", "on x86_64"),
        ({"m6g.xlarge": {"aarch64"}}, "fail", "m6g.xlarge of the cluster runs on aarch64"),
        ({}, "unknown", "no instances"),
        (refusal("UnauthorizedOperation", "DescribeInstanceTypes"), "unknown", "AWS refused DescribeInstanceTypes"),
    ],
)
def test_a_releases_processor_is_compared_with_that_of_the_clusters_instances(
    monkeypatch: pytest.MonkeyPatch, processors: Any, status: str, told: str
) -> None:
    def answer(*_: Any) -> Any:
        if isinstance(processors, Exception):
            raise processors
        return processors

    environment = {"python": "3.11", "processor": "x86_64", "interpreter": "/usr/bin/python3.11"}
    monkeypatch.setattr(releases, "release_folder", lambda _: ("a-bucket", "movement/0.1.0"))
    monkeypatch.setattr(releases, "_manifest", lambda *_: {"environments": {"environment.tar.gz": environment}})
    monkeypatch.setattr(releases, "cluster_processors", answer)
    account = a_cluster("WAITING")
    account._services["ec2"] = None
    (found,) = run([Check("it", releases.check_python)], account)
    assert (found.status, told in found.found) == (status, True), found
