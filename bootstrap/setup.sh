#!/usr/bin/env bash
# Creates .venv: pinned dependencies, this project in development mode, Spark's extra jars. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

fail() { echo "error: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "no $python on the PATH: install Python 3.11 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is $("$python" -V): Python 3.11 or newer is needed; set PYTHON to one, such as PYTHON=python3.12"
if [ ! -x .venv/bin/python ]; then
    echo "Creating the virtual environment .venv"
    "$python" -m venv .venv >/dev/null 2>&1 || { rm -rf .venv; fail "python's venv is missing: apt-get install python3-venv"; }
fi
bootstrap/java.sh
echo "Installing the pinned dependencies (Spark is 450 MB: a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
.venv/bin/python bootstrap/spark_jars.py
# Spark puts its pyspark.zip before the installed pyspark. It is not compiled, and before Python 3.13 each task reads its
# index again, 0.05 s (github.com/python/cpython/issues/103200). This takes the modules from the installed package.
for packages in .venv/lib/python3*/site-packages; do
    echo 'import sys; sys.path[:] = [p for p in sys.path if not (p.startswith(sys.prefix) and p.endswith(".zip"))]' \
        > "$packages/without-sparks-archives.pth"
done
touch .venv/.ready
