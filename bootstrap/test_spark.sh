#!/usr/bin/env bash
# The streaming tests on another Spark: bootstrap/test_spark.sh 4.0.2. Everything but Spark, and the jars of S3A and Delta
# that go with it, is as locked.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-}
# Hadoop's S3A as that Spark was built with, Delta's jar for it, and Spark's own module for S3's checkpoint files: Maven
# Central has none for 4.2, and the job does without.
case "$version" in
    4.0.*) hadoop=3.4.1 sdk=2.25.53 delta=io.delta:delta-spark_2.13:4.0.0 cloud=$version ;;
    4.1.*) hadoop=3.4.2 sdk=2.29.52 delta=io.delta:delta-spark_4.1_2.13:4.2.0 cloud=$version ;;
    4.2.*) hadoop=3.5.0 sdk=2.35.4 delta=io.delta:delta-spark_4.2_2.13:4.4.0 cloud="" ;;
    *) echo "error: SPARK=${version:-(nothing)}: allowed: a Spark version of 4.0 to 4.2, such as SPARK=4.0.2" >&2; exit 2 ;;
esac
venv=".venv-spark-$version"
if [ ! -f "$venv/.ready" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    # Without --require-hashes: the other Spark is not in the lock.
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
