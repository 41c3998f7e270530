"""What a query's start costs in imports, process by process."""

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
    assert packages & {"boto3", "botocore", "pydantic", "deltalake"} == set()
    assert "pyarrow.compute" not in modules
    assert "spark_kinesis.data_source" in modules
