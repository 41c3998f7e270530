"""The Lambdas' zips in a bare interpreter: the zip, boto3 and what boto3 needs, nothing of this checkout."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.common.aws import client
from movement.packaging.functions import FUNCTIONS, build_functions
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.aws
EVENTS = ROOT / "tests" / "lambdas" / "events"
ROLE = "arn:aws:iam::123456789012:role/crawler"
# As Lambda's runtime does it: the zip and the runtime's own boto3 on the path, then module.handler(event, context).
RUN = """
import sys
sys.path[1:1] = sys.argv[1:3]
import importlib, json
handler = importlib.import_module(sys.argv[3]).handler
print(json.dumps(handler(json.load(sys.stdin), None)))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with boto3 and its own dependencies, as Lambda's runtime has."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in ("boto3", "botocore", "s3transfer", "jmespath", "urllib3", "python-dateutil", "six"):
        for file in importlib.metadata.distribution(name).files or ():
            top = file.parts[0]
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    return folder


def invoke(folder: Path, runtime: Path, name: str, event: dict[str, Any], **names: str) -> tuple[Any, str, set[str]]:
    """The function's answer, what it logged, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUN, str(folder / name), str(runtime), FUNCTIONS[name]],
        input=json.dumps(event),
        env={key: value for key, value in os.environ.items() if key.startswith("AWS_")} | names,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *log, answer, imported = done.stdout.splitlines()
    return json.loads(answer), "\n".join(log), set(json.loads(imported))


def message(file: str) -> dict[str, Any]:
    """An SQS event with one message, whose body is a published event of AWS."""
    one = json.loads((EVENTS / "sqs_message.json").read_text())
    return {"Records": [one | {"body": (EVENTS / file).read_text()}]}


def test_the_zips_start_the_crawler_and_the_job(embedded_aws: object, runtime: Path, tmp_path: Path) -> None:
    build_functions(tmp_path)
    glue = client("glue")
    event = json.loads((EVENTS / "crawler_succeeded.json").read_text())
    crawler = event["detail"]["crawlerName"]
    glue.create_database(DatabaseInput={"Name": "zips"})
    glue.create_crawler(Name=crawler, Role=ROLE, DatabaseName="zips", Targets={"S3Targets": [{"Path": "s3://b/d/"}]})
    glue.create_job(Name="zips-job", Role=ROLE, Command={"Name": "glueetl", "ScriptLocation": "s3://b/job.py"})

    answer, log, imported = invoke(
        tmp_path, runtime, "lambda-crawler-trigger.zip", message("s3_object_created.json"), CRAWLER_NAME=crawler
    )
    assert json.loads(log)["decision"] == "started"
    assert len(answer["batchItemFailures"]) == 1, "it comes back until the crawl has succeeded"
    assert glue.get_crawler(Name=crawler)["Crawler"]["State"] == "RUNNING"
    assert imported & {"jobs", "movement", "pydantic", "pyarrow", "pyspark", "yaml"} == set()

    _, log, _ = invoke(
        tmp_path,
        runtime,
        "lambda-gluejob-trigger.zip",
        message("crawler_succeeded.json"),
        CRAWLER_NAME=crawler,
        JOB_NAME="zips-job",
        DATABASE="zips",
        DELIVERY_TABLE="delivery",
    )
    assert json.loads(log)["decision"] == "started"
    (run,) = glue.get_job_runs(JobName="zips-job")["JobRuns"]
    assert run["JobRunState"] == "STARTING"
