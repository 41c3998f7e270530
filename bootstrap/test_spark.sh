#!/usr/bin/env bash
# Runs the streaming tests on another Spark: bootstrap/test_spark.sh 4.0.2. Only Spark and its jars of S3A and Delta
# differ from the lock.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-}
# The S3A that this Spark was built with, Delta's jar for it, and Spark's module for checkpoint files on S3. Maven Central
# has no such module for 4.2; the job works without it.
case "$version" in
    4.0.*) hadoop=3.4.1 sdk=2.25.53 delta=io.delta:delta-spark_2.13:4.0.0 cloud=$version ;;
    4.1.*) hadoop=3.4.2 sdk=2.29.52 delta=io.delta:delta-spark_4.1_2.13:4.2.0 cloud=$version ;;
    4.2.*) hadoop=3.5.0 sdk=2.35.4 delta=io.delta:delta-spark_4.2_2.13:4.4.0 cloud="" ;;
    *) echo "error: SPARK=${version:-(nothing)}: allowed: a Spark version of 4.0 to 4.2, such as SPARK=4.0.2" >&2; exit 2 ;;
esac
venv=".venv-spark-$version"
if [ ! -f "$venv/.ready" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    # Without --require-hashes, because the lock does not have this Spark.
    sed -E 's/ \\$//; /^ +(--hash|#)/d' requirements.lock | grep -vE '^(pyspark|delta-spark|#)' > "$venv/constraints.txt"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$venv/constraints.txt" \
        "pyspark==$version" py4j
    touch "$venv/.ready"
fi
if [ ! -f "$venv/.jars" ]; then
    aws=software.amazon.awssdk
    PYSPARK_PYTHON="$PWD/$venv/bin/python" "$venv/bin/python" bootstrap/ivy_jars.py "$venv/ivy" \
        ${cloud:+"org.apache.spark:spark-hadoop-cloud_2.13:$cloud"} "org.apache.hadoop:hadoop-aws:$hadoop" \
        "$aws:s3:$sdk" "$aws:s3-transfer-manager:$sdk" "$aws:sts:$sdk" "$delta"
    touch "$venv/.jars"
fi
PYTHONPATH=. PYSPARK_PYTHON="$PWD/$venv/bin/python" "$venv/bin/python" -m pytest -q \
    tests/spark_kinesis/test_streaming.py tests/jobs/stream/test_job.py tests/system/test_delta_lake.py
