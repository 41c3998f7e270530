"""A Lambda's cold start is its import: boto3 and the standard library, under 250 ms."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

MEASURE = """
import sys, time
started = time.process_time()
import {module}
print(time.process_time() - started, *sorted(name.partition(".")[0] for name in sys.modules))
"""


@pytest.mark.parametrize("module", ["lambdas.crawler_trigger", "lambdas.gluejob_trigger"])
def test_the_import_is_quick_and_brings_boto3_alone(module: str) -> None:
    seconds, imported = [], set()
    for _ in range(5):  # processor time, the best of five: the machine has other work
        output = subprocess.run(
            [sys.executable, "-c", MEASURE.format(module=module)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        seconds.append(float(output[0]))
        imported = set(output[1:])
    assert min(seconds) < 0.5
    assert imported & {"pyspark", "pandas", "pyarrow", "pydantic", "jobs", "local", "movement", "moto"} == set()
    assert {"boto3", "lambdas"} <= imported
