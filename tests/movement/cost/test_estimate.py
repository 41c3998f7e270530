"""The bill: how AWS rounds records, files as they are written since ADR 18, and the stack that the templates create."""

from __future__ import annotations

import pytest

from movement.cost import estimate
from movement.cost.estimate import GB, PARTS, PLATFORMS, SECONDS, Line, Platform, Workload, bill
from movement.cost.prices import load_prices
from tests.helpers.templates import load

PRICES = load_prices().prices
SMALL = Workload(1, 415)


def line(workload: Workload, platform: Platform, what: str) -> Line:
    (found,) = (each for each in bill(workload, platform, PRICES) if each.what == what)
    return found


def total(workload: Workload, platform: Platform) -> float:
    return sum(each.amount for each in bill(workload, platform, PRICES))


@pytest.mark.parametrize(("size", "billed"), [(415, 5120), (5120, 5120), (5121, 10240), (12_000, 15_360)])
def test_firehose_bills_each_record_in_steps_of_5_kb(size: int, billed: int) -> None:
    workload = Workload(1, size)
    records = 1e6 / size * SECONDS
    assert line(workload, "firehose", "Firehose").quantity == pytest.approx(records * billed / GB)
    assert line(workload, "glue", "Firehose").quantity == pytest.approx(records * billed / GB)


def test_an_on_demand_stream_bills_each_record_in_steps_of_1_kb_and_each_reader_for_its_bytes() -> None:
    assert line(SMALL, "glue", "records in").quantity == pytest.approx(SMALL.gb * 1024 / 415)
    assert line(SMALL, "glue", "records out").quantity == line(SMALL, "glue", "records out, once more").quantity
    assert line(SMALL, "glue", "records out").quantity == pytest.approx(SMALL.gb)


def test_a_provisioned_stream_has_shards_for_its_bytes_and_for_its_records() -> None:
    assert Workload(1, 415, on_demand=False).shards == 4  # 2,410 records a second
    assert Workload(3, 100_000, on_demand=False).shards == 4  # 3 MB a second
    units = line(Workload(1, 30_000, on_demand=False), "glue", "PUT units").quantity
    assert units == pytest.approx(2 * 1e6 / 30_000 * SECONDS / 1e6)


def test_a_batch_writes_one_file_a_partition_so_put_requests_cost_a_few_dollars_at_100_mb_a_second() -> None:
    put = line(Workload(100, 415, trigger_seconds=60), "glue", "PUT and LIST requests")
    assert 3 < put.amount < 6  # 823 $ when each task wrote its own files
    more = line(Workload(100, 415, trigger_seconds=60, partitions=1000), "glue", "PUT and LIST requests")
    assert more.quantity - put.quantity == pytest.approx(SECONDS / 60 * 990 / 1000)


def test_more_records_need_more_workers_and_few_need_the_smallest_job() -> None:
    assert line(SMALL, "glue", "2 workers G.1X").quantity == 2 * 730
    assert line(Workload(100, 415), "glue", "3 workers G.1X").quantity == 3 * 730
    assert line(SMALL, "flink", "1 + 1 KPU").quantity == 2 * 730
    assert line(SMALL, "flink", "50 GB a KPU").quantity == 50


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_bill_has_known_parts_and_grows_with_the_stream(platform: Platform) -> None:
    assert {each.part for each in bill(SMALL, platform, PRICES)} <= set(PARTS)
    assert total(Workload(0.001, 415), platform) < total(SMALL, platform) < total(Workload(10, 415), platform)


def test_a_stream_without_the_batch_path_or_a_longer_retention_does_not_pay_for_them() -> None:
    lean = bill(Workload(1, 415, retention_hours=24, batch_path=False), "glue", PRICES)
    assert not [each for each in lean if each.part == "batch path"]
    assert sum(each.amount for each in lean if each.what == "kept beyond 24 h") == 0


def test_the_bill_is_that_of_the_stack_in_the_templates() -> None:
    parameters = load("root")["Parameters"]
    defaults = Workload(1, 415)
    assert defaults.on_demand == (parameters["StreamMode"]["Default"] == "ON_DEMAND")
    assert defaults.retention_hours == parameters["RetentionHours"]["Default"]
    assert defaults.batch_path == (parameters["BatchPath"]["Default"] == "yes")
    assert parameters["Workers"]["Default"] == estimate.GLUE_WORKERS == estimate.EMR_CORE_NODES
    delivery = load("root")["Resources"]["Delivery"]["Properties"]["Parameters"]
    assert delivery["BufferSeconds"] == estimate.BUFFER_SECONDS
    assert delivery["BufferMegabytes"] * 2**20 == estimate.BUFFER_BYTES
    assert load("root")["Parameters"]["CrawlSeconds"]["Default"] == estimate.CRAWL_SECONDS
    alarms = [each for each in load("alarms")["Resources"].values() if each["Type"] == "AWS::CloudWatch::Alarm"]
    batch_path = [each for each in alarms if each.get("Condition") == "HasBatchPath"]
    assert (len(alarms) - len(batch_path), len(batch_path)) == (estimate.ALARMS, estimate.BATCH_PATH_ALARMS)
    endpoints = [
        each["Properties"]
        for each in load("network")["Resources"].values()
        if each["Type"] == "AWS::EC2::VPCEndpoint" and each["Properties"]["VpcEndpointType"] == "Interface"
    ]
    assert len(endpoints) == estimate.ENDPOINTS
    assert {len(each["SubnetIds"]) for each in endpoints} == {estimate.ZONES}
