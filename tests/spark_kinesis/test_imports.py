"""What the source imports: little when a query starts, and nothing of this project."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.helpers.paths import ROOT

# As Spark does in the process that makes the source and in the one that pickles its reader.
PROGRAM = """
import pickle, sys
from spark_kinesis.data_source import KinesisRangesDataSource
source = pickle.loads(pickle.dumps(KinesisRangesDataSource({"streamName": "s", "region": "eu-west-1"})))
reader = pickle.loads(pickle.dumps(source.streamReader(source.schema())))
reader.initialOffset()
print(*sorted(name.partition(".")[0] for name in sys.modules))
print(*sorted(sys.modules))
"""


def test_a_source_is_made_and_pickled_without_botocore() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "PYTHONPATH": str(ROOT), "AWS_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    packages, modules = (set(line.split()) for line in output.splitlines())
    assert packages & {"boto3", "botocore", "tenacity", "pydantic", "deltalake"} == set()
    assert "pyarrow.compute" not in modules
    assert "spark_kinesis.data_source" in modules


# All that planning and reading use.
WHOLE_SOURCE = """
import sys
import spark_kinesis.boto_client, spark_kinesis.data_source, spark_kinesis.planner, spark_kinesis.reader
print(*sorted(sys.modules))
"""


def test_the_source_imports_nothing_of_ours_and_has_few_modules() -> None:
    modules = subprocess.run(
        [sys.executable, "-c", WHOLE_SOURCE],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    packages = {name.partition(".")[0] for name in modules}
    assert packages & {"jobs", "producer", "lambdas", "local", "movement"} == set()
    own = [name for name in modules if name.startswith("spark_kinesis.")]
    assert len(own) <= 18, own
