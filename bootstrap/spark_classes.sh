#!/usr/bin/env bash
# Writes Java's archive of the classes that Spark loads (.venv/spark-classes.jsa, 150 MB). With it, the tests' Spark
# processes start in half the time; tests/conftest.py uses it. Never fails: without it the tests are only slower.
# Source: https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
set -uo pipefail

archive=.venv/spark-classes.jsa
draft=$PWD/$archive.draft
echo "Archiving Spark's classes for the tests, once (about a minute)"
rm -f "$draft"
SPARK_SUBMIT_OPTS="$(.venv/bin/python -m tests.helpers.jvm_options) -XX:ArchiveClassesAtExit=$draft" \
    timeout 300 .venv/bin/python -m pytest -q -p no:cacheprovider \
    tests/jobs/stream/test_job.py::test_a_restarted_job_continues_where_it_ended \
    "tests/jobs/gold/test_job.py::test_a_deleted_table_is_computed_again_and_the_others_stay" >/dev/null 2>&1
# The JVM writes the archive after the tests' process has ended.
for _ in $(seq 120); do
    pgrep -f "ArchiveClassesAtExit=$draft" >/dev/null || break
    sleep 1
done
if [ -s "$draft" ]; then mv "$draft" "$archive"; else echo "note: no archive of Spark's classes: the tests are slower"; fi
exit 0
