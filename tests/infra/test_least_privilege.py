"""Every AWS call of the whole run is allowed by the caller's policy, and the policies allow nothing else.

A failure names the part, the call and the statement: the remedy is one line in infra/cloudformation, or, for what AWS
does in a part's name, an entry in infra/aws_needs.yaml.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import yaml

from local.batch_path import ResourceNames
from local.server import RunningServer
from tests.helpers.call_recorder import ACCOUNT, REGION, Call, Recorder
from tests.helpers.lakes import make_lake
from tests.helpers.paths import ROOT
from tests.helpers.policies import Statement, in_vain, policies, refused
from tests.helpers.whole_run import WholeRun

NEEDS = ROOT / "infra" / "aws_needs.yaml"
# Part of the recorded run → the policy that it has. A command that comes to the run gets a line here.
POLICIES = {
    "producer": "access.ProducerPolicy",
    "stream-job": "access.StreamJobPolicy",
    "batch-job": "access.BatchJobPolicy",
    "parity": "access.ParityPolicy",
    "replay": "access.ReplayPolicy",
    "compact": "access.CompactPolicy",
    "gold": "access.GoldPolicy",
    "report": "access.ReportPolicy",
    "status": "access.StatusPolicy",
    "crawler-trigger": "batch.CrawlerTriggerRole",
    "gluejob-trigger": "batch.GlueJobTriggerRole",
}
_numbers = itertools.count(1)


def needs() -> dict[str, list[str]]:
    content = yaml.safe_load(NEEDS.read_text(encoding="utf-8"))
    for statement, entry in content.items():
        assert entry.keys() == {"actions", "why", "source"}, statement
        source = entry["source"].partition(" ")[0]
        assert source.startswith(("https://", "docs/", "tests/")), f"{statement}: {source}"
    return {statement: entry["actions"] for statement, entry in content.items()}


@pytest.mark.spark
@pytest.mark.aws
def test_each_part_may_do_what_it_does_and_nothing_else(
    embedded_aws: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = f"{os.getpid()}-{next(_numbers)}"
    names = ResourceNames(*(f"{part}-{number}" for part in ("crawler", "job", "objects", "crawls", "rule")))
    with Recorder(embedded_aws.endpoint) as recorder:
        monkeypatch.setenv("AWS_ENDPOINT_URL", recorder.endpoint)
        settings = make_lake(
            tmp_path,
            "spark.master=local[1]",
            "stream.shards=2",
            "source.max_records_per_batch=25",
            "observe.metrics=cloudwatch",
        )
        WholeRun(settings, recorder.endpoint, tmp_path, names).do()
        calls, unknown = set(recorder.calls), sorted(recorder.unknown)
    bucket, _, prefix = settings.lake.removeprefix("s3://").partition("/")
    all_policies = policies(
        BucketName=bucket,
        LakePrefix=prefix,
        Database=settings.database,
        StreamName=settings.stream.name,
        CrawlerName=names.crawler,
        BatchJobName=names.job,
    )
    parts = {part: all_policies[name] for part, name in POLICIES.items()}

    assert unknown == [], "say in tests/helpers/call_recorder.py which permissions these requests need"
    assert {call.part for call in calls} == POLICIES.keys(), "every part was seen, and each has a policy"
    assert refused(calls, parts) == []
    assert in_vain(calls, parts, needs()) == []


def test_what_a_part_is_allowed_without_being_recorded_has_a_written_reason() -> None:
    recorded = set(POLICIES.values())
    others = {name: statements for name, statements in policies().items() if name not in recorded}
    assert in_vain([], others, needs()) == []


def test_no_reason_stands_for_a_statement_that_is_gone() -> None:
    known = {each.where for statements in policies().values() for each in statements}
    assert needs().keys() - known == set()


def test_actions_are_written_out_and_no_data_is_open() -> None:
    alone = {  # actions for which AWS knows no resource
        "cloudwatch:PutMetricData",
    }
    for statements in policies().values():
        for each in statements:
            assert not any("*" in action for action in each.actions), each.where
            if "*" in each.resources:
                assert set(each.actions) <= alone, f"{each.where}: a resource '*'"
                assert each.conditional, f"{each.where}: a resource '*' without a condition"
            for resource in each.resources:
                if resource.startswith("arn:aws:s3:::") and "/" in resource:
                    folder = resource.removeprefix("arn:aws:s3:::").partition("/")[2]
                    assert folder.partition("/")[0] not in ("", "*"), f"{each.where}: all of a bucket"
                    assert folder != "lake/*", f"{each.where}: all of the lake"


READS = Statement("x.Role.Read", ("s3:GetObject",), ("arn:aws:s3:::b/raw/*",), False)
READ = Call("job", "s3:GetObject", "arn:aws:s3:::b/raw/1", "GET object")


def test_a_call_that_is_not_allowed_is_named_with_its_part() -> None:
    other = Call("job", "s3:GetObject", "arn:aws:s3:::b/rawer/1", "GET object")
    write = Call("job", "s3:PutObject", "arn:aws:s3:::b/raw/1", "PUT object")

    assert refused([READ], {"job": [READS]}) == []
    assert refused([READ, other, write], {"job": [READS]}) == [
        "job needs s3:GetObject on arn:aws:s3:::b/rawer/1 (GET object), and no statement of its policy allows it",
        "job needs s3:PutObject on arn:aws:s3:::b/raw/1 (PUT object), and no statement of its policy allows it",
    ]


def test_what_is_allowed_in_vain_is_named_with_its_statement() -> None:
    wide = Statement(
        "x.Role.Read", ("s3:GetObject", "s3:PutObject"), ("arn:aws:s3:::b/raw/*", "arn:aws:s3:::c/*"), False
    )

    assert in_vain([READ], {"job": [READS]}, {}) == []
    assert in_vain([READ], {"job": [wide]}, {}) == [
        "x.Role.Read allows arn:aws:s3:::c/*, and job never touched it",
        "x.Role.Read allows s3:PutObject, and job never called it",
    ]
    assert in_vain([], {"job": [READS]}, {"x.Role.Read": ["s3:GetObject"]}) == []
    assert in_vain([READ], {"job": [READS]}, {"x.Role.Read": ["s3:GetObject", "s3:Gone"]}) == [
        "aws_needs.yaml: x.Role.Read does not allow s3:Gone: take it out",
        "aws_needs.yaml: x.Role.Read: s3:GetObject was called: take it out",
    ]


def test_requests_are_understood_as_the_permissions_they_take() -> None:
    from tests.helpers.call_recorder import permissions

    s3 = {"Authorization": f"AWS4-HMAC-SHA256 Credential=part-x/20261124/{REGION}/s3/aws4_request"}
    glue = f"arn:aws:glue:{REGION}:{ACCOUNT}"
    delete = b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key>l/a</Key></Object></Delete>'

    def found(*request: object, status: int = 200) -> set[tuple[str, str]]:
        return {(action, resource) for action, resource, _ in permissions(*request, status)}  # type: ignore[arg-type]

    assert found("GET", "/b/l/k%20k", s3, b"") == {("s3:GetObject", "arn:aws:s3:::b/l/k k")}
    assert ("s3:ListBucket", "arn:aws:s3:::b") in found("HEAD", "/b/l/k", s3, b"", status=404)
    assert found("POST", "/b?delete", s3, delete) == {("s3:DeleteObject", "arn:aws:s3:::b/l/a")}
    assert found("PUT", "/b/to", {**s3, "x-amz-copy-source": "/b/from"}, b"") == {
        ("s3:PutObject", "arn:aws:s3:::b/to"),
        ("s3:GetObject", "arn:aws:s3:::b/from"),
    }
    assert found(
        "POST", "/", {"X-Amz-Target": "AWSGlue.UpdateTable"}, b'{"DatabaseName":"d","TableInput":{"Name":"t"}}'
    ) == {("glue:UpdateTable", f"{glue}:{resource}") for resource in ("catalog", "database/d", "table/d/t")}
