"""The job's way to AWS from private subnets: a NAT gateway, or endpoints with private DNS.

https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/vpc-access.html
Kinesis needs a VPC: https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/jobs-spark-streaming-connectors.html
https://docs.aws.amazon.com/vpc/latest/privatelink/manage-dns-names.html
"""

from __future__ import annotations

from typing import Any

from jobs.common.findings import Answer, failed, passed, unknown
from movement.doctor.checks import Account
from movement.doctor.platforms import application, cluster, glue_job

_REMEDY = "infra/cloudformation/network.yaml has a network with every endpoint"


def needed_services(account: Account) -> list[str]:
    """The services that the job calls, as in the names of endpoints."""
    metrics = ["monitoring"] if account.settings.observe.metrics == "cloudwatch" else []
    logs = ["logs"] if account.settings.deploy.emr_serverless.application_id else []
    return ["s3", "kinesis-streams", "glue", *metrics, *logs]


def subnets(account: Account) -> list[str] | None:
    """The subnets of the job's machines; None if the job runs on Glue, or nowhere yet."""
    found = application(account)
    if found is not None:
        return list(found.get("networkConfiguration", {}).get("subnetIds", ()))
    machine = cluster(account)
    if machine is not None:
        return [str(machine.get("Ec2InstanceAttributes", {}).get("Ec2SubnetId") or "")]
    return None


def check_endpoints(account: Account) -> Answer:
    """Whether each subnet reaches each service that the job calls."""
    names = subnets(account)
    if names is None:
        return _glue_network(account)
    if not names:
        return failed(
            "the application has no subnets: Kinesis cannot be reached from it", f"give it private subnets; {_REMEDY}"
        )
    if not all(names):
        return unknown("the cluster does not name its subnet")
    ec2 = account.client("ec2")
    lacking = []
    for subnet in ec2.describe_subnets(SubnetIds=names)["Subnets"]:
        tables = _route_tables(ec2, subnet)
        # EMR gives the machines of a cluster public addresses in a public subnet; EMR Serverless has none.
        public = bool(subnet.get("MapPublicIpOnLaunch")) and application(account) is None
        if any(leads_out(route, public_addresses=public) for table in tables for route in table["Routes"]):
            continue
        found = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [subnet["VpcId"]]}])["VpcEndpoints"]
        routed = {table["RouteTableId"] for table in tables}
        lacking += [
            f"{subnet['SubnetId']}: {service}"
            for service in needed_services(account)
            if not any(serves(each, service, routed) for each in found)
        ]
    if lacking:
        return failed(f"no way to {', '.join(lacking)}", f"a NAT gateway, or the endpoints; {_REMEDY}")
    return passed(f"{len(names)} subnets reach {', '.join(needed_services(account))}")


def check_private_dns(account: Account) -> Answer:
    """Whether the services' usual names lead to the endpoints."""
    names = subnets(account)
    if names is None:
        return _glue_network(account)
    if not names or not all(names):
        return unknown("no subnets")
    ec2 = account.client("ec2")
    wrong = []
    for network in sorted({subnet["VpcId"] for subnet in ec2.describe_subnets(SubnetIds=names)["Subnets"]}):
        for attribute in ("enableDnsSupport", "enableDnsHostnames"):
            answer = ec2.describe_vpc_attribute(VpcId=network, Attribute=attribute)
            if not answer[attribute[0].upper() + attribute[1:]]["Value"]:
                wrong.append(f"{network}: {attribute} is off")
        found = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [network]}])["VpcEndpoints"]
        wrong += [
            f"{each['VpcEndpointId']} ({_service(each)}): no private DNS"
            for each in found
            if each.get("VpcEndpointType") == "Interface"
            and _service(each) in needed_services(account)
            and _service(each) != "s3"  # S3's usual names go by the gateway endpoint
            and not each.get("PrivateDnsEnabled")
        ]
    if wrong:
        return failed("; ".join(wrong), "turn it on: boto3 and S3A call the services by their usual names")
    return passed("on")


def _glue_network(account: Account) -> Answer:
    """Glue runs a job without connections in a network of its own, and another one in the connections' subnets."""
    job = glue_job(account)
    if job is None:
        return unknown("nothing is deployed yet")
    connections = job.get("Connections", {}).get("Connections", [])
    if connections:
        return unknown(f"the Glue job uses the connections {', '.join(connections)}, which doctor does not look into")
    return passed("Glue runs the job in its own network, which reaches AWS")


def _route_tables(ec2: Any, subnet: dict[str, Any]) -> list[dict[str, Any]]:
    """The subnet's route table, or the main one of its network."""
    own = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet["SubnetId"]]}])
    if own["RouteTables"]:
        return list(own["RouteTables"])
    main = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}, {"Name": "association.main", "Values": ["true"]}]
    return list(ec2.describe_route_tables(Filters=main)["RouteTables"])


def leads_out(route: dict[str, Any], *, public_addresses: bool) -> bool:
    """Whether a route leads to the internet, or to a network that may. An internet gateway needs `public_addresses`."""
    gateway = str(route.get("GatewayId") or "")
    by_gateway = gateway.startswith("vgw-") or (gateway.startswith("igw-") and public_addresses)
    other = route.get("NatGatewayId") or route.get("TransitGatewayId") or route.get("NetworkInterfaceId")
    is_default = route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State", "active") == "active"
    return is_default and (by_gateway or bool(other))


def _service(endpoint: dict[str, Any]) -> str:
    """`com.amazonaws.eu-west-1.kinesis-streams` → `kinesis-streams`."""
    return str(endpoint["ServiceName"]).rpartition(".")[2]


def serves(endpoint: dict[str, Any], service: str, routed: set[str]) -> bool:
    """Whether an endpoint is up and leads from these route tables to a service."""
    if _service(endpoint) != service or str(endpoint.get("State", "")).lower() != "available":
        return False
    return endpoint.get("VpcEndpointType") == "Interface" or bool(routed & set(endpoint.get("RouteTableIds", ())))
