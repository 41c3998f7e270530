#!/usr/bin/env bash
# The source's streaming tests on another Spark: bootstrap/test_spark.sh 4.0.2. Everything but Spark is as locked.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-}
case "$version" in
    4.*) ;;
    *) echo "error: SPARK=${version:-(nothing)}: allowed: a Spark version from 4.0 on, such as SPARK=4.0.2" >&2; exit 2 ;;
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
PYTHONPATH=. PYSPARK_PYTHON="$PWD/$venv/bin/python" "$venv/bin/python" -m pytest tests/source/test_streaming.py -q
