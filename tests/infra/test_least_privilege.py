"""The policies allow every recorded AWS call of the component that made it, and nothing else.

A failure names the component, the call and the statement. To fix it, change a line in infra/cloudformation, or add an
entry to infra/aws_needs.yaml for a call that AWS makes on behalf of the component.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import yaml

from local.batch_path import ResourceNames
from local.server import RunningServer
from tests.helpers.call_recorder import ACCOUNT, REGION, Call, Recorder, permissions
from tests.helpers.lakes import make_lake
from tests.helpers.paths import ROOT
from tests.helpers.policies import Statement, policies, refused, unused
from tests.helpers.whole_run import WholeRun

NEEDS = ROOT / "infra" / "aws_needs.yaml"
# The policy of each component of the recorded run. Add a line for a new command.
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
    "catalog": "access.CatalogPolicy",
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


@pytest.mark.nightly
@pytest.mark.spark
@pytest.mark.aws
def test_each_component_may_make_the_calls_that_it_makes_and_no_others(
    embedded_aws: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = f"{os.getpid()}-{next(_numbers)}"
    names = ResourceNames(*(f"{name}-{number}" for name in ("crawler", "job", "objects", "crawls", "rule")))
    with Recorder(embedded_aws.endpoint) as recorder:
        monkeypatch.setenv("AWS_ENDPOINT_URL", recorder.endpoint)
        settings = make_lake(
            tmp_path,
            "spark.master=local[1]",
            "stream.shards=2",
            "source.max_records_per_batch=25",
            "sink.max_new_partitions_per_batch=2",  # some records are held back
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
    granted = {component: all_policies[name] for component, name in POLICIES.items()}

    assert unknown == [], "add the permissions of these requests to tests/helpers/call_recorder.py"
    assert {call.component for call in calls} == POLICIES.keys(), "each component made calls, and each has a policy"
    assert refused(calls, granted) == []
    assert unused(calls, granted, needs()) == []


def test_a_permission_without_a_recorded_call_has_a_written_reason() -> None:
    recorded = set(POLICIES.values())
    others = {name: statements for name, statements in policies().items() if name not in recorded}
    assert unused([], others, needs()) == []


def test_every_reason_is_for_an_existing_statement() -> None:
    known = {each.where for statements in policies().values() for each in statements}
    assert needs().keys() - known == set()


def test_actions_have_no_wildcard_and_no_data_is_public() -> None:
    alone = {  # actions without a resource type in IAM
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


def test_the_jobs_may_read_the_release_after_the_stacks_and_no_other_folder() -> None:
    next_release, other = "movement/0.2.0-9e107d9d", "elsewhere/0.2.0-9e107d9d"
    stacks = policies(Release="movement/0.1.0-5f0c2a91")
    for name in ("access.StreamJobPolicy", "access.BatchJobPolicy"):
        for file in ("jobs/stream_job.py", "environment.tar.gz", "conf/mine-5f0c2a91.yaml"):
            asked = "s3:GetObject", f"arn:aws:s3:::some-artifacts/{next_release}/{file}"
            assert any(each.allows(*asked) for each in stacks[name]), f"{name}: {asked}"
        asked = "s3:GetObject", f"arn:aws:s3:::some-artifacts/{other}/jobs/stream_job.py"
        assert not any(each.allows(*asked) for each in stacks[name])


READS = Statement("x.Role.Read", ("s3:GetObject",), ("arn:aws:s3:::b/raw/*",), False)
READ = Call("job", "s3:GetObject", "arn:aws:s3:::b/raw/1", "GET object")


def test_a_call_that_is_not_allowed_is_named_with_its_component() -> None:
    other = Call("job", "s3:GetObject", "arn:aws:s3:::b/rawer/1", "GET object")
    write = Call("job", "s3:PutObject", "arn:aws:s3:::b/raw/1", "PUT object")

    assert refused([READ], {"job": [READS]}) == []
    assert refused([READ, other, write], {"job": [READS]}) == [
        "job needs s3:GetObject on arn:aws:s3:::b/rawer/1 (GET object), and no statement of its policy allows it",
        "job needs s3:PutObject on arn:aws:s3:::b/raw/1 (PUT object), and no statement of its policy allows it",
    ]


def test_an_unused_permission_is_named_with_its_statement() -> None:
    wide = Statement(
        "x.Role.Read", ("s3:GetObject", "s3:PutObject"), ("arn:aws:s3:::b/raw/*", "arn:aws:s3:::c/*"), False
    )

    assert unused([READ], {"job": [READS]}, {}) == []
    assert unused([READ], {"job": [wide]}, {}) == [
        "x.Role.Read allows arn:aws:s3:::c/*, and job never touched it",
        "x.Role.Read allows s3:PutObject, and job never called it",
    ]
    assert unused([], {"job": [READS]}, {"x.Role.Read": ["s3:GetObject"]}) == []
    assert unused([READ], {"job": [READS]}, {"x.Role.Read": ["s3:GetObject", "s3:Gone"]}) == [
        "aws_needs.yaml: x.Role.Read does not allow s3:Gone: remove it",
        "aws_needs.yaml: x.Role.Read: s3:GetObject was called: remove it",
    ]


def test_requests_are_mapped_to_the_permissions_that_they_need() -> None:
    s3 = {"Authorization": f"AWS4-HMAC-SHA256 Credential=component-x/20261124/{REGION}/s3/aws4_request"}
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
